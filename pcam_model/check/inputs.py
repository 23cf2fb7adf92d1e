"""Checks of the source of patches and of the initial weights."""

import urllib.request
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.errors import PcamError
from pcam_model.data.layouts import find_layout
from pcam_model.training.weights import CONNECT_TIMEOUT_S, imagenet_file


def check_source(config: TrainConfig) -> Finding:
    """Whether a source on this machine exists and can be opened; downloads are not checked here."""
    what, expected = "source", "images with labels, PCam's HDF5 or parquet shards"
    path = Path(config.source.path).expanduser()
    if config.source.kind != "path" or config.source.is_remote:
        return Finding(what=what, found=config.source.path or config.source.kind, expected=expected)
    if not config.source.path:
        remedy = "give the path of a .zip or a folder with --source or source.path"
        return Finding(what=what, found="source.path is empty", expected=expected, remedy=remedy, level="failed")
    try:
        find_layout(path)
    except PcamError as error:
        return Finding(what=what, found=str(error), expected=expected, remedy="correct source.path", level="failed")
    return Finding(what=what, found=str(path), expected=expected)


def check_weights(config: TrainConfig) -> Finding:
    """Whether the initial weights are on this machine, or can be downloaded."""
    weights, what = config.model.weights, "initial weights"
    if weights == "none":
        return Finding(what=what, found="none: random initialisation", expected="none")
    if weights == "imagenet":
        return _check_imagenet(config.model.arch, what)
    if Path(weights).expanduser().is_file():
        return Finding(what=what, found=weights, expected="a state dict")
    return Finding(
        what=what, found=f"no file {weights}", expected="a state dict", remedy="correct model.weights", level="failed"
    )


def _check_imagenet(arch: str, what: str) -> Finding:
    expected = "torchvision's ImageNet weights"
    url, cached = imagenet_file(arch)
    if cached.is_file():
        return Finding(what=what, found=str(cached), expected=expected)
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - an https address of torchvision's
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S):  # noqa: S310
            return Finding(what=what, found=f"not downloaded yet, {url} answers", expected=expected)
    except OSError as error:
        return Finding(
            what=what,
            found=f"not downloaded, and {url} does not answer ({error})",
            expected=expected,
            remedy=f"connect this machine, or put the file into {cached.parent}, or set model.weights to a file",
            level="failed",
        )
