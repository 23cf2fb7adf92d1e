"""Training steps on fake tensors of the device cuda, which find mixed devices, reads of the device and launches."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stages
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import pcam_model
from pcam_model.core.rng import StepKey
from pcam_model.data import augment, patch_loader, stain
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import make_loader
from pcam_model.training.batch import BatchSource, BatchSpec, TrainBatch
from pcam_model.training.device import ComputeConfig
from pcam_model.training.gradients import compute_gradients
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.stage import Stage
from pcam_model.training.step import compute_loss, train_step
from pcam_model.training.train_state import TrainState, create_train_state

GPU = torch.device("cuda:0")
POSITIONS, VIEW_CONFIG = torch.arange(8), ViewConfig(stages.SIZE, stain_jitter=0.1)
CONSTANTS = (
    augment._logit_levels,
    augment._table_offsets,
    augment._pixel_centres,
    stain._density_levels,
    patch_loader._imagenet_statistics,
)
# Calls of the dispatcher that launch nothing on a GPU.
FREE = re.compile(
    r"aten\.(view|detach|slice|empty|permute|unsqueeze|select|split|split_with_sizes|unbind|expand|t)\.|prim|profiler|alias"
)
READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")

Fake = Callable[[Stage], tuple[TrainState, TrainBatch]]


class OpCounter(TorchDispatchMode):
    """Counts the operators of a block by name, and refuses those that read the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), str(func)
        assert not any(read in name for read in READS), f"{name} waits for the device"
        if isinstance(result, torch.Tensor) and result.device.type == "cpu" and _is_on_gpu(args):
            raise AssertionError(f"{name} copies from the device")
        if not FREE.match(name):
            self.calls[name] += 1
        return result


def _is_on_gpu(args: Any) -> bool:
    return any(isinstance(value, torch.Tensor) and value.device.type == "cuda" for value in args)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Makes the state and the first batch of a stage on a fake GPU; a backward pass makes empty gradients.

    Autograd's engine wants a real device, so its own kernels are left out.
    """

    def make(stage: Stage) -> tuple[TrainState, TrainBatch]:
        network = stage.prepare(build_network(ModelConfig(arch="resnet50", weights="none"), 0, quiet=True))
        context.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        network = network.to(GPU)
        patches = torch.empty(64, 96, 96, 3, dtype=torch.uint8, device=GPU)
        loader = make_loader(patches, np.arange(64), np.arange(64) % 2, stages.SIZE, GPU)
        compute = ComputeConfig(precision="fp32", cuda_graph=False)  # a capture needs the real one
        ema = stage.make_ema(network, 10)
        state = create_train_state(network.train(), stage.lr_multipliers, GPU, compute, ema)

        def backward(_loss: torch.Tensor) -> None:
            for parameter in state.parameters():
                parameter.grad = torch.empty_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        spec = BatchSpec.whole(POSITIONS, StepKey(0, stage.number, 0, 0), VIEW_CONFIG)
        source = BatchSource(loader, network)
        batch = source.batch(spec)
        source.close()
        train_step(state, batch, 1e-3, 0.9)  # AdamW makes its state, and constants go to the device
        return state, batch

    for constant in CONSTANTS:
        constant.cache_clear()
    with ExitStack() as context:
        yield make
    for constant in CONSTANTS:
        constant.cache_clear()


@pytest.mark.parametrize(
    "stage", [stages.FROZEN, stages.frozen(batchnorm="fixed"), stages.FINETUNE], ids=["frozen", "fixed", "finetune"]
)
def test_a_step_neither_mixes_devices_nor_waits(fake_gpu: Fake, stage: Stage) -> None:
    state, batch = fake_gpu(stage)
    with OpCounter() as counter:
        loss = train_step(state, batch, 1e-3, 0.9, label_smoothing=0.1, max_grad_norm=1.0)
    assert loss.device == GPU
    assert state.step == 2
    assert counter.calls["aten._fused_adamw_.default"] > 0


def test_the_losses_of_a_search_neither_mix_devices_nor_wait(fake_gpu: Fake) -> None:
    state, batch = fake_gpu(stages.FROZEN)
    with OpCounter(), torch.no_grad():
        assert compute_loss(state.network, batch, precision=state.precision).device == GPU


def test_launches_beside_the_network_stay_within_their_budgets(fake_gpu: Fake) -> None:
    state, batch = fake_gpu(stages.FINETUNE)
    assert state.ema is not None
    gradients = compute_gradients(state, batch, 0.0)
    phases: dict[str, Callable[[], object]] = {
        "augmentation": lambda: batch.images(batch.patches(), slice(0, 8)),
        "statistics": lambda: state.batchnorm.restore(state.batchnorm.snapshot(), gradients.found_inf),
        "mean of the weights": lambda: state.ema.update(2, gradients.found_inf) if state.ema else None,
        "optimizer": state.optimizer.step,
    }
    launches = dict[str, int]()
    for name, phase in phases.items():
        with OpCounter() as counter:
            phase()
        launches[name] = counter.calls.total()
    assert launches["augmentation"] <= 26, launches  # with stain jitter
    assert launches["statistics"] <= 8, launches
    assert launches["mean of the weights"] <= 6, launches
    assert launches["optimizer"] <= 18, launches


def test_a_steps_random_numbers_are_one_copy(fake_gpu: Fake) -> None:
    state, _ = fake_gpu(stages.FINETUNE)
    patches = torch.empty(64, 96, 96, 3, dtype=torch.uint8, device=GPU)
    loader = make_loader(patches, np.arange(64), np.arange(64) % 2, stages.SIZE, GPU)
    source, spec = BatchSource(loader, state.network), BatchSpec.whole(POSITIONS, StepKey(0, 2, 0, 1), VIEW_CONFIG)
    with OpCounter() as counter:
        source.batch(spec)
    source.close()
    assert counter.calls["aten._to_copy.default"] == 1
    assert counter.calls.total() == 1


@pytest.mark.parametrize("bad", ["a number is read", "a tensor is on the host"])
def test_the_check_finds_what_it_looks_for(fake_gpu: Fake, bad: str) -> None:
    state, _ = fake_gpu(stages.FROZEN)
    weight = next(state.network.parameters())
    with pytest.raises((AssertionError, RuntimeError)), OpCounter():
        _ = weight.sum().cpu() if bad == "a number is read" else weight + torch.ones_like(weight, device="cpu")


def test_the_optimizer_is_the_fused_one() -> None:
    optimizer = make_optimizer(stages.FINETUNE.prepare(stages.new_network("resnet18")), [1.0, 1.0, 1.0])
    assert all(group["fused"] for group in optimizer.param_groups)


STEP_FILES = ("batch", "cuda_graph", "ema", "gradients", "nan_guard", "step", "layers", "optimizer")
WAITS = re.compile(r"\.item\(\)|\.cpu\(\)|\.tolist\(\)|nonzero|\.numpy\(\)|(?<![.\w])(float|int|bool)\(")
ALLOWED = {"float(weight)", "drawn.numpy()", "float(ratio"}  # on the host, all of them


def test_no_line_of_a_step_reads_the_device() -> None:
    folder = Path(pcam_model.__file__).parent
    files = [folder / "training" / f"{name}.py" for name in STEP_FILES]
    files += [folder / "data" / "augment.py", folder / "data" / "stain.py"]
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if WAITS.search(line) and not any(allowed in line for allowed in ALLOWED)
    ]
    assert found == []
