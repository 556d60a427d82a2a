"""Streams: sources of labelled examples."""

from metaopt.tasks.streams.arrays import Digits

__all__ = ["Digits"]
