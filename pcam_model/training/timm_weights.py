"""The pretrained weights of timm's networks: where they are, and under which licence they may be used."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pcam_model.core.errors import WeightsError, first_line
from pcam_model.core.log import log
from pcam_model.core.write_guard import write_guard
from pcam_model.training.timm_body import TIMM, import_timm, timm_name

PERMISSIVE = re.compile(r"apache-2\.0|mit|bsd(-\d-clause)?|cc0(-1\.0)?|cc-by-\d\.\d")
RESTRICTED = (
    "The weights %s have the licence %s: whether you may train with them, publish or use what comes of it is for you "
    "to find out, on https://huggingface.co/%s"
)
FILE = "model.safetensors"
CONNECT_TIMEOUT_S = 10.0  # without an answer


@dataclass(frozen=True)
class TimmWeights:
    """Pretrained weights of a network, before anything is downloaded."""

    arch: str
    """As it was configured."""
    tag: str
    """timm's name of the weights; the network's default where none was configured."""
    repository: str
    """On Hugging Face."""
    licence: str
    """As timm states it; "unknown" where it does not."""

    @property
    def is_permissive(self) -> bool:
        """Whether the licence allows any use; that of others is for their user to judge."""
        return PERMISSIVE.fullmatch(self.licence) is not None

    @property
    def summary(self) -> str:
        """Repository and licence, for people."""
        return f"{self.repository} of Hugging Face, licence {self.licence}"


def find_timm_weights(arch: str) -> TimmWeights:
    """The pretrained weights that `model.weights=imagenet` means for a network of timm; contacts nobody.

    Raises:
        WeightsError: there are none, or their licence restricts their use and they were not asked for by their tag.
    """
    timm, name = import_timm(arch), timm_name(arch)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        address = f"; download {config.url}, and give its path" if config is not None and config.url else ""
        raise WeightsError(
            f"model.weights=imagenet: timm has no weights of {arch} on Hugging Face{address}; set model.weights to a "
            "file, or to none"
        )
    licence = (config.license or "unknown").lower()
    weights = TimmWeights(arch, config.tag or "", config.hf_hub_id, licence)
    if not weights.is_permissive and "." not in name:
        raise WeightsError(
            f"model.weights=imagenet: the weights {weights.repository} of {arch} have the licence {licence}, which may "
            f"forbid your use; read https://huggingface.co/{weights.repository}, and ask for them by name with "
            f"model.arch={TIMM}{name}.{weights.tag}, or set model.weights to a file, or to none"
        )
    return weights


def locate_timm_weights(weights: TimmWeights) -> Path | None:
    """The weights in Hugging Face's cache on this machine; None where they are not there, but can be downloaded.

    Raises:
        WeightsError: they are not in the cache and the repository is gated, has no such file or does not answer.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    cached = huggingface_hub.try_to_load_from_cache(weights.repository, FILE)
    if isinstance(cached, str):
        return Path(cached)
    url = huggingface_hub.hf_hub_url(weights.repository, FILE)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_TIMEOUT_S, token=huggingface_hub.get_token())
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise WeightsError(
            f"model.weights=imagenet: {weights.repository} is gated or private (licence {weights.licence}), and this "
            f"machine may not read it; accept its terms on https://huggingface.co/{weights.repository} and set "
            "HF_TOKEN, or give the file that you got with model.weights=PATH"
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"model.weights=imagenet: {weights.repository} has no {FILE}; download its weights, and give their path "
            "with model.weights=PATH"
        ) from error
    except Exception as error:  # httpx's, which are no OSError
        raise WeightsError(_unreachable_message(weights, url, error)) from error
    return None


def load_timm_weights(arch: str) -> dict[str, Tensor]:
    """Pretrained weights by the names of timm's network, from Hugging Face's cache or downloaded.

    Raises:
        WeightsError: see `find_timm_weights` and `locate_timm_weights`.
        UnwritableError: the cache cannot be written to.
    """
    weights = find_timm_weights(arch)
    path = locate_timm_weights(weights) or _download(weights)
    timm = import_timm(arch)
    try:
        network = timm.create_model(
            timm_name(arch),
            pretrained=True,
            num_classes=0,
            in_chans=3,
            pretrained_cfg_overlay={"file": str(path), "custom_load": False},
        )
    except Exception as error:
        raise WeightsError(
            f"model.weights=imagenet: {path} is damaged, or not of {arch} ({first_line(error)}); delete it, and it is "
            "downloaded again, or give a file with model.weights=PATH"
        ) from error
    log.info("%s starts from %s", arch, weights.summary)
    if not weights.is_permissive:
        log.warning(RESTRICTED, weights.repository, weights.licence, weights.repository)
    return dict(network.state_dict())


def _download(weights: TimmWeights) -> Path:
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        with write_guard(Path(HF_HUB_CACHE), "HF_HOME"):
            return Path(huggingface_hub.hf_hub_download(weights.repository, FILE))
    except OSError as error:
        raise WeightsError(
            _unreachable_message(weights, huggingface_hub.hf_hub_url(weights.repository, FILE), error)
        ) from error


def _unreachable_message(weights: TimmWeights, url: str, error: Exception) -> str:
    return (
        f"model.weights=imagenet: {weights.repository} is not in Hugging Face's cache and {url} could not be "
        f"downloaded ({first_line(error)}); connect this machine, or give the file with model.weights=PATH, or set "
        "model.weights to none"
    )
