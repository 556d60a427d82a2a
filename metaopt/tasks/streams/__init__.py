"""Streams: sources of batches."""

from metaopt.tasks.streams.arrays import Examples
from metaopt.tasks.streams.pixels import Pixels
from metaopt.tasks.streams.problems import Logistic, Quadratic
from metaopt.tasks.streams.text import Text

__all__ = ["Examples", "Logistic", "Pixels", "Quadratic", "Text"]
