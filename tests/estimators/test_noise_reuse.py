"""Noise that belongs to an episode: derived from counters, changed where an episode or K steps of it begin, and nowhere else."""

from dataclasses import dataclass

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.estimators import GPES, NRES, PES, ESSingle, evolution, flatten, noise_reuse
from metaopt.estimators.noise_reuse import EpisodeNoise, NoiseReuse
from metaopt.learners.learner import StepRecord
from metaopt.tasks.task import Task
from tests.inner.test_particles import Scripted
from tests.oracles import smooth
from tests.oracles.influence_balancing import Balancing, Endless, Nothing

THETA = {"theta": torch.tensor(0.5, dtype=torch.float64)}
LIKE = torch.zeros(2000, dtype=torch.float64)


def test_draws_are_normal_and_belong_to_pair_episode_and_draw() -> None:
    noise = EpisodeNoise(0.3, seed=5)
    places = [(p, e, d) for p in range(3) for e in range(3) for d in range(3)]
    eps = noise.draw(*zip(*places, strict=True), LIKE)
    assert float(eps.std()) == pytest.approx(0.3, rel=0.02)
    assert float(torch.corrcoef(eps).fill_diagonal_(0).abs().max()) < 0.1
    assert torch.equal(noise.draw([2, 0], [1, 2], [0, 1], LIKE), eps[[places.index((2, 1, 0)), places.index((0, 2, 1))]])
    assert not torch.equal(EpisodeNoise(0.3, seed=6).draw([0], [0], [0], LIKE), eps[:1])
    assert EpisodeNoise(0.3, 5).draw([0], [0], [0], LIKE.float()).dtype == torch.float32


def test_the_sum_is_rederived_to_the_same_bits() -> None:
    one, other = EpisodeNoise(0.3, 5), EpisodeNoise(0.3, 5)
    for draw in range(4):
        one.move([(0, draw), (7, 2 * draw)], LIKE)
    assert other.move([(0, 3), (7, 6)], LIKE) == [0, 1]  # as after a resume: no history
    assert torch.equal(one.total, other.total)
    assert torch.equal(one.eps, other.eps)
    want = sum((one.draw([1], [7], [d], LIKE) for d in range(1, 7)), one.draw([1], [7], [0], LIKE))
    assert torch.equal(one.total[1:], want)


def test_only_what_changed_moves() -> None:
    noise = EpisodeNoise(0.3, 5)
    assert noise.move([(0, 0), (0, 0)], LIKE) == [0, 1]
    before = noise.total
    assert noise.move([(0, 0), (0, 0)], LIKE) == []
    assert noise.move([(0, 0), (1, 0)], LIKE) == [1]
    assert torch.equal(noise.total[0], before[0])
    assert torch.equal(noise.total, noise.eps)  # a new episode has forgotten the old one's draws
    assert before is not noise.total  # what was handed out stays as it was


@dataclass(frozen=True)
class Telling:
    """A learner whose loss is its own theta: what was perturbed when, seen from outside."""

    def init_theta(self, seed):
        return {"theta": torch.tensor(0.0, dtype=torch.float64)}

    def init(self, theta, task, key):
        return {}

    def advance(self, theta, task, carry, batch):
        return carry, StepRecord(theta["theta"])


def seen_noise(estimator: NoiseReuse, windows: int, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The perturbation of every pair at every step [steps, N], read off the losses."""
    found, advance = [], estimator.pairs.advance

    def spy(*args, **kwargs):
        seen = advance(*args, **kwargs)
        found.append(seen.loss)
        return seen

    monkeypatch.setattr(estimator.pairs, "advance", spy)
    for k in range(windows):
        estimator.estimate({"theta": torch.tensor(0.0, dtype=torch.float64)}, k)
    loss = torch.cat(found)
    positive, negative = loss.chunk(2, dim=1)
    torch.testing.assert_close(positive, -negative, rtol=0, atol=0)
    return positive


@pytest.mark.parametrize("reuse", [None, 2, 4])
@pytest.mark.parametrize("window", [1, 2, 4, 7])
def test_noise_changes_with_the_episode_and_every_k_steps(window: int, reuse: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    horizons = ((5, 8), (9,), (4,))
    estimator = NoiseReuse(Telling(), Scripted(horizons, (0.0, 0.5, 0.0)), 3, 0.1, window, seed=3, reuse=reuse)
    seen = seen_noise(estimator, -(-26 // window), monkeypatch)
    noise, like = EpisodeNoise(0.1, 3), torch.zeros(1, dtype=torch.float64)
    for pair, row in enumerate(horizons):
        lengths = [row[e % len(row)] - (row[0] // 2 if pair == 1 and e == 0 else 0) for e in range(30)]
        line = [(e, t // reuse if reuse else 0) for e, length in enumerate(lengths) for t in range(length)][: len(seen)]
        want = noise.draw([pair] * len(line), [e for e, _ in line], [d for _, d in line], like)[:, 0]
        torch.testing.assert_close(seen[:, pair], want, rtol=1e-12, atol=1e-15)


def test_lockstep_and_stagger() -> None:
    for recipe, spread in ((NRES(window=2), True), (GPES(window=2), True), (ESSingle(window=2), False)):
        estimator = recipe.build(Balancing(), Endless(20, staggered=True), 10, 0)
        estimator.estimate(THETA, 0)
        assert (len(set(estimator.pairs.length)) > 1) == spread, recipe.name
    single, reuse = (r(window=4, sigma=0.1).build(Balancing(), Endless(20), 5, 0) for r in (ESSingle, NRES))
    for k in range(7):  # without a stagger in the episodes they are the same
        assert torch.equal(flatten(single.estimate(THETA, k).grad), flatten(reuse.estimate(THETA, k).grad))


def test_no_noise_is_stored() -> None:
    theta = smooth.Smooth().init_theta()
    estimator = GPES(window=2).build(smooth.Smooth(), Endless(12), 4, 0)
    for k in range(3):
        estimator.estimate(theta, k)
    assert set(estimator.state()) == {"pairs"}
    assert set(estimator.state()["pairs"]) == {"carry", "episode", "stage", "clock", "length"}


def test_reuse_of_one_window_is_pes(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, draws = smooth.Smooth().init_theta(), EpisodeNoise(0.05, 9)
    place = [(0, 0)]
    monkeypatch.setattr(
        evolution.Evolution, "_noise", lambda self, count, step, like: draws.draw(range(count), *([v] * count for v in place[0]), like)
    )
    pes, gpes = (recipe(window=3, sigma=0.05).build(smooth.Smooth(), Endless(12), 6, 9) for recipe in (PES, GPES))
    for k in range(9):  # two episodes and a bit; PES draws by outer step, and is given the draws of the episode
        place[0] = (k // 4, k % 4)
        one, two = pes.estimate(theta, k), gpes.estimate(theta, k)
        torch.testing.assert_close(flatten(one.grad), flatten(two.grad), rtol=1e-9, atol=1e-12)
        assert (one.loss, one.inner_steps, one.sequential_steps) == (pytest.approx(two.loss), two.inner_steps, two.sequential_steps)


def test_reuse_of_a_whole_episode_is_noise_reuse() -> None:
    theta = smooth.Smooth().init_theta()
    nres, gpes = (
        NRES(window=3).build(smooth.Smooth(), Endless(12), 4, 0),
        GPES(window=3, reuse_steps=12).build(smooth.Smooth(), Endless(12), 4, 0),
    )
    for k in range(6):
        assert torch.equal(flatten(nres.estimate(theta, k).grad), flatten(gpes.estimate(theta, k).grad))


def test_a_diverged_pair_restarts_with_new_noise() -> None:
    @dataclass(frozen=True)
    class Breaking(Telling):
        def init(self, theta, task, key):
            return {"t": torch.zeros((), dtype=torch.int64)}

        def advance(self, theta, task, carry, batch):
            bad = (theta["theta"] > 0) & (carry["t"] == 1)
            return {"t": carry["t"] + 1}, StepRecord(torch.where(bad, torch.inf, theta["theta"]))

    estimator = NoiseReuse(Breaking(), Endless(100), 5, 0.1, 4, seed=0)
    theta = Breaking().init_theta(0)
    for k in range(3):  # one member of each pair breaks in every window
        got = estimator.estimate(theta, k)
        assert (got.diverged, got.nonfinite) == (5, 5)
        assert torch.isfinite(got.grad["theta"])
        assert estimator.pairs.episode == [k] * 5
    assert estimator.noise.held == [(2, 0)] * 5


def test_counts_and_losses() -> None:
    class Uneven(Endless):
        def task(self, particle, episode):
            return Task(Nothing(), {"horizon": torch.tensor(3.0 + particle, dtype=torch.float64)}, {})

    got = NRES(window=4, sigma=0.1).build(Telling(), Uneven(), 3, 0).estimate({"theta": torch.tensor(2.0, dtype=torch.float64)}, 0)
    assert (got.inner_steps, got.sequential_steps) == (2 * 3 * 4, 4)
    assert got.loss == pytest.approx(2.0)  # antithetic losses cancel
    assert float(got.grad["theta"]) > 0


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"reuse_steps must be a multiple of window=10, got 25"):
        GPES(window=10, reuse_steps=25)
    with pytest.raises(ConfigError, match=r"sigma must be > 0, got 0\.0"):
        NRES(window=10, sigma=0.0).build(Telling(), Endless(), 2, 0)
    assert noise_reuse.GPES(window=10) == GPES(window=10, reuse_steps=0)
