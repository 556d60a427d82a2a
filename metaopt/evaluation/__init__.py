"""Does a learner still work on what it never met? Suites, scores, statistics and the report."""

from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.evaluate import evaluate
from metaopt.evaluation.report import Report
from metaopt.evaluation.suites import Suite, load_suite, suite_names

__all__ = ["Candidate", "Report", "Suite", "evaluate", "load_suite", "suite_names"]
