"""Keep and find what meta-training produced: a folder with `weights.safetensors` and `card.json`, and nothing that runs code."""

import difflib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from metaopt.artifacts.card import card_bytes, check_card, parse_card, seal_card
from metaopt.errors import UnsafeArtifactError

__all__ = ["Artifact", "list_artifacts", "load"]

CARD, WEIGHTS = "card.json", "weights.safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALLOWED = {CARD: 1 << 20, WEIGHTS: 4 << 30, "README.md": 1 << 20, "LICENSE": 1 << 20}  # member -> largest size in bytes
_ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class Artifact:
    """A meta-trained learner at rest: what it is (`card`, see `card.schema.json`) and what it learned (`weights`)."""

    card: dict[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """The card's name."""
        return str(self.card["name"])

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the sha256 of the weights as they are saved."""
        return hashlib.sha256(_weights_bytes(self.weights)).hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the artifact to folder `path` and return it; equal artifacts give equal bytes.

        The folder appears whole or not at all: it is written beside its place, flushed, then renamed. An artifact that is already
        there is replaced; anything else there is left alone and refused.

        Raises:
            UnsafeArtifactError: the card is not valid, or `path` holds something that is no artifact.
        """
        target = Path(path)
        weights = _weights_bytes(self.weights)
        card = check_card(seal_card(self.card, weights), f"card of {str(target)!r}")
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or not set(os.listdir(target)) <= set(_ALLOWED)):
            raise UnsafeArtifactError(f"{target}: exists and is no artifact; give another path or remove it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".artifact-", dir=target.parent) as scratch:
            fresh, old = Path(scratch) / "new", Path(scratch) / "old"
            fresh.mkdir()
            _write(fresh / WEIGHTS, weights)
            _write(fresh / CARD, card_bytes(card))
            _flush_folder(fresh)
            if target.exists():
                target.rename(old)
            try:
                fresh.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
            _flush_folder(target.parent)
        return target


def load(name_or_path: str | os.PathLike[str]) -> Artifact:
    """Return the artifact at an existing path, else the bundled one of that name, else the one in the user's cache.

    Reads two files and runs nothing: each file is read once, its hash is checked, and only then is it parsed. No network is touched.
    The cache is `$METAOPT_CACHE/artifacts`, by default `~/.cache/metaopt/artifacts`.

    Raises:
        UnsafeArtifactError: unknown name (with the nearest ones), or an artifact that is cut, changed, from a newer schema, not
            valid, or holds links or files that do not belong to it.
    """
    folder = _find(name_or_path)
    members = _members(folder)
    for member in (CARD, WEIGHTS):
        if member not in members:
            raise UnsafeArtifactError(f"{folder}: {member} is missing; an artifact is a folder with {CARD} and {WEIGHTS}")
    card = parse_card(_read(folder / CARD), str(folder / CARD))
    content = _read(folder / WEIGHTS)
    expected = card["weights"]
    if len(content) != expected["bytes"]:
        sizes = f"has {len(content)} bytes where the card says {expected['bytes']}"
        raise UnsafeArtifactError(f"{folder / WEIGHTS}: {sizes}; the file is cut or not its own")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise UnsafeArtifactError(f"{folder / WEIGHTS}: differs from the card's sha256; the file is damaged, get a fresh copy")
    try:
        return Artifact(card, safetensors.torch.load(content))
    except (SafetensorError, KeyError, ValueError) as error:
        raise UnsafeArtifactError(f"{folder / WEIGHTS}: not a safetensors file: {error}") from error


def list_artifacts() -> list[dict[str, str]]:
    """Return a row (`name`, `kind`, `path`) for every bundled and cached artifact whose card is valid, sorted by name; bundled ones win."""
    rows: dict[str, dict[str, str]] = {}
    for folder in _known():
        try:
            card = parse_card(_read(folder / CARD), str(folder / CARD))
        except (UnsafeArtifactError, OSError):
            continue  # `load` says what is wrong with it
        rows.setdefault(folder.name, {"name": folder.name, "kind": card["kind"], "path": str(folder)})
    return [rows[name] for name in sorted(rows)]


def _weights_bytes(weights: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({key: value.detach().cpu().contiguous().clone() for key, value in weights.items()})


def _roots() -> tuple[Path, Path]:
    cache = os.environ.get("METAOPT_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "metaopt")
    return _ZOO, Path(cache) / "artifacts"


def _known() -> Iterator[Path]:
    for root in _roots():
        if root.is_dir():
            yield from sorted(path for path in root.iterdir() if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink())


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    text = os.fspath(name_or_path)
    if not text or "\0" in text or len(text) > 4096:
        raise UnsafeArtifactError(f"artifact {text[:40]!r}: give a folder, or a name of letters, digits, '.', '_' and '-'")
    if os.path.lexists(text):
        return Path(text)
    if isinstance(name_or_path, str) and NAME.fullmatch(text):
        for root in _roots():
            if os.path.lexists(root / text):
                return root / text
    names = [row["name"] for row in list_artifacts()]
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5) or names
    hint = f"did you mean {', '.join(near)}?" if near else "there are no bundled or cached ones"
    raise UnsafeArtifactError(f"artifact {text[:100]!r}: no such path or name; {hint}")


def _members(folder: Path) -> set[str]:
    """Return the file names in `folder` after refusing links, foreign files and files of absurd size."""
    if folder.is_symlink():
        raise UnsafeArtifactError(f"{folder}: is a symbolic link; give the folder itself")
    if not folder.is_dir():
        raise UnsafeArtifactError(f"{folder}: is no folder; an artifact is a folder with {CARD} and {WEIGHTS}")
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise UnsafeArtifactError(f"{folder}: {entry.name!r} is a symbolic link; an artifact holds its own files")
            if entry.name not in _ALLOWED or not entry.is_file(follow_symlinks=False):
                raise UnsafeArtifactError(f"{folder}: {entry.name!r} does not belong in an artifact; only {', '.join(_ALLOWED)} do")
            if entry.stat(follow_symlinks=False).st_size > _ALLOWED[entry.name]:
                raise UnsafeArtifactError(f"{folder}: {entry.name} is larger than {_ALLOWED[entry.name]} bytes")
            names.add(entry.name)
    return names


def _read(path: Path) -> bytes:
    """Return the content of a regular file, through no link, and never more than its cap (whatever changed since it was listed)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnsafeArtifactError(f"{path}: is no regular file")
            content = file.read(_ALLOWED[path.name] + 1)
    except OSError as error:
        raise UnsafeArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _ALLOWED[path.name]:
        raise UnsafeArtifactError(f"{path}: is larger than {_ALLOWED[path.name]} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
