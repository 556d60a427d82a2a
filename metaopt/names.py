"""One way to say that a name is unknown."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known name if one is close, then all of them.

    Example: `"; did you mean 'adam'? known: adam, adamw"`.
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} known: {', '.join(names) or 'none'}"
