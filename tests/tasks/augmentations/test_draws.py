"""The generator inside steps: published test vectors, moments, independence, the same numbers compiled."""

import math

import pytest
import torch
from torch.func import vmap

from metaopt import seeds
from metaopt.tasks.augmentations import draws

# Known answers of Threefry-2x32 with 20 rounds, as JAX tests its generator: (key, counter, result).
KNOWN = [
    ((0x0, 0x0), (0x0, 0x0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(pair: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(pair[0]), torch.tensor(pair[1])


@pytest.mark.parametrize(("key", "counter", "result"), KNOWN)
def test_published_vectors(key, counter, result) -> None:
    left, right = draws.threefry(words(key), words(counter), rounds=20)
    assert (int(left), int(right)) == result


def reference(key: tuple[int, int], counter: tuple[int, int], rounds: int) -> tuple[int, int]:
    """The same in Python's integers, which know no width."""
    mask, rotations = 2**32 - 1, (13, 15, 26, 6, 17, 29, 16, 24)
    ks = (*key, 0x1BD11BDA ^ key[0] ^ key[1])
    x, y = (counter[0] + ks[0]) & mask, (counter[1] + ks[1]) & mask
    for i in range(rounds):
        x = (x + y) & mask
        y = ((y << rotations[i % 8] | y >> 32 - rotations[i % 8]) & mask) ^ x
        if (i + 1) % 4 == 0:
            s = (i + 1) // 4
            x, y = (x + ks[s % 3]) & mask, (y + ks[(s + 1) % 3] + s) & mask
    return x, y


@pytest.mark.parametrize("rounds", [13, 20])
def test_every_word_stays_below_two_to_the_32(rounds: int) -> None:
    key = (0xDEADBEEF, 0xFFFFFFFE)
    counters = [(0xFFFFFFFF - i, 0x80000000 + 977 * i) for i in range(50)]
    left, right = draws.threefry(words(key), (torch.tensor([c[0] for c in counters]), torch.tensor([c[1] for c in counters])), rounds)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [reference(key, c, rounds) for c in counters]


def test_moments_of_normals() -> None:
    count = 400_000
    z = draws.normal(seeds.key("moments"), count, torch.float64)
    # standard errors of the first four moments of N(0, 1): 1, sqrt(2), sqrt(15), sqrt(96) over sqrt(count)
    for power, expected, se in ((1, 0.0, 1.0), (2, 1.0, math.sqrt(2)), (3, 0.0, math.sqrt(15)), (4, 3.0, math.sqrt(96))):
        assert abs(float((z**power).mean()) - expected) < 4 * se / math.sqrt(count)
    ordered = z.sort().values
    exact = 0.5 * (1 + torch.erf(ordered / math.sqrt(2)))
    gap = (exact - (torch.arange(count) + 0.5) / count).abs().max()
    assert float(gap) < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov, 0.1 %
    assert bool(torch.isfinite(z).all())
    assert float(z.abs().max()) < 6.7


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


def test_neighbours_streams_and_keys_are_independent() -> None:
    count = 100_000
    bound = 4 / math.sqrt(count)
    key = seeds.key("independence")
    z = draws.normal(key, count, torch.float64)
    others = {
        "the next number": z.roll(1),
        "its partner of one transform": z.roll(count // 2),
        "another stream": draws.normal(key, count, torch.float64, stream=1),
        "the next key": draws.normal(key + 1, count, torch.float64),
        "a key that differs in its upper half": draws.normal(key ^ (1 << 40), count, torch.float64),
    }
    for name, other in others.items():
        assert abs(correlation(z, other)) < bound, name
        assert abs(correlation(z**2, other**2)) < bound, name
    # one number under many consecutive keys, as consecutive steps would have it if their keys were not mixed
    column = vmap(lambda k: draws.normal(k, 2, torch.float64))(torch.arange(50_000))
    assert abs(float(column[:, 0].mean())) < 4 / math.sqrt(50_000)
    assert abs(correlation(column[:-1, 0], column[1:, 0])) < 4 / math.sqrt(50_000)


def test_draws_are_pure_prefixes_agree_and_particles_differ() -> None:
    keys = torch.stack([seeds.key("a"), seeds.key("b"), seeds.key("a")])
    rows = vmap(lambda k: draws.normal(k, 7))(keys)
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(rows[1], draws.normal(keys[1], 7))
    assert draws.normal(keys[0], 5).shape == (5,)
    assert draws.normal(keys[0], 5).dtype == torch.float32


def test_the_smallest_and_the_largest_words_give_finite_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 2**32 - 1):
        monkeypatch.setattr(draws, "threefry", lambda key, counter, word=word: (torch.full_like(counter[0], word),) * 2)
        assert bool(torch.isfinite(draws.normal(seeds.key(0), 4)).all())
        assert bool(torch.isfinite(draws.normal(seeds.key(0), 4, torch.float64)).all())


def test_copies_are_shaped_like_the_parameters_and_do_not_repeat() -> None:
    params = {"w": torch.zeros(3, 4, dtype=torch.float64), "b": torch.zeros((), dtype=torch.float64)}
    found = draws.normal_like(seeds.key(0), params, 5)
    assert found["w"].shape == (5, 3, 4)
    assert found["b"].shape == (5,)
    everything = torch.cat([found["w"].reshape(-1), found["b"]])
    assert len(set(everything.tolist())) == 65
    assert everything.dtype == torch.float64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_compiled_code_draws_the_same_numbers() -> None:
    keys = torch.stack([seeds.key("compiled", i) for i in range(3)])

    def words_of(k: torch.Tensor) -> torch.Tensor:
        count = torch.arange(1001)
        return torch.stack(draws.threefry((k & 0xFFFFFFFF, (k >> 32) & 0xFFFFFFFF), (count, torch.zeros_like(count))))

    eager = vmap(words_of)(keys)
    assert torch.equal(torch.compile(vmap(words_of), fullgraph=True, dynamic=False)(keys), eager)
    normal = vmap(lambda k: draws.normal(k, 1001))
    torch.testing.assert_close(torch.compile(normal, fullgraph=True, dynamic=False)(keys), normal(keys), rtol=1e-5, atol=1e-6)
