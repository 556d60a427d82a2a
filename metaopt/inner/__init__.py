"""The only runner of inner training: vectorised over particles, compiled where it pays."""

from metaopt.inner.run import Trace, run

__all__ = ["Trace", "run"]
