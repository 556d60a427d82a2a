"""Planned comparisons: every learner with the reference and with each tuned baseline, and inside with outside its training support."""

from collections.abc import Mapping, Sequence

import pandas as pd

from metaopt.evaluation.statistics.gap import generalization_gap
from metaopt.evaluation.statistics.improvement import holm, paired_difference, permutation_p_value, probability_of_improvement
from metaopt.evaluation.statistics.resampling import bootstrap
from metaopt.evaluation.tables.lines import Board, Line, columns_of, generator
from metaopt.evaluation.tables.results import make_table

__all__ = ["contrast_table", "gap_table"]


def contrast_table(board: Board, learners: Sequence[Line], others: Mapping[str, Line]) -> pd.DataFrame:
    """Return the table `contrasts`: each learner against each of the others, on the tasks that the learner can run on.

    A contrast is about the score's interquartile mean (how much), and about the final loss (how often lower; a failed run has the worst
    loss, so that it loses against one that did nothing). The permutation test is of the latter, Holm's correction over all rows.
    """
    pairs = [(line, name) for line in learners for name in others]
    found = [_contrast(board, line, others[name]) for line, name in pairs]
    corrected = holm({str(i): contrast["p_value"] for i, contrast in enumerate(found)})
    return make_table(
        "contrasts",
        (
            {"learner": line.learner, "against": name, **contrast, "p_holm": corrected[str(i)]}
            for i, ((line, name), contrast) in enumerate(zip(pairs, found, strict=True))
        ),
    )


def gap_table(board: Board, learners: Sequence[Line]) -> pd.DataFrame:
    """Return the table `gaps`: score inside the training support minus score outside, for learners that met both."""
    rows = []
    for line in learners:
        inside = board.support(line)
        known, far = ([name for name, mark in inside.items() if mark is wanted] for wanted in (True, False))
        if known and far:
            gap = generalization_gap(board.cube(line, "score", known), board.cube(line, "score", far), generator())
            rows.append({"learner": line.learner, "inside_tasks": len(known), "outside_tasks": len(far), **columns_of("gap", gap)})
    return make_table("gaps", rows)


def _contrast(board: Board, line: Line, other: Line) -> dict[str, float]:
    tasks = board.tasks(line)
    score, their_score = board.cube(line, "score"), board.cube(other, "score", tasks)
    loss, their_loss = (board.cube(one, "final_loss", tasks).negated() for one in (line, other))
    return {
        **columns_of("difference", paired_difference(score, their_score, generator())),
        **columns_of("improvement", bootstrap([loss, their_loss], probability_of_improvement, generator())),
        "p_value": permutation_p_value(loss, their_loss, generator()),
    }
