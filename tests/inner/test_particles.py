"""Pairs of particles: windows of any size are the same run, restarts follow a schedule that brute force repeats."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from metaopt import learners, seeds, tasks
from metaopt.inner.particles import Pairs
from metaopt.learners.learner import StepRecord
from metaopt.tasks.augmentations import Augmentation, DelayedGradients, GradientNoise, Reparametrisation
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Task
from tests.oracles.influence_balancing import Nothing


@dataclass(frozen=True)
class Counting:
    """A learner whose loss tells which run it is in and how many steps it has made: key % 1000 + t / 1000."""

    def init_theta(self, seed):
        return {"bad": torch.tensor(0.0, dtype=torch.float64)}

    def init(self, theta, task, key):
        return {"run": key, "t": torch.zeros((), dtype=torch.int64)}

    def advance(self, theta, task, carry, batch):
        loss = (carry["run"] % 1000).double() + carry["t"].double() / 1000
        return {"run": carry["run"], "t": carry["t"] + 1}, StepRecord(torch.where(theta["bad"] > 0, theta["bad"], loss))


@dataclass(frozen=True)
class Scripted:
    """Episodes with horizons from a list of lists, [particle][episode], repeated at the end."""

    horizons: tuple[tuple[int, ...], ...]
    skip: tuple[float, ...] = ()

    def task(self, particle, episode):
        row = self.horizons[particle]
        return Task(Nothing(), {"horizon": torch.tensor(float(row[episode % len(row)]), dtype=torch.float64)}, {})

    def run_seed(self, particle, episode):
        return 1 + 100 * particle + episode

    def stagger(self, particle):
        return self.skip[particle] if self.skip else 0.0


def told(particle: int, episode: int, t: int) -> float:
    """The loss of step t of an episode, by `Counting`."""
    key = seeds.fold_in(torch.tensor(1 + 100 * particle + episode), 0)
    return float(key % 1000) + t / 1000


def flat_theta(pairs: int):
    return {"bad": torch.zeros(2 * pairs, dtype=torch.float64)}


horizons = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)


@settings(max_examples=25, deadline=None)
@given(horizons, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_restarts_follow_brute_force(script, windows, data) -> None:
    skip = tuple(data.draw(st.sampled_from([0.0, 0.3, 0.5, 0.99])) for _ in script)
    count = len(script)
    pairs = Pairs(Counting(), Scripted(script, skip), count)
    # Brute force: (episode, step) of each particle at each global step; the first episode is cut short by the stagger.
    expected = []
    for p, row in enumerate(script):
        line, episode = [], 0
        while len(line) < sum(windows):
            horizon = row[episode % len(row)]
            length = horizon - int(skip[p] * horizon) if episode == 0 else horizon
            line += [(episode, t) for t in range(length)]
            episode += 1
        expected.append(line)
    start = 0
    for window in windows:
        seen = pairs.advance(flat_theta(count), window)
        for p in range(count):
            now = expected[p][start : start + window]
            want = [told(p, episode, t) for episode, t in now]
            assert seen.loss[:, p].tolist() == want
            assert seen.loss[:, p + count].tolist() == want  # both members restart together
            assert seen.first[:, p].tolist() == [episode == now[0][0] for episode, _ in now]
            assert (pairs.episode[p], pairs.clock[p] - 1) == now[-1]
        assert seen.valid.all()
        assert not seen.diverged
        start += window


def test_runs_that_must_not_restart_end_and_are_marked() -> None:
    pairs = Pairs(Counting(), Scripted(((2,), (5,))), 2)
    seen = pairs.advance(flat_theta(2), 4, restart=True, endless=False, stagger=False)
    assert seen.valid.T.tolist() == [[True, True, False, False], [True] * 4]
    assert seen.first.all()
    pairs.advance(flat_theta(2), 1, restart=True, endless=False, stagger=False)
    assert pairs.episode == [1, 1]
    assert pairs.clock == [1, 1]


def source(**options: object) -> TaskSource:
    return TaskSource(tasks.get("quadratic"), "16x2-gradient", (6, 30), seed=1, **options)


def theta_rows(learner, pairs: int):
    theta = learner.init_theta(0)
    offsets = torch.linspace(-0.1, 0.1, 2 * pairs)
    return {k: v + offsets.reshape(-1, *[1] * v.dim()) for k, v in theta.items()}


def advance_all(windows: tuple[int, ...], options: dict[str, object] | None = None):
    learner = learners.get("celo2_base", schedule="warmup_cosine")
    pairs = Pairs(learner, source(**(options or {})), 3)
    return pairs, torch.cat([pairs.advance(theta_rows(learner, 3), window).loss for window in windows])


@pytest.mark.parametrize("windows", [(35, 35), (7,) * 10, (1,) * 3 + (67,)])
def test_the_size_of_windows_changes_no_bit(windows: tuple[int, ...]) -> None:
    whole, loss = advance_all((70,))  # more than twice the number of batches drawn at once
    split, parts = advance_all(windows)
    assert torch.equal(parts, loss)
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(whole.carry), tree_leaves(split.carry), strict=True))
    assert (whole.episode, whole.clock, whole.length) == (split.episode, split.clock, split.length)


@pytest.mark.parametrize("augmentations", [(Reparametrisation(scale=(0.1, 10.0)),), (GradientNoise(), DelayedGradients())])
def test_windows_of_an_augmented_source_too(augmentations: tuple[Augmentation, ...]) -> None:
    """Draws belong to inner steps, and delayed gradients are carried from window to window, and restart with their run."""
    changes = {"augmentations": augmentations}
    assert torch.equal(advance_all((20,), changes)[1], advance_all((10, 10), changes)[1])


def test_members_of_a_pair_share_everything_but_theta() -> None:
    learner = learners.get("adam")
    pairs = Pairs(learner, source(), 4)
    same = pairs.advance({"lr": torch.full((8,), 0.05)}, 50).loss
    torch.testing.assert_close(same[:, :4], same[:, 4:], rtol=1e-6, atol=1e-7)
    assert len(set(same[0, :4].tolist())) == 4  # different pairs, different runs
    apart = Pairs(learner, source(), 4).advance({"lr": torch.linspace(0.01, 0.08, 8)}, 3).loss
    torch.testing.assert_close(apart[0, :4], apart[0, 4:], rtol=1e-6, atol=1e-7)  # the same loss before the first update
    assert not torch.allclose(apart[2, :4], apart[2, 4:])


def test_a_pair_is_the_same_run_in_any_company() -> None:
    learner = learners.get("adam", lr=0.05)
    few, many = (Pairs(learner, source(), count).advance({"lr": torch.full((2 * count,), 0.05)}, 30).loss for count in (2, 5))
    torch.testing.assert_close(many[:, :2], few[:, :2], rtol=1e-5, atol=1e-6)


def test_stagger_shortens_the_first_episode_only() -> None:
    pairs = Pairs(Counting(), Scripted(((10,), (10,), (10,)), (0.0, 0.5, 0.95)), 3)
    pairs.advance(flat_theta(3), 1)
    assert pairs.length == [10, 5, 1]
    pairs.advance(flat_theta(3), 10)
    assert pairs.length == [10, 10, 10]


def test_stagger_spreads_resets_of_a_source() -> None:
    skips = [source().stagger(p) for p in range(200)]
    assert 0 <= min(skips) < 0.05 < 0.95 < max(skips) < 1


def test_state_round_trip_continues_bit_for_bit() -> None:
    learner = learners.get("celo2_base")
    theta = theta_rows(learner, 3)
    whole, first = Pairs(learner, source(), 3), Pairs(learner, source(), 3)
    expected = torch.cat([whole.advance(theta, 13).loss for _ in range(3)])
    parts = [first.advance(theta, 13).loss]
    second = Pairs(learner, source(), 3)
    state = first.state()
    second.load(state)
    first.advance(theta, 5)  # what was handed out does not change when its giver goes on
    parts += [second.advance(theta, 13).loss for _ in range(2)]
    assert torch.equal(torch.cat(parts), expected)
    fresh = Pairs(learner, source(), 3)
    fresh.load(Pairs(learner, source(), 3).state())  # a state before the first window
    assert torch.equal(fresh.advance(theta, 13).loss, expected[:13])


def test_copy_positive_makes_members_equal() -> None:
    learner = learners.get("adam")
    pairs = Pairs(learner, source(), 3)
    pairs.advance({"lr": torch.linspace(0.01, 0.06, 6)}, 4)
    positive = [leaf[:3].clone() for leaf in tree_leaves(pairs.carry)]
    pairs.copy_positive()
    for leaf, old in zip(tree_leaves(pairs.carry), positive, strict=True):
        assert torch.equal(leaf[:3], old)
        assert torch.equal(leaf[3:], old)


@pytest.mark.parametrize(("bad", "nonfinite"), [(float("inf"), 1), (float("nan"), 1), (1e12, 0), (1e13, 0)])
@pytest.mark.parametrize("row", [1, 4])
def test_divergence_restarts_both_members_at_the_next_window(bad: float, nonfinite: int, row: int) -> None:
    pairs = Pairs(Counting(), Scripted(((50,), (50,), (50,))), 3)
    theta = flat_theta(3)
    bad_values = torch.zeros(6, dtype=torch.float64)
    bad_values[row] = bad if bad == bad else 1.0
    learner_theta = {"bad": bad_values}
    if bad != bad:
        pairs.learner = Nan()
    seen = pairs.advance(learner_theta, 5)
    assert (seen.diverged, seen.nonfinite) == ((1,), nonfinite)
    assert float(seen.loss.max()) == Nothing().cap
    assert pairs.episode == [0, 0, 0]
    pairs.learner = Counting()
    seen = pairs.advance(theta, 2)
    assert pairs.episode == [0, 1, 0]
    assert seen.loss[:, 1].tolist() == seen.loss[:, 4].tolist() == [told(1, 1, 0), told(1, 1, 1)]
    assert seen.loss[0, 0] == told(0, 0, 5)
    assert not seen.diverged


@dataclass(frozen=True)
class Nan(Counting):
    """Not a number where `bad` is set."""

    def advance(self, theta, task, carry, batch):
        carry, record = super().advance({"bad": torch.zeros(())}, task, carry, batch)
        return carry, StepRecord(torch.where(theta["bad"] > 0, torch.nan, record.loss))


def test_a_source_is_pure_and_tells_its_particles_apart() -> None:
    one, two = source(), source()
    assert [one.run_seed(p, e) for p in range(3) for e in range(3)] == [two.run_seed(p, e) for p in range(3) for e in range(3)]
    assert len({one.run_seed(p, e) for p in range(9) for e in range(9)}) == 81
    assert len({one.draw(p, e) for p in range(9) for e in range(9)}) == 81
    assert one.run_seed(0, 0) != TaskSource(one.family, one.template, one.horizon, seed=2).run_seed(0, 0)


STAGES = ((6, 8), (20, 30))


def test_an_episode_keeps_the_stage_that_it_began_in() -> None:
    learner = learners.get("celo2_base")
    pairs = Pairs(learner, source(stages=STAGES), 3)
    pairs.advance(theta_rows(learner, 3), 4)
    before, episodes = list(pairs.length), list(pairs.episode)
    assert max(before) <= 8
    pairs.episodes.stage = 1
    assert pairs.longest_next() == max(int(pairs.episodes.task(p, pairs.episode[p] + 1, 1).horizon) for p in range(3)) >= 20
    pairs.advance(theta_rows(learner, 3), 1)
    for p in range(3):
        restarted = pairs.episode[p] > episodes[p]
        assert pairs.stage[p] == int(restarted)
        assert pairs.length[p] == before[p] or (restarted and 20 <= pairs.length[p] <= 30)
    pairs.advance(theta_rows(learner, 3), 8)  # all of them have ended once
    assert pairs.stage == [1, 1, 1]


def test_state_has_the_stage_and_older_states_mean_stage_zero() -> None:
    learner = learners.get("celo2_base", schedule="warmup_cosine")
    whole = Pairs(learner, source(stages=STAGES), 3)
    whole.advance(theta_rows(learner, 3), 4)
    old = {name: value for name, value in whole.state().items() if name != "stage"}
    whole.episodes.stage = 1
    whole.advance(theta_rows(learner, 3), 3)
    kept = whole.state()
    expected = whole.advance(theta_rows(learner, 3), 9)

    again = Pairs(learner, source(stages=STAGES), 3)
    again.episodes.stage = 1
    again.load(kept)
    assert again.stage == kept["stage"]
    assert torch.equal(again.advance(theta_rows(learner, 3), 9).loss, expected.loss)

    older = Pairs(learner, source(stages=STAGES), 3)
    older.load(old)
    older.episodes.stage = 1
    older.advance(theta_rows(learner, 3), 3)
    assert older.stage == kept["stage"]
    assert torch.equal(older.advance(theta_rows(learner, 3), 9).loss, expected.loss)
