"""Is a hyperparameter policy any good? Closed loops on tasks that it has not met, beside what it must be better than.

`evaluate_policy` plays a policy as it is deployed: from AdamW's default start, with its most likely choices, behind the guard rails of
`PolicyScheduler`. It does so on new tasks of the families of its training, on families that it never met, on tables of some hundred rows,
and on runs ten and a hundred times as long; each with five inner seeds, which are those of every baseline.

It is compared with

- AdamW's grid of five rates and seven schedules: the run of median reward, the best one, and the best one of each task;
- a cosine at the best of five rates, and at the best of seven: short runs often want a rate above the grid's largest, 1e-2;
- its own network before training, and a policy that chooses at random;
- its own mean behaviour replayed blindly: the mean of its relative changes, and its mean rate, by the share of decisions made. A policy
  that is no better than these is a schedule.

Rewards are logarithms of the budget at which AdamW at its default rate gets as far (`metaopt.baselines.power_curve`), from -3 to log 2, and
the same against the best of five constant rates. Both have a ceiling that good runs reach on easy tasks, so the tables also say how often
the policy ends lower, paired by task and seed.

Steps to equal loss are read off runs of other budgets without any fit: at 1e-3 along one curve, for the cosine with a schedule for each
budget. A loss out of their range counts with the last budget, and as censored.

`explain_policy` says what the policy does: how it turns each knob, and what its choice of the rate depends on.

The package imports `metaopt_envs`, and so gymnasium; nothing else in `metaopt.evaluation` imports it.
"""

from metaopt.evaluation.policies.cost import Cost, expected_cost
from metaopt.evaluation.policies.evaluate import default_sets, evaluate_policy
from metaopt.evaluation.policies.explain import Explanation, explain_policy
from metaopt.evaluation.policies.jobs import PolicyEvaluationSetup
from metaopt.evaluation.policies.report import report_text, write_report
from metaopt.evaluation.policies.results import PolicyEvaluation
from metaopt.evaluation.policies.task_sets import (
    DECISIONS,
    SETS,
    TaskSet,
    held_out_draws,
    held_out_families,
    long_horizons,
    named_set,
    tiny_tables,
    trained_families,
)

__all__ = [
    "DECISIONS",
    "SETS",
    "Cost",
    "Explanation",
    "PolicyEvaluation",
    "PolicyEvaluationSetup",
    "TaskSet",
    "default_sets",
    "evaluate_policy",
    "expected_cost",
    "explain_policy",
    "held_out_draws",
    "held_out_families",
    "long_horizons",
    "named_set",
    "report_text",
    "tiny_tables",
    "trained_families",
    "write_report",
]
