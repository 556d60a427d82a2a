"""The card of an artifact: defaults, canonical bytes, and the checks that make a damaged one a single line."""

import copy
import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

from metaopt.errors import UnsafeArtifactError
from metaopt.version import __version__

__all__ = ["SCHEMA_VERSION", "check_card", "new_card", "parse_card", "seal_card"]

SCHEMA_VERSION = 1
Card = dict[str, Any]

_DEFAULTS: Card = {
    "kind": "update_rule",
    "interface": "update_rule/1",
    "features": [],
    "step": {"base_lr": 1.0, "default_schedule": None},
    "limits": {},
    "training": {
        "config_hash": "",
        "distribution": [],
        "task_hashes": [],
        "seeds": [],
        "outer_steps": 0,
        "inner_steps": 0,
        "device_hours": 0.0,
        "support": {},
    },
    "scores": [],
    "licence": "Apache-2.0",
}


def new_card(name: str, rule: str, *, version: int = 1, options: Mapping[str, Any] | None = None, **fields: Any) -> Card:
    """Return a card for `rule`, filled with defaults (never meta-trained, no scores) where `fields` says nothing.

    Args:
        name: of the artifact, `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
        rule: registry name of the learner.
        version: of the rule's formula, >= 1.
        options: what the rule was built with; JSON values.
        fields: any other key of `card.schema.json`. Dicts replace defaults key by key (`training={"outer_steps": 50}`).
    """
    card: Card = {"name": name, "rule": {"name": rule, "version": version, "options": dict(options or {})}, **copy.deepcopy(_DEFAULTS)}
    for key, value in fields.items():
        card[key] = {**card[key], **value} if isinstance(value, Mapping) and isinstance(card.get(key), dict) else value
    return card


def seal_card(card: Mapping[str, Any], weights: bytes) -> Card:
    """Return a copy of `card` that names this schema, this version of metaopt, and the hashes of the weights and of itself."""
    sealed: Card = {
        "metaopt_version": __version__,  # a card that is saved again keeps the version that made it
        **copy.deepcopy(dict(card)),
        "schema_version": SCHEMA_VERSION,
        "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)},
    }
    sealed["card_sha256"] = _digest(sealed)
    return sealed


def check_card(card: object, place: str) -> Card:
    """Return `card` if it is a whole card of a schema that this version reads.

    Raises:
        UnsafeArtifactError: newer schema, field missing or wrong (named), or content that differs from `card_sha256`.
    """
    import jsonschema  # 0.1 s to import, and only artifacts need it

    version = card.get("schema_version") if isinstance(card, dict) else None
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        raise UnsafeArtifactError(f"{place}: card schema {version} is newer than {SCHEMA_VERSION}, the newest known here; upgrade metaopt")
    validator = jsonschema.Draft202012Validator(_schema())
    errors = sorted(validator.iter_errors(card), key=lambda error: (error.json_path, error.message))
    if errors:
        field = errors[0].json_path.removeprefix("$").lstrip(".") or "card"
        raise UnsafeArtifactError(f"{place}: {field}: {_short(errors[0].message)}")
    assert isinstance(card, dict)
    if card["card_sha256"] != _digest(card):
        raise UnsafeArtifactError(f"{place}: card_sha256: damaged or edited, the card differs from its hash; save it again with metaopt")
    return card


def parse_card(text: bytes, place: str) -> Card:
    """Return the checked card in `text` (UTF-8 JSON, no NaN or infinity, no key twice); raises as `check_card` does."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    try:
        card = json.loads(text.decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UnsafeArtifactError(f"{place}: not a JSON card, cut or damaged: {_short(str(error))}") from error
    return check_card(card, place)


def card_bytes(card: Mapping[str, Any]) -> bytes:
    """Return the file content of a card: sorted keys, two spaces, one newline at the end; equal cards give equal bytes."""
    return (json.dumps(card, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()


def _digest(card: Mapping[str, Any]) -> str:
    content = {key: value for key, value in card.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 160 else line[:157] + "..."


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(importlib.resources.files("metaopt.artifacts").joinpath("card.schema.json").read_text("utf-8"))
    return schema
