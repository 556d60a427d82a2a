"""Streams: sources of batches."""

from metaopt.tasks.streams.arrays import Examples

__all__ = ["Examples"]
