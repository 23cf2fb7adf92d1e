"""Checks of the source of patches and of the initial weights."""

import urllib.request
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.errors import PcamError, UnwritableError
from pcam_model.core.write_guard import require_writable
from pcam_model.data.layouts import find_layout
from pcam_model.data.source import SourceConfig
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.bucket_source import find_objects
from pcam_model.slides.annotated_slides import find_annotated
from pcam_model.training.network import PatchNetwork
from pcam_model.training.timm_body import is_timm
from pcam_model.training.timm_weights import find_timm_weights, locate_timm_weights
from pcam_model.training.weights import CONNECT_TIMEOUT_S, imagenet_file


def check_source(config: TrainConfig) -> Finding:
    """Whether a source on this machine exists and can be opened; downloads are not checked here."""
    what, expected = "source", "images with labels, PCam's HDF5 or parquet shards"
    path = Path(config.source.path).expanduser()
    if config.source.kind == "slides":
        return _check_slides(config.source)
    if config.source.kind != "path" or config.source.is_remote:
        return Finding(what=what, found=config.source.path or config.source.kind, expected=expected)
    if config.source.is_bucket:
        return _check_bucket(config.source.path, what)
    if not config.source.path:
        remedy = "give the path of a .zip or a folder with --source or source.path"
        return Finding(what=what, found="source.path is empty", expected=expected, remedy=remedy, level="failed")
    try:
        find_layout(path)
    except PcamError as error:
        return Finding.of_error(what, error, expected, "correct source.path")
    return Finding(what=what, found=str(path), expected=expected)


def _check_slides(config: SourceConfig) -> Finding:
    what, expected = "source", "slides, each with its annotations"
    try:
        slides = find_annotated(config)
    except PcamError as error:
        return Finding.of_error(what, error, expected, "correct source.path")
    return Finding(what=what, found=f"{len(slides):,} slides in {config.path}", expected=expected)


def _check_bucket(uri: str, what: str) -> Finding:
    expected = "an object, or a prefix with objects, that these credentials may read"
    try:
        find_objects(uri, first_only=True)
    except PcamError as error:
        return Finding(
            what=what,
            found=str(error),
            expected=expected,
            remedy="correct source.path, or set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            level="failed",
            transient=isinstance(error, StoreUnavailable),
        )
    return Finding(what=what, found=uri, expected=expected)


def check_network(config: TrainConfig) -> Finding:
    """Whether there is such a network, and it takes images of every size of the training."""
    model, what, expected = config.model, "network", "a body of torchvision or timm that takes the images"
    found = f"{model.arch} at {model.image_size} pixels"
    if is_timm(model.arch):
        try:
            network = PatchNetwork(model.arch, model.image_size)
            network.check_image_sizes(config.finetune.progressive_sizes)
        except PcamError as error:
            return Finding.of_error(what, error, expected)
    return Finding(what=what, found=found, expected=expected)


def check_weights(config: TrainConfig) -> Finding:
    """Whether the initial weights are on this machine, or can be downloaded."""
    weights, what = config.model.weights, "initial weights"
    if weights == "none":
        return Finding(what=what, found="none: random initialisation", expected="none")
    if weights == "imagenet" and is_timm(config.model.arch):
        return _check_timm(config.model.arch, what)
    if weights == "imagenet":
        return _check_imagenet(config.model.arch, what)
    if Path(weights).expanduser().is_file():
        return Finding(what=what, found=weights, expected="a state dict")
    return Finding(
        what=what, found=f"no file {weights}", expected="a state dict", remedy="correct model.weights", level="failed"
    )


def _check_timm(arch: str, what: str) -> Finding:
    expected = "timm's pretrained weights, under a licence that allows their use"
    try:
        weights = find_timm_weights(arch)
        path = locate_timm_weights(weights)
    except PcamError as error:
        return Finding.of_error(what, error, expected)
    found = f"{weights.summary}, {path or 'not downloaded yet'}"
    if weights.is_permissive:
        return Finding(what=what, found=found, expected=expected)
    remedy = "make sure that you may use them so"
    return Finding(what=what, found=found, expected=expected, remedy=remedy, level="warning")


def _check_imagenet(arch: str, what: str) -> Finding:
    expected = "torchvision's ImageNet weights"
    url, cached = imagenet_file(arch)
    if cached.is_file():
        return Finding(what=what, found=str(cached), expected=expected)
    try:
        require_writable(cached.parent.absolute(), "TORCH_HOME")
    except UnwritableError as error:
        return Finding.of_error(what, error, expected)
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
