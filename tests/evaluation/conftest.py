"""A suite small enough to evaluate in a second, and a store that starts empty."""

import pytest

from metaopt import tasks
from metaopt.baselines import Store


def suite_text(entries):
    lines = ["description: small", "tasks:"]
    for name, family, template, seed, horizon in entries:
        spec = tasks.get(family).sample(template, seed, (horizon, horizon))
        lines.append(f'  - {{name: {name}, family: {family}, template: {template}, seed: {seed}, horizon: {horizon}, hash: "{spec.hash}"}}')
    return "\n".join(lines) + "\n"


ENTRIES = [("moving", "quadratic", "6x6-minimum", 2, 40), ("clean", "quadratic", "15x3-none", 3, 30)]


@pytest.fixture(scope="session")
def small_suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    path.write_text(suite_text(ENTRIES))
    return str(path)


@pytest.fixture(scope="session")
def reversed_suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("reversed") / "small.yaml"
    path.write_text(suite_text(ENTRIES[::-1]))
    return str(path)


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch, tmp_path_factory):
    """Each test computes the runs of its learners itself."""
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def warm_store(tmp_path_factory):
    return Store((tmp_path_factory.mktemp("store"),))


@pytest.fixture(autouse=True, scope="session")
def short_blocks():
    """Steps are timed for real, but only for a moment: what a report does with the numbers is tested, not the numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaopt.evaluation.runs.step_time.MIN_BLOCK_S", 0.0)
        yield
