"""Checks whether this machine, with a configuration and a store, could do a training run."""

from collections.abc import Iterator

from pcam_model.check.findings import Finding, raise_for_failures
from pcam_model.check.hardware import check_gpu, check_memory
from pcam_model.check.inputs import check_network, check_source, check_weights
from pcam_model.check.storage import check_cache, check_disk, check_store, check_temporary
from pcam_model.config import TrainConfig

__all__ = ["Finding", "check_machine", "raise_for_failures"]


def check_machine(config: TrainConfig) -> Iterator[Finding]:
    """The findings of all checks that need no Prefect and no Kaggle, in a second or two; leaves nothing behind."""
    yield check_gpu()
    yield check_memory(config)
    yield check_cache()
    yield check_temporary()
    yield check_disk(config)
    yield check_store(config)
    yield check_source(config)
    yield check_network(config)
    yield check_weights(config)
