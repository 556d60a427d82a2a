"""The directory of one run: who may write to it, and where everything in it is."""

import fcntl
import os
import re
import socket
from pathlib import Path
from typing import Self

from metaopt.errors import ConfigError

__all__ = ["RunDirectory", "check_name", "member"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOCK = "lock"
_CONFIG = "config.yaml"


def check_name(name: str, field: str) -> str:
    """Return `name` if it is safe as one part of a path.

    Raises:
        ConfigError: it is not, naming `field`.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"{field} must be 1 to 100 of A-Z a-z 0-9 . _ - without '..', starting with a letter or digit, got {name!r}")
    return name


def member(root: Path, name: str, field: str) -> Path:
    """Return `root / name`, which stays below `root`.

    Raises:
        ConfigError: the name is not safe, or leads out of `root` by a link.
    """
    path = root / check_name(name, field)
    if path.is_symlink():
        raise ConfigError(f"{field}: {path} is a link; give a plain name")
    return path


class RunDirectory:
    """A run directory that this process holds alone, from construction to `close`; the lock dies with the process.

    Args:
        path: created when missing; an existing one must be empty, or a run's when `resume` is set.
        resume: continue what is there; an empty or missing directory starts a run.

    Raises:
        ConfigError: the path is no directory, not empty without `resume`, not a run's, or in use by another driver. Nothing is written.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run directory {self.path} is a file; give another path")
        self._lock: int | None = _lock(self.path / _LOCK) if (self.path / _LOCK).exists() else None
        try:
            self._check(resume)
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                if self.config.exists():  # the driver before may have died between the two
                    self.checkpoints.mkdir(exist_ok=True)
            except OSError as error:
                raise ConfigError(f"run directory {self.path} cannot be made: {error.strerror}") from error
            if self._lock is None:
                self._lock = _lock(self.path / _LOCK)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def _check(self, resume: bool) -> None:
        content = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        content -= {_LOCK, f".{_CONFIG}"}  # a driver that died before its configuration was in place left nothing else
        if content and not resume:
            raise ConfigError(f"run directory {self.path} is not empty; continue it with --resume or give another path")
        if content and _CONFIG not in content:
            raise ConfigError(f"{self.path} is no run directory (no {_CONFIG}); give another path")

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / _CONFIG

    @property
    def metrics(self) -> Path:
        """Rows that are the same for every worker count and after every resume."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """Rows that depend on the clock."""
        return self.path / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of commits."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """The folder of PNG files."""
        return self.path / "plots"

    @property
    def artifact(self) -> Path:
        """What the run produces."""
        return self.path / "artifact"

    def write_config(self, text: str) -> None:
        """Put the resolved configuration in place, whole or not at all, which makes this a run's. Call it after every check has passed."""
        scratch = self.path / f".{_CONFIG}"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(self.config)
        self.checkpoints.mkdir(exist_ok=True)

    def close(self) -> None:
        """Give the lock back. The file stays: removing it would let two drivers lock two files of one name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _lock(path: Path) -> int:
    """Return an open descriptor that holds the lock at `path`; children that are executed do not inherit it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace").split()
        os.close(descriptor)
        who = f"process {owner[0]} on {owner[1]}" if len(owner) == 2 else "another process"
        raise ConfigError(f"run directory {path.parent} is in use by {who}; wait for it or give another path") from error
    return descriptor
