"""The report as Markdown."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from metaopt.evaluation.reporting.cells import Table
from metaopt.evaluation.reporting.sections import Document, Section

__all__ = ["markdown_page"]


def markdown_page(document: Document, captions: Mapping[str, str]) -> str:
    """Return the report as GitHub's Markdown; figures are links into the folder `figures` beside it.

    Args:
        document: the report.
        captions: of its figures, by name.
    """
    parts = [f"# {_text(document.title)}"]
    for verdict in document.verdicts:
        parts.append(f"**{_text(verdict.sentence)}** {_text(' '.join(verdict.details))}".rstrip())
    parts += [f"> {_text(warning)}" for warning in document.warnings]
    for section in document.sections:
        parts += _section(section, captions)
    return "\n\n".join(parts) + "\n"


def _section(section: Section, captions: Mapping[str, str]) -> Iterator[str]:
    yield f"## {_text(section.heading)}"
    for table in section.tables:
        if table.caption:
            yield f"**{_text(table.caption)}**"
        yield _table(table)
    for name in section.figures:
        yield f"![{_text(captions[name])}](<figures/{name.replace('%', '%25')}.png>)"
    if section.items:
        yield "\n".join(f"- {_text(item)}" for item in section.items)
    if section.pairs:
        yield "\n".join(f"- {_text(name)}: {_text(value)}" for name, value in section.pairs)
    if section.links:
        yield "\n".join(f"- [{_text(name)}](<{quote(target)}>)" for name, target in section.links)


def _table(table: Table) -> str:
    rows = ["| " + " | ".join(map(_text, cells)) + " |" for cells in (table.columns, *table.rows)]
    rows.insert(1, "|---" + "|---:" * (len(table.columns) - 1) + "|")
    return "\n".join(rows)


def _text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return re.sub(
        r"([\\`*|<>$~]|(?<!\w)_|_(?!\w)|!\[|\]\()", lambda found: "".join(f"\\{one}" for one in found.group()), " ".join(text.split())
    )
