"""What fuzzing_readers.py damages: small whole files, and the functions that read them."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import torch
from patch_sets import plain_tiff, some_patches
from PIL import Image
from safetensors.numpy import save as save_numpy
from torch import nn

from pcam_model.cli.runs import show
from pcam_model.config_reader import read_config
from pcam_model.core.metrics_rows import parse_metrics
from pcam_model.core.model_metadata import read_metadata
from pcam_model.data.csv_tables import read_slide_map
from pcam_model.data.hdf5 import read_labels, read_slides
from pcam_model.data.image_inputs import Images
from pcam_model.data.pack_files import Pack, load_patches, load_table, open_pack
from pcam_model.data.stain_moments import MOMENTS
from pcam_model.evaluation.drift_reference import DriftSample, read_reference, write_reference
from pcam_model.presets import preset_text
from pcam_model.registry.audit import verify
from pcam_model.registry.channels import list_channels
from pcam_model.registry.factory import open_store
from pcam_model.registry.live_sync import restore_checkpoint
from pcam_model.registry.retention import mark_run
from pcam_model.registry.run_status import read_status
from pcam_model.registry.runs import RunStore, list_runs
from pcam_model.slides.slide_labels import read_slide_labels
from pcam_model.training.checkpoint import load_weights, read_checkpoint_metadata, save_weights
from pcam_model.training.weights import load_body_weights, load_weights_file

DIGEST = "0" * 64


class Target(NamedTuple):
    """A file to damage."""

    path: Path
    read: Callable[[], object]
    """Reads it, in each way that the library does."""


def make_targets(home: Path) -> dict[str, Target]:
    """The targets by name, with their whole files below `home`."""
    makers = (_images, _hdf5, _tables, _weights, _packs, _records, _config)
    return {name: target for maker in makers for name, target in maker(home / maker.__name__[1:]).items()}


def _images(home: Path) -> dict[str, Target]:
    home.mkdir()
    patch, targets = some_patches(1)[0][0], {}
    for suffix in ("tif", "png", "jpg", "bmp", "webp"):
        path = home / f"a.{suffix}"
        Image.fromarray(patch).save(path)
        targets[f"image {suffix}"] = Target(path, _reader_of_images(path))
    (home / "plain.tif").write_bytes(plain_tiff(patch))
    return targets | {"image plain.tif": Target(home / "plain.tif", _reader_of_images(home / "plain.tif"))}


def _reader_of_images(path: Path) -> Callable[[], object]:
    def read() -> object:
        images = Images([path], path.parent)
        return [images.patch(row).shape for row in range(min(len(images), 4))]

    return read


def _hdf5(home: Path) -> dict[str, Target]:
    home.mkdir()
    pixels, labels = some_patches(4)
    targets = {}
    for name, options in {"plain": {}, "chunked": {"chunks": (2, 96, 96, 3), "compression": "gzip"}}.items():
        path = home / f"{name}_x.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=pixels, **options)
        targets[f"hdf5 {name}"] = Target(path, _reader_of_images(path))
    with h5py.File(home / "y.h5", "w") as file:
        file.create_dataset("y", data=labels.reshape(-1, 1, 1, 1))
    targets["hdf5 labels"] = Target(home / "y.h5", lambda: read_labels(home / "y.h5"))
    return targets


def _tables(home: Path) -> dict[str, Target]:
    home.mkdir()
    (home / "slides.csv").write_text("slide,label,split\na,1,test\nb,0,train\nc,tumor,valid\n")
    (home / "map.csv").write_text("id;wsi;domain\na;s1;d1\nb;s2;d2\n")
    meta = pd.DataFrame({"center_tumor_patch": [True, False], "wsi": ["s1", "s2"]})
    meta.to_csv(home / "meta.csv")
    return {
        "slide labels": Target(home / "slides.csv", lambda: read_slide_labels(home / "slides.csv")),
        "slide map": Target(home / "map.csv", lambda: read_slide_map(home / "map.csv")),
        "meta table": Target(home / "meta.csv", lambda: read_slides(home / "meta.csv", np.array([1, 0]))),
    }


def _weights(home: Path) -> dict[str, Target]:
    home.mkdir()
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    save_weights(home / "a.safetensors", network, {"identity": {"seed": 2}, "step": 3})
    torch.save({"state_dict": network.state_dict(), "epoch": 3, "args": [1, "x"]}, home / "a.pt")
    torch.save(network.state_dict(), home / "old.pth", _use_new_zipfile_serialization=False)
    draw = np.random.default_rng(0)
    moments, features = draw.random((4, len(MOMENTS)), np.float32), draw.random((4, 512), np.float32)
    sample = DriftSample(moments, features, draw.random(4), ("a",) * 4)
    write_reference(home, sample)
    (home / "foreign.safetensors").write_bytes(save_numpy({"w": np.zeros(4, np.float16)}))

    def body(path: Path) -> Callable[[], object]:
        return lambda: load_body_weights(
            nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), load_weights_file(path), "x"
        )

    def checkpoint() -> object:
        read_checkpoint_metadata(home / "a.safetensors")
        return load_weights(home / "a.safetensors", network)

    with zipfile.ZipFile(home / "a.pt") as archive:
        (home / "pickle.pth").write_bytes(archive.read("a/data.pkl"))
    (home / "plain.pth").write_bytes(pickle.dumps({"a": [1, 2.5, "x", None, (1,)], "b": {"c": b"x"}}, protocol=2))
    files = {name: home / name for name in ("a.pt", "old.pth", "pickle.pth", "plain.pth", "foreign.safetensors")}
    return {
        "checkpoint": Target(home / "a.safetensors", checkpoint),
        "drift reference": Target(home / "drift.safetensors", lambda: read_reference(home)),
        **{f"weights {name}": Target(path, body(path)) for name, path in files.items()},
    }


def _packs(home: Path) -> dict[str, Target]:
    from patch_sets import make_patch_set

    from pcam_model.data.pack import build_pack
    from pcam_model.data.source import SourceConfig, fetch

    home.mkdir()
    config = SourceConfig(kind="path", path=str(make_patch_set(6, suffix="png").zip(home / "a.zip")))
    pack: Pack = build_pack(fetch(config, 2), config, home / "packs", 2)
    folder = Path(pack.folder)
    return {
        "pack record": Target(folder / "pack.json", lambda: open_pack(folder)),
        "pack patches": Target(folder / "patches.npy", lambda: load_patches(pack)),
        "pack table": Target(folder / "patches.parquet", lambda: load_table(pack)),
    }


def _records(home: Path) -> dict[str, Target]:
    """Records in a store, each read by all that reads a store."""
    store = open_store(str(home))
    run, file = RunStore(store, "a"), {"size": 1, "sha256": DIGEST}
    move = {"run": "a", "digest": DIGEST, "kind": "promote", "time": "t", "author": "me", "token": "t"}
    figures = {"valid": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}}}
    records: dict[str, Any] = {
        "runs/a/config.json": {"config": {"finetune": {"epochs": 3}}, "environment": {"torch": "2"}},
        "runs/a/status.json": {"state": "Failed", "message": "m", "time": "t"},
        "runs/a/split/step.json": {"record": {"result": {"meaning": "m"}, "inputs": {}}, "files": {}},
        "runs/a/report/step.json": {"record": {"result": {"figures": figures}, "inputs": {}}, "files": {}},
        "runs/a/checkpoints/finetune/step.json": {"record": {"result": {"epoch": 1}, "inputs": {}}, "files": {}},
        "runs/a/checkpoints/frozen/live/live.json": {"checkpoint": "a", "metrics": ["m"], "files": {"a-1.x": file}},
        "runs/b/manifest.json": {"run": "b", "published_at": "t", "files": {"model/model.json": file}},
        "channels/champion.json": {"name": "champion", "history": [move]},
        "retention/a.json": {"state": "kept", "time": 1.0, "token": "t"},
        "datasets/d/files.json": {"digest": "d", "files": {"pack.json": file}},
    }
    for key, record in records.items():
        store.write(key, json.dumps(record).encode())
    metrics: list[dict[str, Any]] = [
        {"kind": "step", "epoch": 1, "step": 1, "loss": 0.5},
        {"kind": "epoch", "epoch": 1, "step": 1, "valid_auc": 0.9, "valid_loss": 0.4},
        {"kind": "skipped", "epoch": 1, "step": 2, "patches": [1]},
    ]
    key = "runs/a/checkpoints/finetune/metrics.jsonl"
    store.write(key, "".join(json.dumps(row) + "\n" for row in metrics).encode())

    def read() -> None:
        show("a", store.uri)
        list(list_runs(store))
        list(verify(store))
        list_channels(store)
        mark_run(store, "a")
        read_status(store, "a")
        restore_checkpoint(run, "checkpoints/frozen", home.parent / "restored")

    targets = {name.rpartition("runs/")[2]: Target(home / name, read) for name in records}
    targets["metrics"] = Target(
        home / key, lambda: (parse_metrics((home / key).read_bytes(), "m"), show("a", store.uri))
    )
    return targets


def _config(home: Path) -> dict[str, Target]:
    from pcam_model.core.model_metadata import METADATA_FILE

    home.mkdir()
    (home / "config.yaml").write_text(
        preset_text("quick") + "\nseed: 0x10\nsplit: {test: 0.1, valid: 1e-1}\nrun: '007'\n"
    )
    model = {
        "run": "a", "arch": "resnet18", "image_size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2],
        "stage": "finetune", "weights_sha256": DIGEST, "pack_digest": "", "split": "", "config": {}, "versions": {},
    }  # fmt: skip
    (home / METADATA_FILE).write_text(json.dumps(model))
    return {
        "config": Target(home / "config.yaml", lambda: read_config(home / "config.yaml")),
        "model.json": Target(home / METADATA_FILE, lambda: read_metadata(home)),
    }
