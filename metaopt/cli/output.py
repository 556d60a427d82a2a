"""What verbs print: aligned tables or JSON on standard output, progress on standard error."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click

__all__ = ["ProgressDisplay", "json_text", "print_rows"]

_LINE_EVERY_S = 10.0
_LONG = 10_000  # units from which counts are rounded


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool = False) -> None:
    """Print rows with equal keys as an aligned table with a header, as a JSON list, or (quiet) the first column alone."""
    if as_json:
        click.echo(json_text(list(rows)))
        return
    if not rows:
        click.echo("none")
        return
    if quiet:
        click.echo("\n".join(_cell(next(iter(row.values()))) for row in rows))
        return
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def json_text(value: Any) -> str:
    """Return a value as indented JSON; NaN and infinities, which JSON cannot spell, become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(child) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [finite(child) for child in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=2)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _amount(units: int) -> str:
    """Return a count, from ten thousand on with three digits: 12.5k, 3.4M."""
    if units < _LONG:
        return str(units)
    rounded = float(f"{units:.3g}")
    power = min(3, int(math.log10(rounded)) // 3)
    return f"{rounded / 1000**power:g}{' kMG'[power]}"


def _duration(seconds: float) -> str:
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


class ProgressDisplay:
    """A bar on a terminal, a line every ten seconds elsewhere, nothing when quiet; see `metaopt.progress.Progress`.

    Time left is in proportion to the units done, which may be inner steps where pieces of work differ in length. A phase that announces
    itself with 0 units done is timed from there. Otherwise its first unit began with the call before, and is left out once there is a
    second, for it paid for the start-up.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet, self._stream = quiet, stream or sys.stderr
        self._bar: Any = None
        self._what = ""
        self._first = self._seen = 0
        self._warm = False
        self._started = self._last_line = self._last_call = time.monotonic()

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def __call__(self, what: str, done: int, total: int, numbers: Mapping[str, float | str] | None = None, /) -> None:
        """Show that `done` of `total` units of `what` are done."""
        if self._quiet:
            return
        now = time.monotonic()
        if what != self._what or done < self._seen:  # the second: another one of the same name
            self._finish()
            self._what, self._warm = what, done == 0
            self._first, self._started = (0, now) if done == 0 else (done - 1, self._last_call)  # a resumed run starts in the middle
        elif not self._warm:
            self._first, self._started, self._warm = self._seen, self._last_call, True
        self._last_call, self._seen = now, done
        if self._stream.isatty():
            self._draw(done, total, numbers or {})
        elif done > self._first and (now - self._last_line >= _LINE_EVERY_S or done == total):
            self._last_line = now
            left = (total - done) * (now - self._started) / max(done - self._first, 1)
            shown = "".join(f", {label} {_cell(value)}" for label, value in (numbers or {}).items())
            click.echo(f"{what} {_amount(done)}/{_amount(total)}{shown}, {_duration(left)} left", file=self._stream)

    def _draw(self, done: int, total: int, numbers: Mapping[str, float | str]) -> None:
        if self._bar is None:
            from tqdm import tqdm

            first, scale = max(0, done - 1), total >= _LONG
            self._bar = tqdm(total=total, initial=first, desc=self._what, file=self._stream, dynamic_ncols=True, unit_scale=scale)
        self._bar.set_postfix({label: _cell(value) for label, value in numbers.items()}, refresh=False)
        self._bar.update(done - self._bar.n)

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
