"""Contract checks that anyone can run on their own parts."""

from metaopt.testing.contract import ContractError
from metaopt.testing.estimator_contract import ESTIMATOR_CLAUSES, check_estimator
from metaopt.testing.family_contract import FAMILY_CLAUSES, check_family
from metaopt.testing.model_rule_contract import MODEL_RULE_CLAUSES, check_model_rule
from metaopt.testing.optimizer_contract import OPTIMIZER_CLAUSES, check_optimizer_contract
from metaopt.testing.task_contract import TASK_CLAUSES, check_task
from metaopt.testing.update_rule_contract import UPDATE_RULE_CLAUSES, check_update_rule

__all__ = [
    "ESTIMATOR_CLAUSES",
    "FAMILY_CLAUSES",
    "MODEL_RULE_CLAUSES",
    "OPTIMIZER_CLAUSES",
    "TASK_CLAUSES",
    "UPDATE_RULE_CLAUSES",
    "ContractError",
    "check_estimator",
    "check_family",
    "check_model_rule",
    "check_optimizer_contract",
    "check_task",
    "check_update_rule",
]
