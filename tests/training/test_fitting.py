"""`batch: auto`: the largest batch that memory allows."""

import pytest
import stages

from pcam_model.core.errors import BadPlan
from pcam_model.training import auto_batch as fitting
from pcam_model.training.device import ComputePlan
from pcam_model.training.stage import Stage, TunedPlan

COMPUTE = ComputePlan(precision="fp32")
AUTO = Stage(name="tuned", plan=TunedPlan.model_validate({"batch": "auto"}))


def largest(patches: int) -> int:
    return fitting.largest_batch(AUTO, AUTO.prepare(stages.fresh("resnet18")), patches, 32, COMPUTE).batch


def test_memory_decides_then_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fitting.bytes_a_patch(AUTO, AUTO.prepare(stages.fresh("resnet18")), 32, COMPUTE)
    assert 1e5 < one < 1e8
    for room, expected in ((100 * one, 64), (1e15, 1024)):
        monkeypatch.setattr(fitting, "free_memory", lambda room=room: room)
        assert largest(100_000) == expected
    assert largest(100) == 8
    monkeypatch.setattr(fitting, "free_memory", lambda: one)
    with pytest.raises(BadPlan, match="not even 2 patches"):
        largest(100_000)


def test_a_batch_that_nobody_chose_is_no_batch() -> None:
    with pytest.raises(BadPlan, match="tuned.batch is auto"):
        AUTO.steps_an_epoch(100)
    assert AUTO.with_batch(32).steps_an_epoch(100) == 3


def test_this_machine_has_memory_left() -> None:
    assert 1e8 < fitting.free_memory() < 1e14
