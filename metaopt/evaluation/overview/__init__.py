"""The overview over reports of several suites; see `write.overview`."""

from metaopt.evaluation.overview.write import Overview, overview

__all__ = ["Overview", "overview"]
