"""The headline for a terminal, at most 80 columns wide."""

import textwrap

import pandas as pd

from metaopt.evaluation.reporting.verdict import verdicts
from metaopt.evaluation.tables.results import Results

__all__ = ["terminal_text"]

_WIDTH = 80
_LEGEND = (
    "Interquartile mean [95 %] of {runs} runs a line. Score: 0 no change, 1 the best tuned baseline's final loss; loss: final, held out; "
    "speed-up over that baseline; cut: speed-ups above its 4 horizons; fail: failed runs; K: trials."
)


def terminal_text(results: Results) -> str:
    """Return the headline table with its legend, a sentence a learner, and the warnings."""
    counts = sorted(set(results.summary.runs))
    runs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentences = [verdict.sentence for verdict in verdicts(results)]
    blocks = [
        _table(results.summary),
        *(textwrap.fill(text, _WIDTH) for text in (_LEGEND.format(runs=runs), *sentences, *results.warnings)),
    ]
    return "\n\n".join(blocks)


def _table(summary: pd.DataFrame) -> str:
    head = f"{'learner':<22} {'K':>3}  {'score':<18} {'loss':>5}  {'speed-up':<17} {'cut':>3} {'fail':>4}"
    lines = [head, "-" * len(head)]
    for row in summary.itertuples():
        name = row.learner if len(row.learner) <= 22 else row.learner[:21] + "~"
        trials = "" if row.kind == "learner" else str(row.trials)
        score = f"{_short(row.score)} [{_short(row.score_low)} {_short(row.score_high)}]"
        ratio = f"{row.speed_up:.2f} [{row.speed_up_low:.2f} {row.speed_up_high:.2f}]"
        loss = _short(row.final_loss, 3)
        lines.append(f"{name:<22} {trials:>3}  {score:<18} {loss:>5}  {ratio:<17} {row.censored:>3} {row.failures:>4}")
    return "\n".join(line.rstrip() for line in lines)


def _short(value: float, digits: int = 2) -> str:
    """Return at most five characters, rounded; `digits` behind the point below 10."""
    return f"{value:.{digits}f}" if abs(value) < 9.9995 else f"{value:.3g}"[:5]
