"""One evaluation for all tests that only read it."""

import pytest

from metaopt.baselines import Store
from metaopt.evaluation.policies import evaluate_policy
from tests.evaluation.policies.made_policies import SMALL, constant


@pytest.fixture(scope="session")
def baseline_store(tmp_path_factory):
    return Store((tmp_path_factory.mktemp("baselines"),))


@pytest.fixture(scope="session")
def kept(baseline_store):
    """Of a policy that never turns anything, which is AdamW at its defaults."""
    return evaluate_policy(constant("kept", registers=False), [SMALL], seeds=2, store=baseline_store)
