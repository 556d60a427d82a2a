"""A stream of characters: Python's own language reference, as every interpreter carries it for `help()`.

Legend: B windows, L characters of a window.

The text differs a little between Python versions. It is therefore cut into paragraphs, and each paragraph's own hash decides whether it is
trained on or held out: a paragraph that two versions share is on the same side in both. `text_digest` says which text a machine has.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.task import Batch

__all__ = ["ALPHABET", "Text", "encode", "paragraphs", "text_digest"]

ALPHABET = "\x00\n abcdefghijklmnopqrstuvwxyz0123456789.,:;!'\"()[]{}<>=+-*/%_#|\\"  # index 0 stands for every other character
_TYPOGRAPHY = str.maketrans(dict(zip("\u2019\u2018`\u201c\u201d\u2014\u2013", "'''\"\"--", strict=True)))
_HELDOUT_SHARE = 0.1  # of the paragraphs
_SHORTEST = 40  # characters; shorter paragraphs are headings, which repeat
_HELDOUT_WINDOWS = 64


def encode(text: str) -> Tensor:
    """Return the indices [characters] of lower-cased text in `ALPHABET`, int64."""
    place = {character: i for i, character in enumerate(ALPHABET)}
    return torch.tensor([place.get(character, 0) for character in text.lower().translate(_TYPOGRAPHY)], dtype=torch.int64)


@functools.cache
def paragraphs() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the training and the held-out paragraphs: lower case, one line each, each one once."""
    from pydoc_data.topics import topics

    training: dict[str, None] = {}
    heldout: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            line = " ".join(paragraph.lower().split())
            if len(line) >= _SHORTEST:
                share = int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little") * 2.0**-64
                (heldout if share < _HELDOUT_SHARE else training)[line] = None
    return tuple(training), tuple(heldout)


@functools.cache
def _texts() -> tuple[Tensor, Tensor]:
    training, heldout = ("\n".join(lines) for lines in paragraphs())
    return encode(training), encode(heldout)


@functools.cache
def text_digest() -> str:
    """Return sixteen hex digits of the text on this machine; specs of language tasks carry them."""
    return hashlib.blake2b("\f".join("\n".join(lines) for lines in paragraphs()).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Text:
    """Windows of the Python language reference (about 300,000 characters to train on), to predict each next character.

    Source: the `topics` of the standard library's `pydoc_data`, Python Software Foundation licence.
    """

    batch_size: int
    length: int
    classes: ClassVar[int] = len(ALPHABET)

    def shared(self) -> Batch:
        """Return the indices of both texts: `train_text` and `heldout_text`."""
        training, heldout = _texts()
        return {"train_text": training, "heldout_text": heldout}

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, L] and the characters that follow them y [B, L], from random places of the training text."""
        text = shared["train_text"]
        starts = seeds.randint(seeds.fold_in(key, step), (self.batch_size,), len(text) - self.length)
        return self._windows(text, starts)

    def heldout(self, shared: Batch) -> Batch:
        """Return 64 windows, evenly spaced over the held-out text."""
        text = shared["heldout_text"]
        starts = torch.arange(_HELDOUT_WINDOWS, device=text.device) * ((len(text) - self.length - 1) // _HELDOUT_WINDOWS)
        return self._windows(text, starts)

    def _windows(self, text: Tensor, starts: Tensor) -> Batch:
        window = text[starts.unsqueeze(-1) + torch.arange(self.length + 1, device=text.device)]
        return {"x": window[:, :-1], "y": window[:, 1:]}
