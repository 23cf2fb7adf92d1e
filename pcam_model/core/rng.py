"""Randomness from a place, not from history."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def derived_seed(seed: int, *place: int) -> int:
    """63 random bits that depend only on the seed and the place."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, *place: int, device: str = "cpu") -> torch.Generator:
    """A generator that depends only on where we are, never on how we got here."""
    return torch.Generator(device).manual_seed(derived_seed(seed, *place))


class BatchSlice(NamedTuple):
    """Rows start .. stop of a batch of `whole`: what is random is drawn for the whole batch, then cut.

    So it does not matter for a patch how many processes, or how many parts one after the other, compute its batch.
    """

    start: int
    stop: int
    whole: int

    def of(self, drawn: Tensor) -> Tensor:
        """These rows of what was drawn, (whole, ...) -> (stop - start, ...)."""
        return drawn[self.start : self.stop]


@contextmanager
def seeded(seed: int, *place: int) -> Iterator[None]:
    """Torch's global random state (dropout, initial weights) is a function of the place inside, untouched outside."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, *place))
        yield
