"""Contract checks that anyone can run on their own parts."""

from metaopt.testing.contract import ContractError
from metaopt.testing.optimizer_contract import OPTIMIZER_CLAUSES, check_optimizer_contract

__all__ = ["OPTIMIZER_CLAUSES", "ContractError", "check_optimizer_contract"]
