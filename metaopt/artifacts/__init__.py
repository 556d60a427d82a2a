"""Artifacts: what meta-training produces and everything else starts from; data only, never code."""

from metaopt.artifacts.artifact import Artifact, list_artifacts, load
from metaopt.artifacts.card import SCHEMA_VERSION, new_card
from metaopt.artifacts.convert_jax import convert_jax

__all__ = ["SCHEMA_VERSION", "Artifact", "convert_jax", "list_artifacts", "load", "new_card"]
