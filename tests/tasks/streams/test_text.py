"""Text: a fixed alphabet, paragraphs that stay on their side in every Python version, windows that never cross."""

import hashlib
import math
from pydoc_data.topics import topics

import pytest
import torch

from metaopt import seeds
from metaopt.tasks.streams.text import ALPHABET, Text, encode, paragraphs, text_digest


def decode(indices: torch.Tensor) -> str:
    return "".join(ALPHABET[i] for i in indices.tolist())


def test_the_alphabet_is_a_table() -> None:
    assert len(ALPHABET) == len(set(ALPHABET)) == Text.classes == 64
    assert hashlib.blake2b(ALPHABET.encode(), digest_size=4).hexdigest() == "171e3f70"  # weights of trained models index it


def test_text_is_encoded_in_lower_case_with_plain_quotes() -> None:
    assert decode(encode("Don\u2019t \u201cSAY\u201d `x`\n")) == "don't \"say\" 'x'\n"
    assert decode(encode("ü$")) == "\x00\x00"
    assert encode(ALPHABET[1:]).tolist() == list(range(1, 64))


def test_most_of_the_text_is_in_the_alphabet() -> None:
    shared = Text(4, 8).shared()
    for part in shared.values():
        assert float((part == 0).double().mean()) < 0.002
        assert int(part.max()) < 64
    assert len(shared["train_text"]) > 200_000
    assert 10_000 < len(shared["heldout_text"]) < 0.2 * len(shared["train_text"])


def test_paragraphs_are_on_one_side_and_there_once() -> None:
    training, heldout = paragraphs()
    assert len(set(training) | set(heldout)) == len(training) + len(heldout)
    assert 0.05 < len(heldout) / (len(training) + len(heldout)) < 0.15
    everything = " ".join(" ".join(topics.values()).lower().split())
    assert all(paragraph in everything for paragraph in heldout[:20] + training[:20])


def test_a_paragraphs_side_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Python version has some other paragraphs; those that it shares with this one stay where they are."""
    training, heldout = paragraphs()
    fewer = {name: text for i, (name, text) in enumerate(sorted(topics.items())) if i % 3}
    monkeypatch.setattr("pydoc_data.topics.topics", fewer)
    some_training, some_heldout = paragraphs.__wrapped__()
    assert set(some_training) < set(training)
    assert set(some_heldout) < set(heldout)
    assert len(some_heldout) > 50


def test_the_digest_is_that_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(text_digest()) == 16
    assert text_digest() == text_digest.__wrapped__()
    before = text_digest()
    training, heldout = paragraphs()
    monkeypatch.setattr("metaopt.tasks.streams.text.paragraphs", lambda: (training, heldout[:-1]))
    assert text_digest.__wrapped__() != before


def test_windows_are_runs_of_the_training_text_followed_by_the_next_character() -> None:
    stream, key = Text(64, 12), seeds.key("run")
    shared = stream.shared()
    text, heldout = decode(shared["train_text"]), decode(shared["heldout_text"])
    seen = set()
    for t in range(20):
        batch = stream.batch(shared, key, torch.tensor(t))
        assert batch["x"].shape == batch["y"].shape == (64, 12)
        assert torch.equal(batch["x"][:, 1:], batch["y"][:, :-1])
        windows = {decode(torch.cat([x, y[-1:]])) for x, y in zip(batch["x"], batch["y"], strict=True)}
        assert all(window in text for window in windows)
        seen |= windows
    assert len(seen) > 1200  # of 1,280: places differ from step to step
    assert stream.heldout(shared)["x"].shape == (64, 12)
    for x, y in zip(*(stream.heldout(shared)[name] for name in "xy"), strict=True):
        assert decode(torch.cat([x, y[-1:]])) in heldout


def test_every_place_can_be_drawn_and_none_beyond_the_end() -> None:
    """On a text of which each character tells its place, windows begin everywhere and end at the last character at the latest."""
    stream, length = Text(500, 4), 60
    shared = {"train_text": torch.arange(length), "heldout_text": torch.arange(length)}
    starts = torch.cat([stream.batch(shared, seeds.key("run"), torch.tensor(t))["x"][:, 0] for t in range(20)])
    assert set(starts.tolist()) == set(range(length - 4))
    assert torch.equal(
        stream.batch(shared, seeds.key("run"), torch.tensor(0))["y"], stream.batch(shared, seeds.key("run"), torch.tensor(0))["x"] + 1
    )


def test_heldout_windows_are_spread_and_do_not_overlap() -> None:
    stream = Text(8, 32)
    shared = {**stream.shared()}
    shared["heldout_text"] = torch.arange(len(shared["heldout_text"]))
    batch = stream.heldout(shared)
    starts = batch["x"][:, 0]
    assert int(starts.diff().min()) >= 33
    assert int(batch["y"].max()) > 0.95 * len(shared["heldout_text"])


def test_single_characters_carry_three_quarters_of_a_uniform_guess() -> None:
    counts = torch.bincount(Text(1, 8).shared()["train_text"], minlength=64).double()
    share = counts[counts > 0] / counts.sum()
    entropy = -float((share * share.log()).sum())
    assert entropy / math.log(64) == pytest.approx(0.774, abs=0.01)


def test_few_heldout_windows_are_in_the_training_text_too() -> None:
    """Phrases of the language are on both sides; that a paragraph is on one only shows in long windows."""
    stream = Text(1, 32)
    shared = stream.shared()
    training = decode(shared["train_text"])
    windows = [decode(x) for x in stream.heldout(shared)["x"]]
    assert sum(window in training for window in windows) < 0.2 * len(windows)
