"""One registry for everything that users may add: task families, rules, estimators, baselines."""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["Registry"]

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order in which they were added; those of installed plug-ins come last.

    Args:
        what: what an entry is called in messages, e.g. "task family".
        group: entry-point group of plug-ins; the name of an entry point is the entry's.
        entries: what is there from the start.
        check: raises if an entry that is being added is not fit to be used.
    """

    def __init__(self, what: str, group: str, entries: Mapping[str, Entry], check: Callable[[Entry], None] | None = None) -> None:
        self.what, self.group, self.check = what, group, check
        self._entries = dict(entries)
        self._loaded = False

    def register(self, name: str, entry: Entry) -> None:
        """Add an entry; adding the same one again does nothing.

        Raises:
            ConfigError: the name is taken by another entry, or `check` refuses it (with its own error).
        """
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"{self.what} {name!r} is registered already; choose another name")
        if self.check is not None:
            self.check(entry)  # first: a refused entry must not stay behind
        self._entries[name] = entry

    def _all(self) -> dict[str, Entry]:
        if not self._loaded:
            self._loaded = True  # first: a plug-in may look into the registry while it loads
            for point in entry_points(group=self.group):
                if point.name in self._entries:
                    continue
                try:
                    self.register(point.name, point.load())
                except Exception as error:
                    raise ConfigError(
                        f"{self.what} {point.name!r}: its plug-in {point.value} does not load ({type(error).__name__}: {error});"
                        " mend or uninstall it"
                    ) from error
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            ConfigError: no such entry; the message has the nearest name.
        """
        entries = self._all()
        if name not in entries:
            raise ConfigError(f"{self.what} {name!r} is unknown{nearest(name, entries)}")
        return entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
