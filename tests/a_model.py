"""A small published model with random weights: real files, made without training."""

from pathlib import Path

import numpy as np
import torch
from patch_sets import some_patches
from safetensors.torch import save_file

from pcam_model.core.files import sha256
from pcam_model.core.model_metadata import ONNX_FILE, WEIGHTS_FILE, ModelMetadata
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.evaluation.drift_reference import drift_sample, write_reference
from pcam_model.registry.backends.base import Store
from pcam_model.registry.runs import PublishedRun, RunStore
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.model_io import save_model
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.onnx_export import export_onnx

SIZE = 64


def make_model(folder: Path, seed: int = 0, tta: bool = True, arch: str = "resnet18") -> ModelMetadata:
    """model.safetensors, model.json, model.onnx and drift.safetensors of a network that no training has touched."""
    network = build_network(ModelConfig(arch=arch, weights="none", image_size=SIZE), seed, quiet=True)
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "weights")
    draw = np.random.default_rng(seed)
    export_onnx(folder / ONNX_FILE, network.eval(), SIZE, draw.integers(0, 256, (8, 96, 96, 3), dtype=np.uint8))
    digest = sha256(folder / "weights")
    checkpoint = Checkpoint(
        path=str(folder / "weights"), digest=digest, stage="finetune", epoch=1, step=1, lr=0.1, metrics={}
    )
    model = ModelMetadata(
        run="made",
        arch=arch,
        image_size=SIZE,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        tta=tta,
        temperature=1.7,
        bias=0.02,
        threshold=0.45,
        stage="finetune",
        weights_sha256=digest,
        onnx_sha256=sha256(folder / ONNX_FILE),
        pack_digest="",
        split="",
        config={},
        versions={"torch": torch.__version__},
    )
    made = save_model(folder, checkpoint, model)
    patches, _ = some_patches(60, seed=1)
    write_reference(folder, drift_sample(network, patches, SIZE, model.scaling))
    (folder / "weights").unlink()
    assert sha256(folder / WEIGHTS_FILE) == digest
    return made


def publish_model(store: Store, folder: Path, name: str = "made") -> PublishedRun:
    """Publish a folder of `make_model` as a run."""
    run = RunStore(store, name)
    run.reserve_run({})
    run.commit("model", folder, {})
    return run.publish()
