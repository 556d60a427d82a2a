"""Sequences of bits: answers against whole numbers of Python, sides that share no sequence, draws that are even."""

import pytest
import torch
from scipy import stats
from torch.func import vmap

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.streams.bits import Addition, Parity, _scrambled

STREAMS = [Parity(32, 12), Parity(16, 62), Addition(32, 8), Addition(16, 32)]
SMALL = [Parity(512, 6), Parity(512, 9), Addition(512, 4), Addition(512, 6)]
ids = [f"{type(s).__name__}{s.length}" for s in STREAMS]
small_ids = [f"{type(s).__name__}{s.length}" for s in SMALL]


def rows(x: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in x.tolist()]


def drawn(stream, steps: int, key: str = "run"):
    shared = stream.shared()
    batches = [stream.batch(shared, seeds.key(key), torch.tensor(t)) for t in range(steps)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y")}


def both_sides(stream):
    yield from (drawn(stream, 3), stream.heldout(stream.shared()))


@pytest.mark.parametrize("stream", [s for s in STREAMS if isinstance(s, Parity)], ids=lambda s: f"{s.length}")
def test_parity_is_that_of_the_ones_so_far(stream: Parity) -> None:
    for side in both_sides(stream):
        assert side["x"].shape == side["y"].shape == (len(side["x"]), stream.length)
        for x, y in zip(rows(side["x"]), rows(side["y"]), strict=True):
            assert set(x) <= {0, 1}
            assert list(y) == [sum(x[: i + 1]) % 2 for i in range(len(x))]


@pytest.mark.parametrize("stream", [s for s in STREAMS if isinstance(s, Addition)], ids=lambda s: f"{s.length}")
def test_digits_are_those_of_the_sum(stream: Addition) -> None:
    """Numbers are read from the symbols by Python, added, and written in binary."""
    for side in both_sides(stream):
        assert side["x"].shape == side["y"].shape == (len(side["x"]), stream.length)
        for x, y in zip(rows(side["x"]), rows(side["y"]), strict=True):
            one, two = (int("".join(str(symbol >> which & 1) for symbol in reversed(x)), 2) for which in (0, 1))
            assert x[-1] == 0, "room for what is carried"
            assert "".join(map(str, reversed(y))) == f"{one + two:0{stream.length}b}"


def test_a_code_holds_both_numbers() -> None:
    batch = Addition(1, 4).examples(torch.tensor([0b011_101]))
    assert batch["x"].tolist() == [[3, 2, 1, 0]]  # 101 and 011, the lowest bits first
    assert batch["y"].tolist() == [[0, 0, 0, 1]]  # 5 + 3 = 8


@pytest.mark.parametrize("bits", range(6, 15))
def test_a_scramble_is_one_to_one(bits: int) -> None:
    found = _scrambled(torch.arange(1 << bits), bits)
    assert torch.equal(found.sort().values, torch.arange(1 << bits))
    assert not torch.equal(found, torch.arange(1 << bits))


def test_a_scramble_of_62_bits_can_be_taken_back() -> None:
    """Enumeration is out of reach: the steps are undone in whole numbers of Python instead."""
    factor, summand, bits = 0x2545F4914F6CDD1D, 0x14057B7EF767814F, 62
    index = seeds.fold_in(seeds.key("index"), torch.arange(200)) & ((1 << bits) - 1)
    for want, code in zip(index.tolist(), _scrambled(index, bits).tolist(), strict=True):
        for _ in range(3):
            code ^= code >> 31
            code = (code - summand) * pow(factor, -1, 1 << bits) % (1 << bits)
        assert code == want


@pytest.mark.parametrize("stream", SMALL, ids=small_ids)
def test_training_meets_all_sequences_but_the_held_out_ones(stream) -> None:
    """Short sequences are met in full, and the two sides share none."""
    heldout = set(rows(stream.heldout(stream.shared())["x"]))
    met = set(rows(drawn(stream, 40)["x"]))
    everything = set(rows(stream.examples(torch.arange(1 << stream.bits))["x"]))
    assert len(everything) == 1 << stream.bits
    assert not met & heldout
    assert len(heldout) == min(128, len(everything) // 8)
    assert met | heldout <= everything
    assert len(met) == 7 * len(everything) // 8


@pytest.mark.parametrize("stream", SMALL[:2], ids=small_ids[:2])
def test_training_sequences_are_equally_likely(stream) -> None:
    counts = torch.unique(drawn(stream, 100)["x"] @ (1 << torch.arange(stream.length)), return_counts=True)[1]
    assert len(counts) == 7 << (stream.length - 3)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("stream", [*STREAMS, Parity(16, 12), Parity(16, 24), Addition(16, 24)], ids=str)
def test_both_sides_look_alike(stream) -> None:
    """Each position's symbols and answers are about as frequent among the held-out sequences as in training."""
    heldout, training = stream.heldout(stream.shared()), drawn(stream, 40 * 64 // stream.batch_size)
    assert len(heldout["x"]) == len(set(rows(heldout["x"]))) == 128
    for name in ("x", "y"):
        for value in range(2 if name == "y" else stream.symbols):
            one, two = ((side[name] == value).double().mean(0) for side in (heldout, training))
            assert float((one - two).abs().max()) < 0.2, (name, value)  # 4.5 deviations of a share of 128


def test_batches_follow_key_and_step() -> None:
    stream = Parity(32, 24)
    shared, key = stream.shared(), seeds.key("run")
    one, again, later = (stream.batch(shared, key, torch.tensor(t))["x"] for t in (3, 3, 4))
    assert torch.equal(one, again)
    assert not set(rows(one)) & set(rows(later))
    assert not set(rows(one)) & set(rows(stream.batch(shared, seeds.key("other"), torch.tensor(3))["x"]))
    together = vmap(lambda t: stream.batch(shared, key, t)["x"])(torch.tensor([3, 4]))
    assert torch.equal(together, torch.stack([one, later]))


def test_the_held_out_sequences_are_always_the_same() -> None:
    """Of another batch size too; what they are is pinned, for stored curves rest on them."""
    one, two = (Parity(batch, 12).shared() for batch in (8, 64))
    assert all(torch.equal(one[name], two[name]) for name in ("heldout_x", "heldout_y"))
    codes = one["heldout_x"] @ (1 << torch.arange(12))
    assert codes[:4].tolist() == [245, 1375, 399, 1065]


@pytest.mark.parametrize(("stream", "length", "bits"), [(Parity, 5, 5), (Parity, 63, 63), (Addition, 3, 4), (Addition, 33, 64)])
def test_lengths_out_of_range_are_refused(stream, length: int, bits: int) -> None:
    with pytest.raises(TaskError, match=f"{stream.__name__} length must make 6 to 62 random bits, got length {length} with {bits} of them"):
        stream(8, length)
