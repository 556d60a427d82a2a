"""Errors that a caller can act on, as one tree under `MetaoptError`."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CorruptCheckpointError",
    "DivergedError",
    "IncompatibleCheckpointError",
    "MetaoptError",
    "TaskError",
    "UnsafeArtifactError",
    "WorkerLostError",
]


class MetaoptError(Exception):
    """Base of every error that metaopt raises on purpose; its text is one line that says what to do."""


class ConfigError(MetaoptError):
    """Bad input: a config key, an argument, a name, a path or a device. Nothing has been written."""


class TaskError(MetaoptError):
    """A task, family or split breaks its contract."""


class CheckpointError(MetaoptError):
    """A run directory or one of its checkpoints cannot be used."""


class CorruptCheckpointError(CheckpointError):
    """Files are missing, cut, or differ from the hashes in their manifest."""


class IncompatibleCheckpointError(CheckpointError):
    """The checkpoint is whole but comes from another config, schema or version."""


class WorkerLostError(MetaoptError):
    """A worker died more often than its budget allows."""


class DivergedError(MetaoptError):
    """Too many outer steps in a row had no usable meta-gradient."""


class UnsafeArtifactError(MetaoptError):
    """An artifact is damaged, from a newer schema, or holds what must never be loaded."""
