"""Contracts as clauses: small checks with a name and one sentence, collected in a registry and run on somebody's own part."""

import warnings
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from metaopt.errors import ConfigError

__all__ = ["BrokenClause", "Contract", "ContractError", "require"]

Subject = TypeVar("Subject")


class ContractError(AssertionError):
    """Something breaks a clause; `clause` is its name, `observed` what was seen."""

    def __init__(self, clause: str, sentence: str, observed: str) -> None:
        super().__init__(f"{clause}: {sentence} Observed: {observed}.")
        self.clause, self.observed = clause, observed


class BrokenClause(Exception):
    """Raised by a clause that does not hold, with what was observed."""


def require(holds: bool, observed: str) -> None:
    """Raise `BrokenClause` with what was observed unless the clause holds."""
    if not holds:
        raise BrokenClause(observed)


class Contract(Generic[Subject]):
    """An ordered registry of clauses; the first line of a clause's docstring is the sentence that errors quote."""

    def __init__(self) -> None:
        self._clauses: dict[str, Callable[[Subject], None]] = {}

    def clause(self, check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        """Register a function as a clause under its own name."""
        self._clauses[check.__name__] = check
        return check

    def __add__(self, other: "Contract[Subject]") -> "Contract[Subject]":
        """Return the contract with the clauses of both."""
        both: Contract[Subject] = Contract()
        both._clauses = {**self._clauses, **other._clauses}
        return both

    @property
    def sentences(self) -> dict[str, str]:
        """Name -> sentence of every clause, in the order in which they are checked."""
        return {name: (check.__doc__ or "").splitlines()[0] for name, check in self._clauses.items()}

    def check(self, subject: Subject, skip: Collection[str] = (), only: Collection[str] | None = None) -> tuple[str, ...]:
        """Check the clauses on `subject` and return the names of those that were checked.

        Raises:
            ContractError: the first clause that is broken, or that raised.
            ConfigError: `skip` or `only` names a clause that does not exist.
        """
        for name in (*skip, *(only or ())):
            if name not in self._clauses:
                raise ConfigError(f"clause {name!r} does not exist; there are {', '.join(self._clauses)}")
        names = tuple(name for name in self._clauses if name not in skip and (only is None or name in only))
        for name in names:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._clauses[name](subject)
            except BrokenClause as broken:
                raise ContractError(name, self.sentences[name], str(broken)) from None
            except Exception as error:
                raise ContractError(name, self.sentences[name], f"{type(error).__name__}: {error}") from error
        return names
