"""Shards on a worker: bound to templates, refused when stale, rebuilt exactly from a state and the thetas since."""

from collections import Counter

import pytest
import torch

from metaopt import tasks
from metaopt.cluster import StateMissing, WorkItem
from metaopt.config import load_config
from metaopt.estimators import MetaGradient, flatten
from metaopt.outer.blobs import to_blob
from metaopt.outer.shards import CatchUp, ShardSetup, ShardWork, make_learner, shard_sources
from metaopt.tasks.augmentations import Reparametrisation

SMALL = ["outer.shard_particles=2", "outer.estimator.window=4", "tasks.0.horizon=[5, 9]", "tasks.1.horizon=[5, 9]"]
CONFIG = load_config("quickstart", SMALL)


class Held:
    """A handle as pools give it."""

    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


def thetas(count: int) -> list[Held]:
    start = make_learner(CONFIG).init_theta(0)
    return [Held({name: value + 0.01 * k for name, value in start.items()}) for k in range(count)]


def estimate(worker, step: int, theta: Held, after: int | None, catch_up: CatchUp | None = None, shard: int = 0) -> MetaGradient:
    return worker.handle(WorkItem(step, shard, 0, ShardWork(theta, after, catch_up)))


def state(worker, after: int | None, shard: int = 0):
    return worker.handle(WorkItem(99, shard, 0, ShardWork(None, after)))


def same(a: MetaGradient, b: MetaGradient) -> bool:
    return torch.equal(flatten(a.grad), flatten(b.grad)) and (a.loss, a.loss_se) == (b.loss, b.loss_se)


@pytest.fixture
def worker():
    return ShardSetup(CONFIG).build()


@pytest.fixture(scope="module")
def direct():
    """Estimates of outer steps 0, 2, 3, 5 of shard 0 on one undisturbed worker, and its states before each."""
    one, after, results, states = ShardSetup(CONFIG).build(), None, {}, {}
    for step, theta in zip((0, 2, 3, 5), thetas(4), strict=True):
        if after is not None:
            states[step] = state(one, after)
        results[step] = estimate(one, step, theta, after)
        after = step
    return results, states


def test_a_fresh_shard_begins_by_itself_and_continues(worker, direct) -> None:
    results, _ = direct
    t = thetas(2)
    assert same(estimate(worker, 0, t[0], None), results[0])
    assert same(estimate(worker, 2, t[1], 0), results[2])


def test_a_stale_or_absent_shard_is_refused(worker) -> None:
    t = thetas(3)
    with pytest.raises(StateMissing, match="shard 0 is not here as of outer step 4"):
        estimate(worker, 5, t[0], after=4)
    estimate(worker, 0, t[0], None)
    with pytest.raises(StateMissing):
        estimate(worker, 5, t[1], after=3)
    with pytest.raises(StateMissing):  # and what is out of step is dropped, not kept
        estimate(worker, 5, t[1], after=0)
    with pytest.raises(StateMissing):
        state(worker, after=3, shard=1)


def test_catching_up_equals_the_direct_path(worker, direct) -> None:
    results, states = direct
    t = thetas(4)
    replay = tuple(zip((0, 2, 3), t[:3], strict=True))
    assert same(estimate(worker, 5, t[3], 3, CatchUp(None, replay)), results[5])  # from the beginning
    for start, since in ((2, replay[1:]), (3, replay[2:]), (5, ())):  # from each committed state
        other = ShardSetup(CONFIG).build()
        assert same(estimate(other, 5, t[3], 3, CatchUp(states[start], since)), results[5])
        assert to_blob(state(other, 5)) == to_blob(state(worker, 5))


def test_catching_up_replaces_what_a_worker_holds(worker, direct) -> None:
    results, states = direct
    t = thetas(4)
    estimate(worker, 0, t[3], None)  # another history
    assert same(estimate(worker, 3, t[2], 2, CatchUp(states[3], ())), results[3])


def test_asking_for_the_state_changes_nothing(worker, direct) -> None:
    results, _ = direct
    t = thetas(2)
    estimate(worker, 0, t[0], None)
    assert to_blob(state(worker, 0)) == to_blob(state(worker, 0))
    assert same(estimate(worker, 2, t[1], 0), results[2])


def test_a_shard_that_failed_half_way_is_gone(worker, monkeypatch: pytest.MonkeyPatch) -> None:
    t = thetas(2)
    estimate(worker, 0, t[0], None)
    _, evolution = worker._held[0]
    monkeypatch.setattr(evolution, "estimate", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        estimate(worker, 1, t[1], 0)
    with pytest.raises(StateMissing):
        estimate(worker, 1, t[1], 0)


def test_shards_do_not_share_noise_or_tasks(worker) -> None:
    (theta,) = thetas(1)
    grads = [flatten(estimate(worker, 0, theta, None, shard=shard).grad) for shard in range(4)]
    for i, grad in enumerate(grads):
        assert all(abs(float(torch.corrcoef(torch.stack([grad, other]))[0, 1])) < 0.9 for other in grads[:i])
    assert len({source.seed for source in shard_sources(CONFIG)}) == 4


def test_shards_take_meta_train_templates_in_turn() -> None:
    shape = ["tasks.0.shards=12", "tasks.1.shards=3", "augmentations.reparametrisation=[0.2, 5.0]"]
    config = load_config("quickstart", shape)
    sources = shard_sources(config)
    assert [source.family.name for source in sources] == ["quadratic"] * 12 + ["digits_mlp"] * 3
    train = tasks.get("quadratic").templates("meta_train")
    counts = Counter(source.template for source in sources[:12])
    assert set(counts) == set(train)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({source.template for source in sources[12:]}) == 3
    assert {source.template for source in sources[12:]} <= set(tasks.get("digits_mlp").templates("meta_train"))
    assert shard_sources(config) == sources
    other = [source.template for source in shard_sources(load_config("quickstart", [*shape, "seed=1"]))]
    assert other != [source.template for source in sources]
    assert all(source.augmentations == (Reparametrisation(scale=(0.2, 5.0)),) for source in sources)


def test_the_learner_follows_the_config() -> None:
    learner = make_learner(load_config("quickstart", ["learner.output=rms", "learner.start=random"]))
    assert (learner.rule.name, learner.rule.output, learner.rule.start) == ("celo2_base", "rms", "random")
