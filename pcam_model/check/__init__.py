"""Can this machine, with this config and this store, do the job? Found, expected, what to do."""

from collections.abc import Iterator

from pcam_model.check.findings import Finding, refuse
from pcam_model.check.hardware import device, memory
from pcam_model.check.inputs import source, weights
from pcam_model.check.storage import cache, disk, store
from pcam_model.config import TrainConfig

__all__ = ["Finding", "machine", "refuse"]


def machine(config: TrainConfig) -> Iterator[Finding]:
    """What the library can see by itself, in a second or two; nothing is left behind."""
    yield device()
    yield memory(config)
    yield cache()
    yield disk(config)
    yield store(config)
    yield source(config)
    yield weights(config)
