"""What long-running calls report while they run; the command line shows it, other callers may pass their own."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Progress"]


class Progress(Protocol):
    """Called after each unit of work, from the thread that does it."""

    def __call__(self, what: str, done: int, total: int, numbers: Mapping[str, float | str] | None = None, /) -> None:
        """Take note that `done` of `total` units of `what` are done (0: it begins); `numbers` are worth showing, in order."""
