"""From scores to claims: the data cube, aggregates, intervals, comparisons, profiles and degradation curves."""
