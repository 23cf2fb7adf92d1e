"""`batch_size: auto`: the largest batch that memory allows."""

import pytest
from stages import new_network

from pcam_model.core.errors import ConfigError, DeviceMemoryError
from pcam_model.training import auto_batch
from pcam_model.training.device import ComputeConfig
from pcam_model.training.stage import FinetuneConfig, Stage

COMPUTE = ComputeConfig(precision="fp32")
AUTO = Stage(name="finetune", config=FinetuneConfig.model_validate({"batch_size": "auto"}))


def chosen_batch_size(patches: int) -> int:
    return auto_batch.find_batch_size(AUTO, AUTO.prepare(new_network("resnet18")), patches, 32, COMPUTE).batch_size


def test_memory_decides_then_the_number_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    one = auto_batch.bytes_per_patch(AUTO, AUTO.prepare(new_network("resnet18")), 32, COMPUTE)
    assert 1e5 < one < 1e8
    for free, expected in ((100 * one, 64), (1e15, 1024)):
        monkeypatch.setattr(auto_batch, "available_memory", lambda free=free: free)
        assert chosen_batch_size(100_000) == expected
    assert chosen_batch_size(100) == 8
    monkeypatch.setattr(auto_batch, "available_memory", lambda: one)
    with pytest.raises(DeviceMemoryError, match="not even 2 patches"):
        chosen_batch_size(100_000)


def test_a_batch_size_that_was_not_chosen_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.batch_size is auto"):
        AUTO.steps_per_epoch(100)
    assert AUTO.with_batch_size(32).steps_per_epoch(100) == 3


def test_this_machine_has_memory_left() -> None:
    assert 1e8 < auto_batch.available_memory() < 1e14
