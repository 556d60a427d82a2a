"""Counter-based randomness: published vectors, distributions, and purity in the key."""

import hashlib
import os
import subprocess
import sys

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from metaopt import seeds

MANY = 50_000
# Published output of SplitMix64 for seed 1234567 (Vigna's C code; also the vectors of Rosetta Code).
SPLITMIX64 = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)


def test_words_are_splitmix64() -> None:
    words = seeds._words(torch.tensor(1234567), (5,))
    assert tuple(int(word) % 2**64 for word in words) == SPLITMIX64


@settings(max_examples=50, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5))
def test_words_and_folded_keys_equal_unbounded_integer_arithmetic(start: int) -> None:
    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    words = seeds._words(torch.tensor(start), (3,))
    assert [int(word) % 2**64 for word in words] == [mix((start + i * 0x9E3779B97F4A7C15) % 2**64) for i in (1, 2, 3)]
    folded = mix((mix((start % 2**64) ^ 0xD1B54A32D192ED03) + (start + 1) * 0x9E3779B97F4A7C15) % 2**64)
    assert int(seeds.fold_in(torch.tensor(start), start)) % 2**64 == folded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_numbers(dtype: torch.dtype) -> None:
    draw = seeds.uniform(seeds.key("uniform"), (MANY,), dtype)
    assert draw.dtype == dtype
    assert float(draw.min()) >= 0.0
    assert float(draw.max()) < 1.0
    assert scipy.stats.kstest(draw.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers(dtype: torch.dtype) -> None:
    draw = seeds.normal(seeds.key("normal"), (MANY,), dtype)
    assert draw.dtype == dtype
    assert torch.isfinite(draw).all()
    assert scipy.stats.kstest(draw.numpy(), "norm").pvalue > 0.01
    moments = torch.stack([draw.double().pow(k).mean() for k in (1, 2, 3, 4)])
    # standard errors of the first four moments of N(0, 1): sqrt((1, 2, 15, 96) / n)
    error = (moments - torch.tensor([0.0, 1.0, 0.0, 3.0])).abs() / (torch.tensor([1.0, 2.0, 15.0, 96.0]) / MANY).sqrt()
    assert float(error.max()) < 4.0


def test_float64_has_53_random_bits_and_float32_has_24() -> None:
    fine, coarse = seeds.uniform(seeds.key(1), (64,), torch.float64), seeds.uniform(seeds.key(1), (64,), torch.float32)
    assert (fine * 2**53 == (fine * 2**53).round()).all()
    assert not (fine * 2**24 == (fine * 2**24).round()).any()
    assert torch.equal(coarse.double(), (fine * 2**24).floor() / 2**24)


def test_randint_covers_its_range_evenly() -> None:
    draw = seeds.randint(seeds.key("randint"), (MANY,), 7)
    counts = torch.bincount(draw, minlength=7)
    assert len(counts) == 7
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 0.01
    assert int(seeds.randint(seeds.key("randint"), (1000,), 2**31 - 1).min()) >= 0
    assert not seeds.randint(seeds.key("randint"), (10,), 1).any()


@pytest.mark.parametrize("draw", [seeds.uniform, seeds.normal, lambda key, shape: seeds.randint(key, shape, 100)])
def test_vmap_over_keys_is_a_loop(draw) -> None:
    keys = torch.stack([seeds.key("k", i) for i in range(5)])
    stacked = vmap(lambda key: draw(seeds.fold_in(key, 3), (4, 2)))(keys)
    alone = torch.stack([draw(seeds.fold_in(key, 3), (4, 2)) for key in keys])
    # Integer words are equal; log and cos of a vector and of its parts may differ in the last bit.
    torch.testing.assert_close(stacked, alone, rtol=1e-6, atol=1e-6)


def test_folded_keys_are_distinct_and_apart_from_drawn_words() -> None:
    base = seeds.key("run")
    folded = seeds.fold_in(base, torch.arange(20_000))
    nested = seeds.fold_in(seeds.fold_in(base, 0), torch.arange(20_000))
    words = seeds._words(base, (20_000,))
    assert len(torch.unique(torch.cat([folded, nested, words]))) == 60_000
    assert int(seeds.fold_in(base, 7)) == int(folded[7])


def test_streams_of_neighbouring_keys_are_uncorrelated() -> None:
    base = seeds.key("run")
    draws = vmap(lambda key: seeds.normal(key, (2000,)))(seeds.fold_in(base, torch.arange(20)))
    correlation = torch.corrcoef(draws) - torch.eye(20)
    assert float(correlation.abs().max()) < 4.5 / 2000**0.5


def test_stable_hash_is_the_same_in_every_process() -> None:
    code = "from metaopt.seeds import stable_hash; print(stable_hash('a', 1, 2.5, (3, 'b'), None))"
    values = {
        int(subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": salt}, check=True, capture_output=True).stdout)
        for salt in ("0", "4711")
    }
    assert values == {seeds.stable_hash("a", 1, 2.5, (3, "b"), None)}


def test_stable_hash_is_what_stored_tasks_and_runs_were_made_with() -> None:
    text = b'["run",1,2.5,["a",null]]'  # blake2b of compact JSON, less one bit
    want = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    assert seeds.stable_hash("run", 1, 2.5, ("a", None)) == want


def test_stable_hash_tells_its_parts_apart() -> None:
    parts = [("a", "b"), ("ab",), ("a", ("b",)), ("a", 1), ("a", "1"), ("a", 1.0), ("a", True), ()]
    hashes = [seeds.stable_hash(*p) for p in parts]
    assert len(set(hashes)) == len(parts)
    assert all(0 <= value < 2**63 for value in hashes)
    with pytest.raises(ValueError, match="JSON"):
        seeds.stable_hash(float("nan"))
