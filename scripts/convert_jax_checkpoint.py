"""Turn a JAX checkpoint of a learned optimizer into an artifact.

python scripts/convert_jax_checkpoint.py CHECKPOINT OUT [--rule velo] [--name NAME] [OPTION=VALUE ...]
"""

import argparse
import json
import sys
from typing import Any

from metaopt.artifacts import convert_jax
from metaopt.errors import MetaoptError


def main(arguments: list[str] | None = None) -> int:
    """Convert one checkpoint; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="file that flax.serialization wrote")
    parser.add_argument("out", help="folder of the artifact")
    parser.add_argument("--rule", help="kind of the checkpoint; default: found from its tensors")
    parser.add_argument("--name", help="of the artifact; default: the folder's")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="options of the rule that the file does not hold")
    given = parser.parse_intermixed_args(arguments)
    try:
        options = {key: _value(text) for key, _, text in (option.partition("=") for option in given.options)}
        print(convert_jax(given.checkpoint, given.out, given.rule, given.name, **options))
    except MetaoptError as error:
        print(f"convert_jax_checkpoint: {error}", file=sys.stderr)
        return 2
    return 0


def _value(text: str) -> Any:
    """Return a number, true, false, null or a list as JSON has them, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
