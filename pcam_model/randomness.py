"""Randomness from a place, not from history."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def word(seed: int, *place: int) -> int:
    """63 random bits that depend only on the seed and the place."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, *place: int, device: str = "cpu") -> torch.Generator:
    """A generator that depends only on where we are, never on how we got here."""
    return torch.Generator(device).manual_seed(word(seed, *place))


@contextmanager
def at_place(seed: int, *place: int) -> Iterator[None]:
    """Torch's global random state (dropout, initial weights) is a function of the place inside, untouched outside."""
    with torch.random.fork_rng():
        torch.manual_seed(word(seed, *place))
        yield
