"""What training code expects of a `torch.optim.Optimizer`, as clauses that run on any optimizer."""

from collections.abc import Collection

from metaopt.testing.optimizer_probe import Make
from metaopt.testing.optimizer_state_clauses import STATE
from metaopt.testing.optimizer_step_clauses import STEP

__all__ = ["OPTIMIZER_CLAUSES", "check_optimizer_contract"]

_CONTRACT = STEP + STATE
OPTIMIZER_CLAUSES = _CONTRACT.sentences


def check_optimizer_contract(make: Make, *, skip: Collection[str] = (), only: Collection[str] | None = None) -> tuple[str, ...]:
    """Check every clause of the drop-in contract on an optimizer and return the names of those that were checked.

    An optimizer whose rule sees all tensors keeps all but `add_param_group` and `non_finite_gradients`: what joins meets the run of the
    others, and one gradient reaches all steps. One that needs the loss is checked through a subclass that gives `step` some number.
    `torch.optim.AdamW` keeps all but `loss_keyword`, `state_dtypes` and `small_steps`; `OPTIMIZER_CLAUSES` lists all with their sentences.

    Args:
        make: returns a fresh optimizer on what it is given: parameters, dict groups, or (name, parameter) pairs. Called many times.
        skip: clauses that do not apply.
        only: check just these.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    return _CONTRACT.check(make, skip, only)
