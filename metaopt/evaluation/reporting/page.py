"""The report as one HTML file that needs no network and no script, and reads on a phone, on a wide screen, in the dark and on paper."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from urllib.parse import quote

from metaopt.evaluation.reporting.cells import Table
from metaopt.evaluation.reporting.sections import Document, Section

__all__ = ["Picture", "html_page"]

_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{title}</title><style>\n{style}</style></head>\n'
    "<body>\n<h1>{title}</h1>"
)


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, with its caption."""

    caption: str
    svg: bytes


def html_page(document: Document, pictures: Mapping[str, Picture], colours: Mapping[str, str]) -> str:
    """Return the report as one HTML document with its figures inside.

    Args:
        document: the report.
        pictures: its figures by name.
        colours: of the learners in the figures, by name.
    """
    style = (resources.files("metaopt.evaluation.reporting") / "page.css").read_text(encoding="utf-8")
    parts = [_HEAD.format(title=html.escape(document.title), style=style), '<div class="verdicts">']
    for verdict in document.verdicts:
        mark = html.escape(colours.get(verdict.learner, "currentColor"))
        details = f"<ul>{''.join(f'<li>{_breakable(detail)}</li>' for detail in verdict.details)}</ul>" if verdict.details else ""
        parts.append(f'<div class="verdict" style="--mark:{mark}"><strong>{_breakable(verdict.sentence)}</strong>{details}</div>')
    parts.append("</div>")
    parts += [f'<p class="warning">{html.escape(warning)}</p>' for warning in document.warnings]
    links = (f'<a href="#{_anchor(section)}">{html.escape(section.heading)}</a>' for section in document.sections)
    parts += ["<nav>", *links, "</nav>"]
    for section in document.sections:
        parts += _section(section, pictures)
    return "\n".join([*parts, "</body></html>\n"])


def _section(section: Section, pictures: Mapping[str, Picture]) -> Iterator[str]:
    yield f'<section id="{_anchor(section)}"><h2>{html.escape(section.heading)}</h2>'
    if section.folded:
        yield f"<details><summary>Show {len(section.figures) or len(section.pairs)} {'figures' if section.figures else 'entries'}</summary>"
    first, others = section.tables[:1], section.tables[1:]
    beside = len(section.figures) == 1 and bool(first)  # where there is room, a single figure and the main table stand side by side
    if beside:
        yield '<div class="beside">'
    if section.figures:
        yield '<div class="figures">'
        yield from (_figure(pictures[name], captioned=section.captioned) for name in section.figures)
        yield "</div>"
    if beside:
        yield f"<div>{_table(first[0])}</div></div>"
    yield from map(_table, others if beside else section.tables)
    if section.items:
        yield "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in section.items) + "</ul>"
    if section.pairs:
        yield "<dl>" + "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in section.pairs) + "</dl>"
    if section.links:
        found = (f'<li><a href="{html.escape(quote(target), quote=True)}">{html.escape(name)}</a></li>' for name, target in section.links)
        yield "<ul>" + "".join(found) + "</ul>"
    yield "</details></section>" if section.folded else "</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_breakable(column)}</th>' for column in table.columns)
    body = "".join(_row(cells, strong=i in table.strong) for i, cells in enumerate(table.rows))
    name = html.escape(table.caption or f"table by {table.columns[0]}", quote=True)
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    content = f'<div class="wide" role="region" aria-label="{name}" tabindex="0">{inner}</div>'
    if table.folded:
        return f"<details><summary>{_breakable(table.caption)}</summary>{content}</details>"
    return f"<h3>{_breakable(table.caption)}</h3>{content}" if table.caption else content


def _row(cells: Sequence[str], *, strong: bool) -> str:
    name, *values = cells
    inner = "".join(f"<td>{_cell(value)}</td>" for value in values)
    return f'<tr{" class=strong" * strong}><th scope="row">{_breakable(name)}</th>{inner}</tr>'


def _cell(text: str) -> str:
    """Return escaped text; the interval behind a value may go on a line of its own."""
    value, bracket, interval = html.escape(text).partition(" [")
    return f'{value} <span class="interval">[{interval}</span>' if bracket else value


def _breakable(text: str) -> str:
    """Return escaped text; a long name may break behind its joints, and K stays with its number of trials."""
    pieces = re.sub(r"(?<=\S)([_@/=])(?=\S\S\S)", "\\1\x00", text)
    return html.escape(pieces).replace("\x00", "<wbr>")


def _figure(picture: Picture, *, captioned: bool) -> str:
    """Return a figure as an image of its own, so that nothing in it meets the page; sharp at any size."""
    svg = re.sub(rb"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", b"", picture.svg, flags=re.DOTALL)
    width, height = (round(float(side)) for side in re.findall(rb'(?:width|height)="([\d.]+)pt"', svg)[:2])
    text = re.sub(r"\s*\n\s*", " ", svg.decode()).replace('"', "'")
    source = quote(text, safe=" !$()*+,-./:;=?@[]_|~'")
    caption = html.escape(picture.caption, quote=True)
    image = f'<img alt="{caption}" width="{width}" height="{height}" src="data:image/svg+xml,{source}">'
    return f"<figure>{image}{f'<figcaption>{caption}</figcaption>' * captioned}</figure>"


def _anchor(section: Section) -> str:
    return re.sub(r"\W+", "-", section.heading.lower()).strip("-")
