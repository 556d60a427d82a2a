"""The tables of an evaluation as text, which a terminal and Markdown show alike, at most 120 columns wide."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from metaopt.baselines.reference import AGAINST
from metaopt.evaluation.policies.figures import figures
from metaopt.evaluation.policies.results import PolicyEvaluation
from metaopt.evaluation.policies.rivals import GRID
from metaopt.evaluation.policies.rows import AGAINST_DEFAULT, COSINE, POLICY, WIDE_COSINE
from metaopt.evaluation.policies.summary import EVERY

__all__ = ["report_text", "write_report"]

_NAME, _FAMILY = 24, 22  # characters of the longest names in a table: seven columns fit into 120
_LEGEND = """Reward: log of the budget at which AdamW at 0.001 gets as far, -3 to 0.69; 0 is as good as that.
Beside the best rate: the same with AdamW at the best of five constant rates, chosen for each task.
Ahead: how much more the policy gets, paired by task and seed. Brackets: 95 %, over tasks and seeds.
Policy wins: share of the runs, paired alike, that it ends with a lower loss; a tie is half a win.
Rewards are not above 0.69, and two that reach it look equal: wins, and steps, tell them apart.
Steps: what a baseline needs for the policy's loss, over the policy's; <, > count runs out of range."""

_RATIOS = {AGAINST_DEFAULT: "x AdamW 0.001", COSINE: "x best cosine", WIDE_COSINE: "x best of 7"}


def write_report(found: PolicyEvaluation, folder: Path) -> list[Path]:
    """Write `results.json`, the long tables as CSV, `report.md` and figures as PNG; returns what was written."""
    written = found.save(folder)
    text = folder / "report.md"
    text.write_text(report_text(found))
    pictures = []
    for name, content in figures(found).items():
        pictures.append(folder / f"{name}.png")
        pictures[-1].write_bytes(content)
    return [*written, text, *pictures]


def report_text(found: PolicyEvaluation) -> str:
    """Return the tables of every set, with what they mean."""
    about = found.about
    saw = [name for name, given in (("evaluation loss", about["eval_loss"]), ("registers", about["registers"])) if given]
    head = f"# {about['artifact']}\n\n{about['seeds']} seeds a task; the policy had {' and '.join(saw) or 'training statistics alone'}."
    parts = [head, _LEGEND]
    for name in dict.fromkeys(found.comparison.set):
        parts += _set_text(found, str(name))
    return "\n\n".join(parts) + "\n"


def _set_text(found: PolicyEvaluation, name: str) -> list[str]:
    rewards, comparison, factors = (table[table.set == name] for table in (found.rewards, found.comparison, found.factors))
    whole = comparison[comparison.family == EVERY].iloc[0]
    runs = int(rewards[rewards.family == EVERY].runs.iloc[0])
    lines = [f"## {name}: {_count(whole.tasks, 'task')}, {_count(runs, 'run')}"]
    default, best = (sum(found.rejected[name][against].values()) for against in AGAINST)
    if default or best:
        lines.append(f"{_count(default, 'task')} cannot be scored beside AdamW at 0.001, {best} beside its best rate; their losses count.")
    everybody = _rows(rewards, EVERY)
    lines.append(_table(("who", "reward", "policy is ahead by", "diverged"), [_who(row) for row in everybody]))
    lines.append(_table(("who", "beside the best rate", "policy is ahead by", "policy wins"), [_beside_best(row) for row in everybody]))
    if isinstance(whole.get("median"), str):
        ahead = _interval(whole.ahead, whole.ahead_low, whole.ahead_high)
        lines.append(
            f"The grid's median run is {whole['median']} ({whole.median_reward:.2f}), its best {whole.best} ({whole.best_reward:.2f}).\n"
            f"The policy beats {round(whole.beaten * len(GRID))} of {len(GRID)} runs, and is ahead of the median one by {ahead}."
        )
    ratios = tuple(_RATIOS.values()) if len(factors) else ()
    table = [_family(row, rewards, factors) for row in comparison.itertuples()]
    lines.append(_table(("family", "tasks", "reward", *ratios, "wins"), table))
    for row in _rows(factors, EVERY):
        reach, middle = _interval(row["factor"], row["low"], row["high"]), f"median {row['median']:.2f}"
        bounds = f"{row['at_most']} < {row['at_least']} > of {row['runs']}"
        lines.append(f"Steps to equal loss, {row['against']}: {reach}, {middle} ({bounds}).")
    return lines


def _who(row: pd.Series) -> tuple[str, ...]:
    ahead = "" if row.who == POLICY else _interval(row.ahead, row.ahead_low, row.ahead_high)
    return row.who, _interval(row.reward, row.low, row.high), ahead, f"{row.diverged:.1%}"


def _beside_best(row: pd.Series) -> tuple[str, ...]:
    reward, ahead = (_interval(*(row[f"{name}_best{end}"] for end in ("", "_low", "_high"))) for name in ("reward", "ahead"))
    if row.who == POLICY:
        return row.who, reward, "", ""
    return row.who, reward, ahead, f"{row.wins:.0%} [{100 * row.wins_low:.0f} {100 * row.wins_high:.0f}]"


def _family(row: "pd.core.frame.Any", rewards: pd.DataFrame, factors: pd.DataFrame) -> tuple[str, ...]:
    mine, cosine = (rewards[(rewards.family == row.family) & (rewards.who == who)].iloc[0] for who in (POLICY, COSINE))
    cells = []
    for against in _RATIOS if len(factors) else ():
        own = factors[(factors.family == row.family) & (factors.against == against)]
        cells.append(_interval(*(own[key].iloc[0] for key in ("factor", "low", "high"))))
    return _cut(str(row.family), _FAMILY), str(row.tasks), _interval(mine.reward, mine.low, mine.high), *cells, f"{cosine.wins:.0%}"


def _rows(table: pd.DataFrame, family: str) -> list[pd.Series]:
    return [row for _, row in table[table.family == family].iterrows()] if len(table) else []


def _interval(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} {_brackets(low, high)}"


def _brackets(low: float, high: float) -> str:
    return f"[{low:.2f} {high:.2f}]"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "~"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up."""
    cells = [[_cut(one, _NAME) for one in row] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])
