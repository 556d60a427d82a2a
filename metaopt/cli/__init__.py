"""The `metaopt` command, one module a verb."""
