"""What a measurement was made on, and where its result goes."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from pcam_model.training.model_io import versions

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def synchronize() -> None:
    """Wait for the GPU, where there is one: its work is done, and not only asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_result(name: str, command: str, figures: dict[str, Any], shown: dict[str, Any] | None = None) -> Path:
    """Write `results/<name>.json`: the figures, the command that makes them, machine and versions; print `shown`."""
    machine = {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()}
    content = {"command": command, "machine": machine, "versions": versions(), **figures}
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(shown or figures, indent=1), flush=True)
    return path
