"""The rules of the table, planned once."""

import pytest

from metaopt.tasks.oracles.horizon_bias import rules


@pytest.fixture(scope="package")
def found():
    return rules()
