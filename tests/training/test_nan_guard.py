"""What goes wrong in a step: numbers that are not finite, and memory that is too short."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from torch import Tensor, nn

from pcam_model.core.errors import ConfigError
from pcam_model.training.checkpoint import LATEST, read_checkpoint_metadata
from pcam_model.training.device import ComputeConfig
from pcam_model.training.ema import WeightEMA
from pcam_model.training.network import BATCHNORMS, PatchNetwork
from pcam_model.training.step import TrainState, new_state, train_step

PLACE = (3, 2, 0, 0)


class Spoilt(type(stages.part())):  # type: ignore[misc]
    """A part whose images are no numbers in some steps."""

    def augmented(self, which: Tensor, seed: int, *place: int, **keys: Any) -> tuple[Tensor, Tensor]:
        images, labels = super().augmented(which, seed, *place, **keys)
        step = place[1] * 6 + place[2]
        return (images * torch.nan if step in BAD else images), labels


BAD: set[int] = set()


@pytest.fixture
def spoilt() -> Callable[..., Spoilt]:
    def make(*steps: int) -> Spoilt:
        BAD.clear()
        BAD.update(steps)
        whole = stages.part()
        return Spoilt(**vars(whole))

    return make


def everything(state: TrainState) -> list[Tensor]:
    """All that a step may change, copied."""
    slots = [value for one in state.optimizer.state.values() for value in one.values()]
    mean = list(state.ema.tensors.values()) if state.ema else []
    return [tensor.detach().clone() for tensor in [*state.network.state_dict().values(), *slots, *mean]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_whose_loss_is_not_finite_leaves_no_trace(precision: str) -> None:
    network, part = stages.TUNED.prepare(stages.fresh()).train(), stages.part()
    compute = ComputeConfig.model_validate({"precision": precision})
    state = new_state(network, stages.TUNED.multipliers, part.device, compute, WeightEMA(network, 5))
    images, labels = part.augmented(torch.arange(8), *PLACE)
    for _ in range(10):  # until float16 has found its scale
        train_step(state, images, labels, 1e-3, 0.9, *PLACE)
    before = everything(state)
    loss = train_step(state, images * torch.inf, labels, 1e-3, 0.9, *PLACE)
    assert not torch.isfinite(loss)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(state), strict=True))
    assert torch.isfinite(train_step(state, images, labels, 1e-3, 0.9, *PLACE))
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(state), strict=True) if a.ndim == 4)


def test_one_bad_step_is_skipped_and_noted_with_its_patches(
    tmp_path: Path, spoilt: Callable[..., Spoilt], capsys: pytest.CaptureFixture[str]
) -> None:
    end = stages.trainer(tmp_path, stages.TUNED, spoilt(3, 5)).run()
    assert end.step == 12 and torch.isfinite(torch.tensor(list(end.figures.values()))).all()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    assert [row["step"] for row in skipped] == [4, 6]
    assert len(skipped[0]["patches"]) == 8 and all(name.startswith("patch") for name in skipped[0]["patches"])
    assert "step 4 is skipped" in capsys.readouterr().out


def test_a_few_in_a_row_stop_with_step_rate_and_patches_and_the_last_good_checkpoint_stays(
    tmp_path: Path, spoilt: Callable[..., Spoilt]
) -> None:
    every = ComputeConfig(checkpoint_steps=4)
    broken = stages.trainer(tmp_path, stages.TUNED, spoilt(4, 5, 6), every)
    with pytest.raises(ConfigError, match=r"broke down at step 7 of 12: 3 steps in a row .* at rate 0\.00.*patch\d+, "):
        broken.run()
    broken.saver.wait()
    assert (
        read_checkpoint_metadata(tmp_path / LATEST)["step"] == 6
    )  # of the epoch's end: weights as they were after step 4
    again = stages.trainer(tmp_path, stages.TUNED, spoilt(4, 5, 6), every)
    assert all(torch.isfinite(tensor).all() for tensor in everything(again.state))
    with pytest.raises(ConfigError, match="broke down at step 7"):
        again.run()


def short_of_memory(network: PatchNetwork, most: int, error: type[BaseException] = torch.OutOfMemoryError) -> None:
    """The body takes no more than so many patches at a time."""
    body = network.body.forward

    def forward(images: Tensor) -> Tensor:
        if len(images) > most:
            raise error("can't allocate memory")
        result: Tensor = body(images)
        return result

    network.body.forward = forward  # type: ignore[method-assign]


def gradients(stage: Any, most: int, still: bool) -> dict[str, Tensor]:
    network, part = stage.prepare(stages.fresh("resnet18")).train(), stages.part()
    if still:
        for layer in network.modules():
            if isinstance(layer, BATCHNORMS):
                layer.eval()
    short_of_memory(network, most)
    state = new_state(network, stage.multipliers, part.device, ComputeConfig(precision="fp32"))
    train_step(state, *part.augmented(torch.arange(8), *PLACE), 0.0, 0.9, *PLACE)
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


FIXED = stages.FROZEN.model_copy(update={"config": stages.FROZEN.config.model_copy(update={"batchnorm": "fixed"})})


@pytest.mark.parametrize(("stage", "still"), [(FIXED, False), (stages.TUNED, True)], ids=["fixed", "finetune"])
def test_where_memory_is_short_a_batch_is_computed_in_parts_and_gives_the_same_gradients(
    stage: Any, still: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gradients(stage, 8, still)
    assert capsys.readouterr().out == ""
    parts = gradients(stage, 2, still)
    said = capsys.readouterr().out
    assert "a batch of 8 is computed 4 patches at a time" in said and "8 is computed 2 patches at a time" in said
    assert ("BatchNorm sees 2 patches at a time" in said) == (stage is stages.TUNED)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), name


def test_parts_are_kept_by_the_checkpoint_and_batchnorm_moves_as_far(tmp_path: Path) -> None:
    begun = stages.trainer(tmp_path, stages.TUNED, stages.part())
    short_of_memory(begun.state.network, 4)
    begun._one_step()
    begun.checkpoint()
    begun.saver.wait()
    resumed = stages.trainer(tmp_path, stages.TUNED, stages.part())
    assert resumed.state.network.parts == 2
    layer = next(layer for layer in resumed.state.network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert layer.momentum is not None and (1 - layer.momentum) ** 2 == pytest.approx(0.9)


def test_what_fits_in_no_part_is_said(tmp_path: Path) -> None:
    hopeless = stages.trainer(tmp_path, stages.TUNED, stages.part())
    short_of_memory(hopeless.state.network, 1)
    with pytest.raises(ConfigError, match="not even 2 patches at a time fit into memory"):
        hopeless.run()
