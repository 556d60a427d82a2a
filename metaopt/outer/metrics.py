"""Rows of numbers as JSON lines that survive a crash and a resume: what is counted in a checkpoint is on the disk, and nothing else stays.

A row is one strict JSON object with its keys in the order given; floats are written by `repr`, so they come back bit for bit. JSON has no
NaN or infinity: such a value is written as null, and the row's key `nonfinite` says which it was, for example `{"loss": "nan"}`.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from metaopt.errors import CorruptCheckpointError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MetricsWriter", "read_metrics", "read_rows"]

_NONFINITE = "nonfinite"


class MetricsWriter:
    """Appends rows to a JSON lines file.

    Args:
        path: the file; created when missing.
        rows: rows to keep of what is there, the number that the checkpoint counted. What follows, a cut line too, is removed.

    Raises:
        CorruptCheckpointError: the file has fewer whole rows.
    """

    def __init__(self, path: Path, rows: int = 0) -> None:
        self.path = path
        self.rows = rows
        self._file = open(path, "a+b")  # noqa: SIM115  (closed by close)
        self._file.seek(0)
        length = 0
        for index in range(rows):
            line = self._file.readline()
            if not line.endswith(b"\n"):
                self._file.close()
                raise CorruptCheckpointError(f"{path} has {index} whole rows, its checkpoint counted {rows}")
            length += len(line)
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row of scalars, strings and (nested) lists and dicts of them; readers see it at once, the disk at `commit`.

        Raises:
            TypeError: a value is of another type. Nothing is written.
        """
        odd: dict[str, str] = {}
        plain = _finite(row, "", odd)
        if odd:
            plain[_NONFINITE] = odd
        self._file.write(json.dumps(plain, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self.rows += 1

    def commit(self) -> int:
        """Wait until all rows are on the disk; return their number, for the checkpoint."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.rows

    def close(self) -> None:
        """Commit and close."""
        if not self._file.closed:
            self.commit()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file that may be in use, non-finite values restored; a last line without its end is left out."""
    rows = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        for key, value in row.pop(_NONFINITE, {}).items():
            if key in row:
                row[key] = float(value)
        rows.append(row)
    return rows


def read_metrics(path: Path, kind: str = "step") -> "pd.DataFrame":
    """Return the whole rows of a kind as a table, a column for each key: those of outer steps, or those with `validation`, unpacked."""
    import pandas as pd  # slow to import, and a worker never reads metrics

    rows = read_rows(path)
    if kind == "validation":
        return pd.DataFrame([{"step": row["step"], **row[kind]} for row in rows if kind in row])
    return pd.DataFrame([row for row in rows if "validation" not in row])


def _finite(value: Any, place: str, odd: dict[str, str]) -> Any:
    """Return `value` without NaN and infinities, which are entered in `odd` under their dotted place."""
    match value:
        case Mapping():
            return {key: _finite(child, f"{place}.{key}" if place else key, odd) for key, child in value.items()}
        case list() | tuple():
            return [_finite(child, f"{place}.{index}", odd) for index, child in enumerate(value)]
        case float() if not math.isfinite(value):
            odd[place] = repr(float(value))
            return None
    return value
