"""The tables of a report, from curves and scores, as pure functions."""
