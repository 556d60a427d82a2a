"""Configs of meta-training: the schema, the loader, and the files that ship with metaopt."""

from metaopt.config.loader import bundled_configs, load_config, parse_config
from metaopt.config.schema import Config

__all__ = ["Config", "bundled_configs", "load_config", "parse_config"]
