"""What the config wants from elsewhere: its source, and its first weights."""

import urllib.request
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.errors import PcamError
from pcam_model.data.container import open_container
from pcam_model.data.official_files import holds_official
from pcam_model.training.weights import PATIENCE, imagenet_file


def source(config: TrainConfig) -> Finding:
    """Whether a source that lies here is here and can be opened; a download is the pipeline's to look after."""
    what, expected = "source", "a .zip or a folder in Kaggle's layout, or PCam's HDF5"
    path = Path(config.source.path).expanduser()
    if config.source.kind != "path" or config.source.remote:
        return Finding(what=what, found=config.source.path or config.source.kind, expected=expected)
    try:
        if not config.source.path or not holds_official(path):
            open_container(path).close()
    except PcamError as error:
        return Finding(what=what, found=str(error), expected=expected, remedy="mend source.path", level="failed")
    return Finding(what=what, found=str(path), expected=expected)


def weights(config: TrainConfig) -> Finding:
    """Whether the first weights are here, or can be had."""
    asked, what = config.model.weights, "first weights"
    if asked == "none":
        return Finding(what=what, found="none: the network starts from nothing", expected="none")
    if asked != "imagenet":
        here = Path(asked).expanduser().is_file()
        return Finding(what=what, found=asked if here else f"no file {asked}", expected="a state dict",
                       remedy="" if here else "mend model.weights", level="fine" if here else "failed")  # fmt: skip
    url, cached = imagenet_file(config.model.arch)
    if cached.is_file():
        return Finding(what=what, found=str(cached), expected="torchvision's ImageNet weights")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return Finding(what=what, found=f"not here yet, {url} answers", expected="torchvision's ImageNet weights")
    except OSError as error:
        return Finding(what=what, found=f"not here, and {url} does not answer ({error})", level="failed",
                       expected="torchvision's ImageNet weights",
                       remedy=f"connect this machine, or put the file into {cached.parent}, or set model.weights to "
                       "a file")  # fmt: skip
