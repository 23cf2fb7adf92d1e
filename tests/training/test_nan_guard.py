"""Steps whose loss is not finite are skipped; batches that do not fit into memory are computed in microbatches."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from torch import Tensor, nn

from pcam_model.core.checkpoint_names import LATEST
from pcam_model.core.errors import DeviceMemoryError, DivergenceError
from pcam_model.core.rng import StepKey
from pcam_model.data.augment import AugmentParameters
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training import gradients
from pcam_model.training.checkpoint import read_checkpoint_metadata
from pcam_model.training.device import ComputeConfig
from pcam_model.training.ema import WeightEMA
from pcam_model.training.network import BATCHNORMS, PatchNetwork
from pcam_model.training.stage import Stage
from pcam_model.training.step import train_step
from pcam_model.training.train_state import TrainState, create_train_state

KEY = StepKey(3, 2, 0, 0)


@dataclass(frozen=True)
class NanLoader(stages.StepLoader):
    """A loader whose images are NaN in some steps."""

    nan_steps: tuple[int, ...] = ()
    steps: list[int | None] = field(default_factory=list)

    def gather(self, positions: Tensor) -> Tensor:
        self.steps.append(self.step_of(positions))
        return super().gather(positions)

    def augment(self, patches: Tensor, parameters: AugmentParameters, image_size: int) -> Tensor:
        images = super().augment(patches, parameters, image_size)
        return images * torch.nan if self.steps[-1] in self.nan_steps else images


def nan_loader(*steps: int) -> NanLoader:
    return NanLoader(**vars(stages.small_loader()), nan_steps=steps)


def all_tensors(state: TrainState) -> list[Tensor]:
    """Copies of all tensors that a step may change."""
    slots = [value for slots in state.optimizer.state.values() for value in slots.values()]
    averages = list(state.ema.tensors.values()) if state.ema else []
    return [tensor.detach().clone() for tensor in [*state.network.state_dict().values(), *slots, *averages]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_whose_loss_is_not_finite_leaves_no_trace(precision: str) -> None:
    network, loader = stages.FINETUNE.prepare(stages.new_network()).train(), stages.small_loader()
    compute = ComputeConfig.model_validate({"precision": precision})
    state = create_train_state(network, stages.FINETUNE.lr_multipliers, loader.device, compute, WeightEMA(network, 5))
    batch = stages.batch(loader, network, KEY)
    for _ in range(10):  # until float16 has found its scale
        train_step(state, batch, 1e-3, 0.9)
    before = all_tensors(state)
    infinite = batch.parameters._replace(brightness=torch.full((8,), torch.inf), contrast=torch.zeros(8))
    loss = train_step(state, replace(batch, parameters=infinite), 1e-3, 0.9)
    assert not torch.isfinite(loss)
    assert all(torch.equal(a, b) for a, b in zip(before, all_tensors(state), strict=True))
    assert torch.isfinite(train_step(state, batch, 1e-3, 0.9))
    assert not any(torch.equal(a, b) for a, b in zip(before, all_tensors(state), strict=True) if a.ndim == 4)


def test_one_bad_step_is_skipped_and_noted_with_its_patches(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    end = stages.trainer(tmp_path, stages.FINETUNE, nan_loader(3, 5)).run()
    assert end.step == 12
    assert torch.isfinite(torch.tensor(list(end.metrics.values()))).all()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    assert [row["step"] for row in skipped] == [4, 6]
    assert len(skipped[0]["patches"]) == 8
    assert all(name.startswith("patch") for name in skipped[0]["patches"])
    assert "step 4 is skipped" in messages.text


def test_a_few_in_a_row_stop_with_step_rate_and_patches_and_the_last_good_checkpoint_stays(
    tmp_path: Path,
) -> None:
    every = ComputeConfig(checkpoint_steps=4)
    broken = stages.trainer(tmp_path, stages.FINETUNE, nan_loader(4, 5, 6), every)
    with pytest.raises(DivergenceError, match=r"diverged at step 7 of 12: 3 steps in a row .* at lr 0\.00.*patch\d+, "):
        broken.run()
    broken.checkpoints.wait()
    assert (
        read_checkpoint_metadata(tmp_path / LATEST)["step"] == 6
    )  # of the epoch's end: weights as they were after step 4
    again = stages.trainer(tmp_path, stages.FINETUNE, nan_loader(4, 5, 6), every).resume()
    assert all(torch.isfinite(tensor).all() for tensor in all_tensors(again.state))
    with pytest.raises(DivergenceError, match="diverged at step 7"):
        again.run()


def limit_memory(network: PatchNetwork, max_patches: int, error: type[BaseException] = torch.OutOfMemoryError) -> None:
    """Have the body refuse more patches at a time."""
    body = network.body.forward

    def forward(images: Tensor) -> Tensor:
        if len(images) > max_patches:
            raise error("can't allocate memory")
        result: Tensor = body(images)
        return result

    network.body.forward = forward  # type: ignore[method-assign]


def gradients_of(stage: Stage, max_patches: int, fixed_batchnorm: bool) -> dict[str, Tensor]:
    network, loader = stage.prepare(stages.new_network("resnet18")).train(), stages.small_loader()
    if fixed_batchnorm:
        for layer in network.modules():
            if isinstance(layer, BATCHNORMS):
                layer.eval()
    limit_memory(network, max_patches)
    state = create_train_state(network, stage.lr_multipliers, loader.device, ComputeConfig(precision="fp32"))
    train_step(state, stages.batch(loader, network, KEY), 0.0, 0.9)
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


FIXED = stages.FROZEN.model_copy(update={"config": stages.FROZEN.config.model_copy(update={"batchnorm": "fixed"})})


@pytest.mark.parametrize(
    ("stage", "fixed_batchnorm"), [(FIXED, False), (stages.FINETUNE, True)], ids=["fixed", "finetune"]
)
def test_where_memory_is_short_microbatches_give_the_same_gradients(
    stage: Stage, fixed_batchnorm: bool, messages: pytest.LogCaptureFixture
) -> None:
    whole = gradients_of(stage, 8, fixed_batchnorm)
    assert messages.text == ""
    microbatched = gradients_of(stage, 2, fixed_batchnorm)
    assert "a batch of 8 is computed 4 patches at a time" in messages.text
    assert "a batch of 8 is computed 2 patches at a time" in messages.text
    assert ("BatchNorm sees 2 patches at a time" in messages.text) == (stage is stages.FINETUNE)
    assert whole.keys() == microbatched.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, microbatched[name], rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), name


def test_microbatches_are_part_of_the_checkpoint_and_batchnorm_moves_as_far(tmp_path: Path) -> None:
    begun = stages.trainer(tmp_path, stages.FINETUNE)
    limit_memory(begun.state.network, 4)
    begun.step()
    begun.checkpoint()
    begun.checkpoints.wait()
    resumed = stages.trainer(tmp_path, stages.FINETUNE).resume()
    assert resumed.state.network.microbatches == 2
    layer = next(layer for layer in resumed.state.network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert layer.momentum is not None
    assert (1 - layer.momentum) ** 2 == pytest.approx(0.9)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN Frontend error: No valid execution plans built."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:40]}",
)
@pytest.mark.parametrize("method", ["gather", "augment", "forward"])
def test_each_way_of_running_out_of_memory_halves_the_microbatch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, method: str
) -> None:
    trainer = stages.trainer(tmp_path, stages.FINETUNE, arch="resnet18")
    errors, released = [error], list[str]()
    target = trainer.state.network.body if method == "forward" else PatchLoader
    original = getattr(target, method)

    def fail_once(*args: Any, **keys: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(*args, **keys)

    monkeypatch.setattr(target, method, fail_once)
    monkeypatch.setattr(gradients, "release_memory", lambda device: released.append(device.type))
    trainer.step()
    trainer.batches.close()
    assert (trainer.state.step, trainer.state.network.microbatches, released) == (1, 2, ["cpu"])


def test_another_error_is_not_taken_for_short_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = stages.trainer(tmp_path, stages.FINETUNE, arch="resnet18")

    def fail(*_args: Any, **_keys: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(PatchLoader, "augment", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trainer.step()
    trainer.batches.close()


def test_two_patches_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    hopeless = stages.trainer(tmp_path, stages.FINETUNE)
    limit_memory(hopeless.state.network, 1)
    with pytest.raises(DeviceMemoryError, match="not even 2 patches at a time fit into memory"):
        hopeless.run()
