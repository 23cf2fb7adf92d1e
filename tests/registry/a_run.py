"""A small run with a model, as training leaves it."""

import json
from pathlib import Path

from pcam_model.registry.backends.base import Store
from pcam_model.registry.runs import PublishedRun, RunStore


def safetensors(payload: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}).encode()
    return len(header).to_bytes(8, "little") + header + payload


def model_folder(folder: Path, payload: bytes = b"weights" * 100) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(payload))
    (folder / "model.json").write_text(json.dumps({"classes": 2, "payload": payload[:20].decode("latin1")}))
    return folder


def publish_run(store: Store, folder: Path, name: str = "a", payload: bytes = b"weights" * 100) -> PublishedRun:
    run = RunStore(store, name)
    run.reserve_run({"seed": 2})
    run.commit("model", model_folder(folder / name, payload), {"made": name})
    return run.publish()
