"""What only a GPU can tell: whether training on it is right, and how fast it is beside a bare loop.

    python -m benchmarks.gpu [--only SECTION ...] [--scale 1] [--name gpu]

Takes ten minutes on an H200, and writes benchmarks/results/NAME.json after each section. A section that fails is
written with its error, and the others run. Needs torch (2.11 or later), torchvision and pcam's own dependencies, no
Prefect and no installation. `--scale 0` runs every section in its smallest form, on a CPU too.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import gpu_checks, gpu_speed
from benchmarks.machine import RESULTS, write_result
from pcam_model.training.device import autocast_dtype, best_device
from pcam_model.training.model_io import versions

Section = Callable[[float], dict[str, Any]]
SECTIONS: dict[str, Section] = {
    "no_waiting": gpu_checks.no_waiting,
    "same_bits": gpu_checks.same_bits,
    "out_of_memory": gpu_checks.out_of_memory,
    "skipped_step": gpu_checks.skipped_step,
    "streamed": gpu_checks.streamed,
    "onnx": gpu_checks.onnx,
    "trace": gpu_speed.trace,
    "resnet50_224": partial(gpu_speed.rates, "resnet50", 224, (256, 64, 512)),
    "mobilenet_v2_96": partial(gpu_speed.rates, "mobilenet_v2", 96, (512, 64)),
    "resnet50_96": partial(gpu_speed.rates, "resnet50", 96, (256, 64)),
    "frozen": gpu_speed.frozen,
    "packing": gpu_speed.packing,
    "compiled": gpu_speed.compiled,
}


def run_section(section: Section, scale: float) -> dict[str, Any]:
    """A section's figures, or its error, and its seconds."""
    start = time.perf_counter()
    try:
        figures = section(scale)
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return figures | {"seconds": round(time.perf_counter() - start, 1)}


def device_facts() -> dict[str, Any]:
    """Device, memory, dtype and CUDA's version."""
    facts: dict[str, Any] = {"dtype": str(autocast_dtype(best_device()) or torch.float32).removeprefix("torch.")}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return facts


def earlier_sections(name: str) -> dict[str, Any]:
    """Sections of an earlier result of this code on this device, which a run of some sections leaves as they are."""
    path = RESULTS / f"{name}.json"
    earlier: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if any(earlier.get(key) != value for key, value in device_facts().items()) or earlier["versions"] != versions():
        return {}
    return {section: earlier[section] for section in SECTIONS if section in earlier}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the seconds of each measurement")
    parser.add_argument("--name", default="gpu", help="of the result in benchmarks/results")
    args = parser.parse_args(argv)
    figures = device_facts() | earlier_sections(args.name)
    for name in args.only:
        figures[name] = run_section(SECTIONS[name], args.scale)
        write_result(args.name, "python -m benchmarks.gpu", figures, shown={name: figures[name]})


if __name__ == "__main__":
    main()
