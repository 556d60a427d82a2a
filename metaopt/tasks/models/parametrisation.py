"""The two ways to size weights, outputs and steps with width."""

from metaopt.errors import TaskError
from metaopt.names import nearest

__all__ = ["PARAMETRISATIONS", "check_parametrisation"]

PARAMETRISATIONS = ("standard", "mu")
_MU_INITIALISERS = ("normal", "uniform")


def check_parametrisation(parametrisation: str, initialiser: str) -> None:
    """Raise unless the parametrisation is known and the initialiser fits it.

    Raises:
        TaskError: an unknown one, or "mu" with an initialiser whose variance is not 1 / fan_in.
    """
    if parametrisation not in PARAMETRISATIONS:
        raise TaskError(f"model parametrisation {parametrisation!r} is unknown{nearest(parametrisation, PARAMETRISATIONS)}")
    if parametrisation == "mu" and initialiser not in _MU_INITIALISERS:
        allowed = ", ".join(_MU_INITIALISERS)
        raise TaskError(f"parametrisation 'mu' needs an initialiser of variance 1 / fan_in ({allowed}), got {initialiser!r}")
