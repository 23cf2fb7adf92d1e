"""Random numbers that are a function of a key, not of what was drawn before."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def derived_seed(seed: int, *rng_key: int) -> int:
    """63 random bits that depend only on the seed and the key."""
    return int(np.random.SeedSequence([seed, *rng_key]).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, *rng_key: int) -> torch.Generator:
    """A generator on the host that depends only on the seed and the key."""
    return torch.Generator().manual_seed(derived_seed(seed, *rng_key))


class StepKey(NamedTuple):
    """The RNG key of a training step; unpacks to `seed, stage, epoch, step`."""

    seed: int
    stage: int
    """The stage's number."""
    epoch: int
    """From 0."""
    step: int
    """Within the epoch, from 0."""

    def generator(self, purpose: int) -> torch.Generator:
        """The step's generator for one purpose, such as dropout."""
        return generator(self.seed, purpose, self.stage, self.epoch, self.step)


class BatchSlice(NamedTuple):
    """Rows `start` to `stop` of a batch of `batch_size`.

    Random numbers are drawn for the whole batch and then sliced, so that a patch's do not depend on the number of
    processes or microbatches that compute its batch.
    """

    start: int
    stop: int
    batch_size: int

    def of(self, values: Tensor) -> Tensor:
        """These rows of a batch's values, (batch_size, ...) -> (stop - start, ...)."""
        return values[self.start : self.stop]


@contextmanager
def seeded(seed: int, *rng_key: int) -> Iterator[None]:
    """Seed torch's global generator from the key inside the block; it is restored afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, *rng_key))
        yield
