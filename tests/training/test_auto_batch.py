"""`batch: auto`: the largest batch that memory allows."""

import pytest
import stages

from pcam_model.core.errors import ConfigError
from pcam_model.training import auto_batch as fitting
from pcam_model.training.device import ComputeConfig
from pcam_model.training.stage import FinetuneConfig, Stage

COMPUTE = ComputeConfig(precision="fp32")
AUTO = Stage(name="finetune", config=FinetuneConfig.model_validate({"batch": "auto"}))


def largest(patches: int) -> int:
    return fitting.find_batch_size(AUTO, AUTO.prepare(stages.fresh("resnet18")), patches, 32, COMPUTE).batch_size


def test_memory_decides_then_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fitting.bytes_a_patch(AUTO, AUTO.prepare(stages.fresh("resnet18")), 32, COMPUTE)
    assert 1e5 < one < 1e8
    for room, expected in ((100 * one, 64), (1e15, 1024)):
        monkeypatch.setattr(fitting, "free_memory", lambda room=room: room)
        assert largest(100_000) == expected
    assert largest(100) == 8
    monkeypatch.setattr(fitting, "free_memory", lambda: one)
    with pytest.raises(ConfigError, match="not even 2 patches"):
        largest(100_000)


def test_a_batch_that_nobody_chose_is_no_batch() -> None:
    with pytest.raises(ConfigError, match="finetune.batch_size is auto"):
        AUTO.steps_per_epoch(100)
    assert AUTO.with_batch(32).steps_per_epoch(100) == 3


def test_this_machine_has_memory_left() -> None:
    assert 1e8 < fitting.free_memory() < 1e14
