"""What every kind of config has: a name, a seed, a hash of its content, and YAML that says where each value came from."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from metaopt.config.sections import Name, Section

__all__ = ["RootConfig"]


class RootConfig(Section):
    """A whole run, resolved and checked; `hash` names its content."""

    name: Name
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def hash(self) -> str:
        """Thirty-two hex digits of the resolved content; origins and formatting do not count."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_yaml(self) -> str:
        """Return the resolved config as YAML that loads back to the same `hash`, each value with its origin as a comment."""
        return "".join(f"{line}\n" for line in _dump(self.model_dump(mode="json"), (), self._origins))


def _dump(value: Any, path: tuple[str | int, ...], origins: dict[str, str]) -> list[str]:
    """Return the lines of a mapping or of a list of mappings, two spaces a level."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        head = f"{key}:" if isinstance(value, dict) else "-"
        nested = isinstance(child, dict) or (isinstance(child, list) and any(isinstance(part, dict) for part in child))
        if not nested:  # JSON spells scalars and lists of scalars as YAML's flow style does
            origin = origins.get(".".join(map(str, (*path, key))), "default")
            lines.append(f"{head} {json.dumps(child)}  # {origin}")
            continue
        body = _dump(child, (*path, key), origins)
        if isinstance(value, dict):
            lines += [head, *(f"  {line}" for line in body)]
        else:
            lines += [f"- {body[0]}", *(f"  {line}" for line in body[1:])]
    return lines
