"""The report as Markdown and as one HTML file that needs no network and reads on a phone."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["html_page", "markdown_page"]

_HOW = (
    "Losses are normalised (about 1 at initialisation, about 0 when solved) and measured on held-out examples; training loss stands beside "
    "them. Every number is an interquartile mean over tasks and seeds with a 95 % interval from a stratified bootstrap.",
    "Speed-up: how many times the learner's steps the best scheduled baseline needs for the learner's final loss, its schedule stretched "
    "over up to four times the horizon. Above that it is censored at 4 and counted.",
    "P(better): probability that a run of this line ends lower than one of the best scheduled baseline on the same task.",
    "A failed run (diverged, or worse at the end than at the start) counts with the worst loss and speed-up 0; none is dropped.",
    "Of each baseline K choices of rate, weight decay and decays were tried on other seeds and the best kept. Learners were not tuned.",
)

_STYLE = """
body{margin:0 auto;max-width:74rem;padding:1rem;background:#fff;color:#1a1a1a;font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2rem}
.wide{overflow-x:auto}table{font-size:.9rem;border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.3rem .5rem;text-align:right;border-bottom:1px solid #d5d5d5}th:first-child,td:first-child{text-align:left}
thead th{border-bottom:2px solid #1a1a1a}tr.learner{background:#e8f2fa;font-weight:600}
img{max-width:100%;height:auto;display:block;margin:.5rem 0}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}
.warning{border-left:4px solid #d55e00;padding:.2rem .8rem;background:#fdf1e8}
code{font-size:.9em;overflow-wrap:anywhere}
@media(max-width:48rem){body{font-size:15px}table{font-size:.8rem}th,td{padding:.25rem .35rem}.interval{display:block;font-size:.85em}
th{white-space:normal}td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:5rem}}
"""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def markdown_page(
    title: str, tables: Mapping[str, Table], warnings: Sequence[str], notes: Sequence[str], provenance: Mapping[str, Any]
) -> str:
    """Return the report as Markdown: title, warnings, tables, notes, how to read it, provenance."""
    parts = [f"# {title}", *(f"> {warning}" for warning in warnings)]
    for heading, (columns, lines) in tables.items():
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (columns, *lines)]
        rows.insert(1, "|---" + "|---:" * (len(columns) - 1) + "|")
        parts += [f"## {heading}", "\n".join(rows)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in (*notes, *_HOW))]
    parts += ["## Provenance", "\n".join(f"- {key}: {value}" for key, value in _flat(provenance))]
    return "\n\n".join(parts) + "\n"


def html_page(
    title: str,
    tables: Mapping[str, Table],
    strong_rows: int,
    warnings: Sequence[str],
    notes: Sequence[str],
    provenance: Mapping[str, Any],
    figures: Mapping[str, bytes],
) -> str:
    """Return the report as one HTML document; figures (PNG bytes by caption) are inside it.

    Args:
        tables: heading -> (column names, lines).
        strong_rows: so many lines of the first table are the learners, and stand out.
    """
    first, *others = tables.items()
    blocks = [f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings]
    blocks.append(_table(*first, strong_rows))
    images = [_image(caption, content) for caption, content in figures.items()]
    blocks += [
        images[0],
        *(_table(heading, table, 0) for heading, table in others),
        "<h2>Curves</h2>",
        '<div class="curves">',
        *images[1:],
        "</div>",
    ]
    blocks += ["<h2>Notes</h2><ul>", *(f"<li>{html.escape(note)}</li>" for note in (*notes, *_HOW)), "</ul>"]
    blocks += ["<h2>Provenance</h2><ul>"]
    blocks += [f"<li>{html.escape(key)}: <code>{html.escape(value)}</code></li>" for key, value in _flat(provenance)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n" + "\n".join(blocks) + "</ul>\n</body></html>\n"
    )


def headline_table(summary: pd.DataFrame) -> Table:
    """Return the headline table's columns and lines as text."""
    columns = ("learner", "K", "final loss [95 %]", "speed-up [95 %]", "censored", "failures", "P(better) [95 %]", "train loss", "anytime")
    lines = [
        (
            row.learner,
            "-" if row.kind == "learner" else str(row.trials),
            f"{row.final_loss:.4f} [{row.final_loss_low:.4f}, {row.final_loss_high:.4f}]",
            f"{row.speed_up:.2f} [{row.speed_up_low:.2f}, {row.speed_up_high:.2f}]",
            f"{row.censored}/{row.runs}",
            f"{row.failures}/{row.runs}",
            f"{row.improvement:.2f} [{row.improvement_low:.2f}, {row.improvement_high:.2f}]",
            f"{row.train_loss:.4f}",
            f"{row.anytime:.3f}",
        )
        for row in summary.itertuples()
    ]
    return columns, lines


def _table(heading: str, table: Table, strong_rows: int) -> str:
    columns, lines = table
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr{' class=learner' if i < strong_rows else ''}>" + "".join(f"<td>{_cell(cell)}</td>" for cell in line) + "</tr>"
        for i, line in enumerate(lines)
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<h2>{html.escape(heading)}</h2><div class="wide" tabindex="0"><table>{content}</table></div>'


def _cell(text: str) -> str:
    """Return escaped text; an interval behind a value may go on a line of its own."""
    value, bracket, interval = html.escape(text).partition(" [")
    return f'{value} <span class="interval">[{interval}</span>' if bracket else value


def _image(caption: str, content: bytes) -> str:
    source = base64.b64encode(content).decode("ascii")
    return f'<img alt="{html.escape(caption, quote=True)}" src="data:image/png;base64,{source}">'


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            pairs += _flat(value, f"{prefix}{key} / ")
        elif isinstance(value, Mapping):
            pairs.append((prefix + key, ", ".join(f"{name} {inner}" for name, inner in value.items())))
        else:
            pairs.append((prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return pairs
