"""How fast training on a GPU is: beside a bare loop, kernel launches and idle time, the compiled network, packing."""

import io
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.fit import network_of
from benchmarks.gpu_checks import MAX_LR, loader_of, random_patches, stage_of, temporary_folder
from benchmarks.machine import synchronize
from pcam_model.data.pack import build_pack
from pcam_model.data.sample import SamplePatches
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.training.device import ComputeConfig, autocast, set_deterministic
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.trainer import Trainer

KAGGLE_PATCHES = 176_020  # less the fifth that validates
SECONDS, ROUNDS, WARMUP_STEPS = 2.0, 2, 8
MAX_STEPS = 4000

Rate = Callable[[], float]


def measure_rate(step: Callable[[], object], batch: int, seconds: float) -> float:
    """Images a second of `step`, after a few that warm up; the host waits for the device every ten steps."""
    for _ in range(WARMUP_STEPS):
        step()
    synchronize()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not done:
        for _ in range(10 if seconds else 1):
            step()
            done += 1
        synchronize()
    return done * batch / (time.perf_counter() - start)


def bare_rate(
    arch: str, size: int, batch: int, seconds: float, name: str = "finetune", compiled: bool = False
) -> float:
    """Images a second of a loop of forward pass, backward pass and AdamW's step on one resident batch."""
    set_deterministic(False)
    stage = stage_of(name, batch)
    network = stage.prepare(network_of(arch, size)).train()
    optimizer = make_optimizer(network, stage.lr_multipliers)
    images, labels = loader_of(random_patches(batch), size).augmented_batch(torch.arange(batch), 0, 0)
    images = images.contiguous(memory_format=torch.channels_last)
    module = torch.compile(network, dynamic=False) if compiled else network

    def step() -> None:
        with autocast(images.device):
            logits = module(images)
        functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return measure_rate(step, batch, seconds)


def trainer_rate(
    arch: str, size: int, batch: int, seconds: float, name: str = "finetune", ema_fraction: float = 0.2, **compute: Any
) -> float:
    """Images a second of `Trainer.step`, data path and mean of the weights included."""
    stage = stage_of(name, batch, ema_fraction)
    patches = random_patches(min(8192, 16 * batch))
    rows = np.arange(MAX_STEPS * batch if seconds else 16 * batch) % len(patches)
    with tempfile.TemporaryDirectory() as folder:
        network = stage.prepare(network_of(arch, size))
        train, config = loader_of(patches, size, rows=rows), ComputeConfig(checkpoint_seconds=1e9, **compute)
        trainer = Trainer(network, train, train, stage, MAX_LR, 0, Path(folder), compute=config).resume()
        rate = measure_rate(trainer.step, batch, seconds)
        trainer.batches.close()
    return rate


def interleaved(measurements: dict[str, Rate], rounds: int) -> dict[str, Any]:
    """Images a second of each, median of rounds that take turns, and its ratio to the first; errors as text."""
    values, errors = {name: list[float]() for name in measurements}, dict[str, str]()
    for _ in range(rounds):
        for name, measure in measurements.items():
            if name not in errors:
                try:
                    values[name].append(measure())
                except RuntimeError as error:
                    errors[name] = str(error).splitlines()[0][:200]
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    rates = {name: round(median(each), 1) for name, each in values.items() if each}
    first = next(iter(rates.values()))
    return {"images_per_second": rates, "of_the_first": {name: round(r / first, 3) for name, r in rates.items()}} | (
        {"errors": errors} if errors else {}
    )


def rates(arch: str, size: int, batches: tuple[int, ...], scale: float) -> dict[str, Any]:
    """Fine-tuning beside the bare loop, at several batch sizes."""
    if not scale:
        return {"batch 4": rates_beside_bare("resnet18", 32, 4, 0.0, 1)}
    return {f"batch {batch}": rates_beside_bare(arch, size, batch, SECONDS * scale, ROUNDS) for batch in batches}


def rates_beside_bare(arch: str, size: int, batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    """The trainer beside the bare loop: captured or not, with and without the mean of the weights."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    measured = interleaved(
        {
            "bare loop": lambda: bare_rate(arch, size, batch, seconds),
            "trainer": lambda: trainer_rate(arch, size, batch, seconds),
            "trainer, no mean": lambda: trainer_rate(arch, size, batch, seconds, ema_fraction=0),
            "trainer, not captured": lambda: trainer_rate(arch, size, batch, seconds, cuda_graph=False),
        },
        rounds,
    )
    rate = measured["images_per_second"].get("trainer", 0)
    measured["epoch_of_kaggle_s"] = round(KAGGLE_PATCHES / rate, 1) if rate else None
    if torch.cuda.is_available():
        measured["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return measured


def frozen(scale: float) -> dict[str, Any]:
    """Frozen training beside its bare loop, ResNet-50 at 224 pixels, batch 256."""
    size, batch, arch, seconds = (224, 256, "resnet50", SECONDS * scale) if scale else (32, 4, "resnet18", 0.0)
    return interleaved(
        {
            "bare loop": lambda: bare_rate(arch, size, batch, seconds, "frozen"),
            "trainer": lambda: trainer_rate(arch, size, batch, seconds, "frozen"),
            "trainer, not captured": lambda: trainer_rate(arch, size, batch, seconds, "frozen", cuda_graph=False),
        },
        ROUNDS if scale else 1,
    )


def compiled(scale: float) -> dict[str, Any]:
    """The compiled network beside the bare loop, both compiled and not, ResNet-50 at 224 pixels, batch 256."""
    if not torch.cuda.is_available():
        return {"skipped": "no GPU"}
    seconds = SECONDS * scale
    return interleaved(
        {
            "bare loop": lambda: bare_rate("resnet50", 224, 256, seconds),
            "bare loop, compiled": lambda: bare_rate("resnet50", 224, 256, seconds, compiled=True),
            "trainer, compiled": lambda: trainer_rate("resnet50", 224, 256, seconds, compile=True),
        },
        1,
    )


def trace(scale: float) -> dict[str, Any]:
    """Launches a step, and the share of the time in which no kernel runs, from PyTorch's profiler."""
    figures = dict[str, Any]()
    cases = (("resnet50", 224, 256), ("mobilenet_v2", 96, 64)) if scale else (("resnet18", 32, 4),)
    for arch, size, batch in cases:
        for is_captured in (False, True):
            name = f"{arch} at {size}, batch {batch}, {'captured' if is_captured else 'eager'}"
            figures[name] = _traced(arch, size, batch, is_captured)
    return figures


def _traced(arch: str, size: int, batch: int, is_captured: bool, steps: int = 5) -> dict[str, Any]:
    stage = stage_of("finetune", batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with temporary_folder() as folder:
        network, train = stage.prepare(network_of(arch, size)), loader_of(random_patches(32 * batch), size)
        config = ComputeConfig(checkpoint_seconds=1e9, cuda_graph=is_captured)
        trainer = Trainer(network, train, train, stage, MAX_LR, 0, folder, compute=config).resume()
        for _ in range(WARMUP_STEPS):
            trainer.step()
        synchronize()
        with torch.profiler.profile(activities=activities) as profile:
            start = time.perf_counter()
            for _ in range(steps):
                trainer.step()
            host = time.perf_counter() - start
            synchronize()
            wall = time.perf_counter() - start
        trainer.batches.close()
    events = profile.events() or []
    kernels = [event for event in events if str(event.device_type).endswith("CUDA")]
    launches = [event for event in events if "LaunchKernel" in event.name or "GraphLaunch" in event.name]
    copies = [event for event in events if event.name.startswith(("cudaMemcpy", "cuMemcpy"))]
    busy = sum(event.device_time_total for event in kernels) / 1e6
    totals = dict[str, float]()
    for event in kernels:
        totals[event.name[:80]] = totals.get(event.name[:80], 0) + event.device_time_total / 1e3 / steps
    longest = sorted(totals.items(), key=lambda item: -item[1])[:12]
    return {
        "launches_a_step": len(launches) / steps,
        "copies_a_step": len(copies) / steps,
        "kernels_a_step": len(kernels) / steps,
        "step_ms": round(1000 * wall / steps, 2),
        "host_ms": round(1000 * host / steps, 2),
        "idle": round(max(0.0, 1 - busy / wall), 3) if kernels else None,
        "longest_kernels_ms": {name: round(value, 3) for name, value in longest},
    }


def packing(scale: float) -> dict[str, Any]:
    """Patches a second of packing an archive in Kaggle's file format with all cores, median of rounds."""
    count, rounds = (20_000, 5) if scale else (12, 1)
    with tempfile.TemporaryDirectory() as folder:
        archive, rates = Path(folder) / "kaggle.zip", list[float]()
        write_archive(archive, count)
        config = SourceConfig(kind="path", path=str(archive))
        for number in range(rounds):
            source, start = fetch(config, 0), time.perf_counter()
            build_pack(source, config, Path(folder) / f"packs{number}", 0)
            rates.append(count / (time.perf_counter() - start))
    return {
        "patches_per_second": round(median(rates)),
        "rounds": [round(rate) for rate in rates],
        "cores": os.cpu_count(),
        "patches": count,
    }


def write_archive(path: Path, count: int) -> None:
    """An archive in the layout and file format of Kaggle's, of generated patches with a little noise."""
    sample, rng = SamplePatches(min(count, 200), 0), np.random.default_rng(0)
    drawn = [sample.patch(row) for row in range(len(sample.table))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        lines = ["id,label"]
        for index in range(count):
            buffer, patch = io.BytesIO(), drawn[index % len(drawn)]
            Image.fromarray(patch ^ rng.integers(0, 4, patch.shape, dtype=np.uint8)).save(buffer, "TIFF")
            archive.writestr(f"train/{index:040x}.tif", buffer.getvalue())
            lines.append(f"{index:040x},{index % 2}")
        archive.writestr("train_labels.csv", "\n".join(lines) + "\n")
