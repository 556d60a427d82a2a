"""Configs of meta-training: the schema, the loader, and the files that ship with metaopt."""

from metaopt.config.loader import AnyConfig, bundled_configs, load_config, parse_config
from metaopt.config.policy import PolicyConfig
from metaopt.config.schema import Config

__all__ = ["AnyConfig", "Config", "PolicyConfig", "bundled_configs", "load_config", "parse_config"]
