"""What the plan wants from elsewhere: its source, and its first weights."""

import urllib.request
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.data.container import open_container
from pcam_model.data.official_files import holds_official
from pcam_model.core.errors import PcamError
from pcam_model.config import TrainPlan
from pcam_model.training.weights import PATIENCE, imagenet_file


def source(plan: TrainPlan) -> Finding:
    """Whether a source that lies here is here and can be opened; a download is the pipeline's to look after."""
    what, expected = "source", "a .zip or a folder in Kaggle's layout, or PCam's HDF5"
    path = Path(plan.source.path).expanduser()
    if plan.source.kind != "path" or plan.source.remote:
        return Finding(what=what, found=plan.source.path or plan.source.kind, expected=expected)
    try:
        if not plan.source.path or not holds_official(path):
            open_container(path).close()
    except PcamError as error:
        return Finding(what=what, found=str(error), expected=expected, todo="mend source.path", level="failed")
    return Finding(what=what, found=str(path), expected=expected)


def weights(plan: TrainPlan) -> Finding:
    """Whether the first weights are here, or can be had."""
    asked, what = plan.network.weights, "first weights"
    if asked == "none":
        return Finding(what=what, found="none: the network starts from nothing", expected="none")
    if asked != "imagenet":
        here = Path(asked).expanduser().is_file()
        return Finding(what=what, found=asked if here else f"no file {asked}", expected="a state dict",
                       todo="" if here else "mend network.weights", level="fine" if here else "failed")  # fmt: skip
    url, cached = imagenet_file(plan.network.name)
    if cached.is_file():
        return Finding(what=what, found=str(cached), expected="torchvision's ImageNet weights")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return Finding(what=what, found=f"not here yet, {url} answers", expected="torchvision's ImageNet weights")
    except OSError as error:
        return Finding(what=what, found=f"not here, and {url} does not answer ({error})", level="failed",
                       expected="torchvision's ImageNet weights",
                       todo=f"connect this machine, or put the file into {cached.parent}, or set network.weights to "
                       "a file")  # fmt: skip
