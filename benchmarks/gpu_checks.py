"""Whether training on a GPU is right: no waiting, the same bits, short memory, skipped steps, the ONNX graph."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fit import network_of
from pcam_model.data.mmap_reader import MmapReader
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.training.device import ComputeConfig, best_device, set_deterministic, set_float32_precision
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.step import train_step
from pcam_model.training.trainer import Trainer

STEPS, BATCH = 12, 32
MAX_LR = 1e-3


def random_patches(count: int) -> np.ndarray:
    """uint8 (count, 96, 96, 3), darker where the row is odd."""
    patches = np.random.default_rng(0).integers(60, 256, (count, 96, 96, 3), dtype=np.uint8)
    patches[1::2] -= 60
    return patches


def loader_of(patches: np.ndarray, size: int, *, streamed: bool = False, rows: np.ndarray | None = None) -> PatchLoader:
    """A loader of `rows` of the patches, all by default; on the device, or read a batch ahead."""
    device = best_device()
    rows = np.arange(len(patches)) if rows is None else rows
    source = MmapReader(patches, device) if streamed else on_device(patches, device)
    return make_loader(source, rows, rows % 2, size, device)


def stage_of(name: str, batch: int, ema_fraction: float = 0.2) -> Stage:
    """One epoch of a stage, with the default configuration but for the mean of the weights."""
    if name == "frozen":
        return Stage(name="frozen", config=FrozenConfig(epochs=1, batch_size=batch))
    config = FinetuneConfig(epochs=1, batch_size=batch, no_warp_fraction=0, ema_fraction=ema_fraction)
    return Stage(name="finetune", config=config)


def small_trainer(folder: Path, name: str, streamed: bool = False, batch: int = BATCH, **compute: Any) -> Trainer:
    """12 steps of ResNet-18 at 64 pixels."""
    stage = stage_of(name, batch)
    patches = random_patches(STEPS * batch)
    train, valid = loader_of(patches, 64, streamed=streamed), loader_of(patches[:64], 64)
    config = ComputeConfig(checkpoint_seconds=1e9, **compute)
    network = stage.prepare(network_of("resnet18", 64))
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(network, train, valid, stage, MAX_LR, 0, folder, compute=config)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted afterwards; deterministic kernels are switched off again."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        finally:
            set_deterministic(False)


def no_waiting(_scale: float) -> dict[str, Any]:
    """Steps in which the host must not wait for the device; an error where it does."""
    figures = dict[str, Any]()
    with temporary_folder() as folder:
        for name in ("frozen", "finetune"):
            for is_captured in (False, True):
                trainer = small_trainer(folder / name / str(is_captured), name, cuda_graph=is_captured).resume()
                for _ in range(6):
                    trainer.step()
                with _errors_on_waiting():
                    for _ in range(5):
                        trainer.step()
                trainer.batches.close()
                figures[f"{name}, {'captured' if is_captured else 'eager'}"] = "5 steps without waiting"
                figures["captured"] = trainer.state.graph is not None and trainer.state.graph.graph is not None
    return figures


@contextmanager
def _errors_on_waiting() -> Iterator[None]:
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def same_bits(_scale: float) -> dict[str, Any]:
    """Whether deterministic trainings end with the same bits: twice, interrupted and resumed, eager and captured."""
    figures, digests = dict[str, Any](), dict[str, str]()
    with temporary_folder() as folder:
        for is_captured in (False, True):
            for deterministic in (True, False):
                name = f"{'captured' if is_captured else 'eager'}{'' if deterministic else ', fastest kernels'}"
                ends = [_digest(folder / name / str(k), is_captured, deterministic, stop=0) for k in range(2)]
                ends += [_digest(folder / name / f"stop{k}", is_captured, deterministic, stop=k) for k in (2, 8)]
                figures[name] = {"twice": ends[0] == ends[1], "resumed after 2 and 8": ends[0] == ends[2] == ends[3]}
                digests[name] = ends[0]
    figures["eager equals captured"] = digests["eager"] == digests["captured"]
    return figures


def _digest(folder: Path, is_captured: bool, deterministic: bool, stop: int) -> str:
    """Digest of the weights at the end; with a stop after so many steps and a new trainer that resumes."""
    options = {"cuda_graph": is_captured, "deterministic": deterministic}
    if stop:
        trainer = small_trainer(folder, "finetune", **options).resume()
        for _ in range(stop):
            trainer.step()
        trainer.checkpoint()
        trainer.checkpoints.wait()
        trainer.batches.close()
    return small_trainer(folder, "finetune", **options).run().digest


def out_of_memory(_scale: float) -> dict[str, Any]:
    """Microbatches and loss of a step whose batch does not fit into a GPU that is limited to 4 GB."""
    if not torch.cuda.is_available():
        return {"skipped": "no GPU"}
    total = torch.cuda.get_device_properties(0).total_memory
    figures = dict[str, Any]()
    with temporary_folder() as folder:
        try:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(4e9 / total)
            for name, size in (("frozen", 224), ("finetune", 224), ("finetune", 512)):
                stage = stage_of(name, 256)
                train = loader_of(random_patches(512), size)
                network = stage.prepare(network_of("resnet50", size))
                trainer = Trainer(network, train, train, stage, MAX_LR, 0, folder / f"{name}{size}").resume()
                trainer.folder.mkdir(parents=True, exist_ok=True)
                trainer.step()
                trainer.flush_losses()
                loss = trainer.metrics_log.rows()[-1]["loss"]
                figures[f"{name} at {size}"] = {"microbatches": trainer.state.network.microbatches, "loss": loss}
                trainer.batches.close()
                del trainer, network, train
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return figures


def skipped_step(_scale: float) -> dict[str, Any]:
    """Whether a step with an infinite image, once captured, leaves weights, optimizer and statistics as they were."""
    with temporary_folder() as folder:
        trainer = small_trainer(folder, "finetune").resume()
        for _ in range(6):
            trainer.step()
        state, spec = trainer.state, trainer.schedule.batch_spec(6, trainer.dist.batch_slice(BATCH))
        batch = trainer.batches.batch(spec)
        parameters = batch.parameters
        infinite = torch.full_like(parameters.brightness, torch.inf)
        bad = replace(batch, parameters=parameters._replace(brightness=infinite, contrast=torch.zeros_like(infinite)))
        before = [tensor.clone() for tensor in _tensors(trainer)]
        loss = float(train_step(state, bad, 1e-3, 0.9))
        unchanged = all(torch.equal(a, b) for a, b in zip(before, _tensors(trainer), strict=True))
        good = float(train_step(state, batch, 1e-3, 0.9))
        trainer.batches.close()
    return {"loss": str(loss), "unchanged": unchanged, "next loss is finite": bool(np.isfinite(good))}


def _tensors(trainer: Trainer) -> list[torch.Tensor]:
    state = trainer.state
    slots = [value for slots in state.optimizer.state.values() for value in slots.values()]
    averages = list(state.ema.tensors.values()) if state.ema else []
    return [*state.network.state_dict().values(), *slots, *averages]


def streamed(_scale: float) -> dict[str, Any]:
    """Whether patches read from the host a batch ahead train the same weights as patches on the device."""
    with temporary_folder() as folder:
        ends = [small_trainer(folder / str(s), "finetune", s, deterministic=True).run().digest for s in (False, True)]
    return {"streamed equals resident": ends[0] == ends[1]}


def onnx(_scale: float) -> dict[str, Any]:
    """The largest difference of a logit between torch on this device, in IEEE float32 and TF32, and onnxruntime."""
    from pcam_model.core.onnx_runtime import import_onnxruntime
    from pcam_model.data.patch_loader import normalise
    from pcam_model.training.onnx_export import export_onnx

    patches = random_patches(16)
    network = network_of("resnet50", 96).eval()
    with temporary_folder() as folder:
        export_onnx(folder / "model.onnx", network, 96, patches)
        session = import_onnxruntime("this check").InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        expected = session.run(None, {session.get_inputs()[0].name: patches})[0]
    figures = dict[str, Any]()
    for precision in ("tf32", "ieee"):
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        with torch.inference_mode():
            logits = network(normalise(torch.from_numpy(patches).to(best_device()), 96)).cpu().numpy()
        figures[precision] = float(np.abs(logits - expected).max())
    set_float32_precision()
    return figures | {"largest logit": float(np.abs(expected).max())}
