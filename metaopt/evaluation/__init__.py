"""Does a learner still work on what it never met? Suites, scores, statistics and the report."""

from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.evaluate import evaluate
from metaopt.evaluation.overview import Overview, overview
from metaopt.evaluation.report import Report
from metaopt.evaluation.scores.algoperf import algoperf_score, geometric_mean_speed_up, performance_ratios, reference_fixed_score
from metaopt.evaluation.scores.run_scores import RunScores, failure_rate, final_loss_score, score_runs
from metaopt.evaluation.scores.speedup import constant_rate_envelope, reference_envelope, speed_up, wall_clock_speed_up
from metaopt.evaluation.scores.targets import reference_target, study_time, task_times, time_to_target
from metaopt.evaluation.scores.tunability import Tunability, expected_best, tunability
from metaopt.evaluation.statistics.aggregates import interquartile_mean, median_of_task_means, optimality_gap, overall_mean, worst_decile
from metaopt.evaluation.statistics.degradation import Branch, DegradationCurve, Level, degradation_curve
from metaopt.evaluation.statistics.gap import generalization_gap
from metaopt.evaluation.statistics.improvement import holm, paired_difference, permutation_p_value, probability_of_improvement
from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube, cube_from_rows
from metaopt.evaluation.statistics.profiles import score_profile_band, time_profile_band
from metaopt.evaluation.statistics.resampling import Band, Interval, bootstrap, bootstrap_band, under_covered
from metaopt.evaluation.suites import Suite, load_suite, register_suite, suite_names
from metaopt.evaluation.sweep import Sweep, evaluate_suites

__all__ = [
    "AXES",
    "Band",
    "Branch",
    "Candidate",
    "DegradationCurve",
    "Interval",
    "Level",
    "Overview",
    "Report",
    "RunScores",
    "ScoreCube",
    "Suite",
    "Sweep",
    "Tunability",
    "algoperf_score",
    "bootstrap",
    "bootstrap_band",
    "constant_rate_envelope",
    "cube_from_rows",
    "degradation_curve",
    "evaluate",
    "evaluate_suites",
    "expected_best",
    "failure_rate",
    "final_loss_score",
    "generalization_gap",
    "geometric_mean_speed_up",
    "holm",
    "interquartile_mean",
    "load_suite",
    "median_of_task_means",
    "optimality_gap",
    "overall_mean",
    "overview",
    "paired_difference",
    "performance_ratios",
    "permutation_p_value",
    "probability_of_improvement",
    "reference_envelope",
    "reference_fixed_score",
    "reference_target",
    "register_suite",
    "score_profile_band",
    "score_runs",
    "speed_up",
    "study_time",
    "suite_names",
    "task_times",
    "time_profile_band",
    "time_to_target",
    "tunability",
    "under_covered",
    "wall_clock_speed_up",
    "worst_decile",
]
