"""Weights of timm's networks: from files, under which licence, and what is said where they cannot be had."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pcam_model.check.inputs import check_network, check_weights
from pcam_model.config_reader import read_config
from pcam_model.core.errors import WeightsError
from pcam_model.training import timm_weights
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network, describe_weights, weights_identity
from pcam_model.training.timm_weights import find_timm_weights, load_timm_weights, locate_timm_weights

timm = pytest.importorskip("timm", reason="pip install 'pcam[timm]' was not done")
ARCH = "timm:test_vit"


def config(weights: object, arch: str = ARCH, image_size: int = 64) -> ModelConfig:
    return ModelConfig.model_validate({"arch": arch, "weights": str(weights), "image_size": image_size})


def build(weights: object, arch: str = ARCH, image_size: int = 64) -> PatchNetwork:
    return build_network(config(weights, arch, image_size), 1)


def refusal(weights: object, arch: str = ARCH) -> str:
    with pytest.raises(WeightsError) as caught:
        build(weights, arch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def licence(monkeypatch: pytest.MonkeyPatch) -> Any:
    """licence("cc-by-nc-4.0"): timm says so of all pretrained weights."""
    get = timm.get_pretrained_cfg

    def set_to(name: str | None) -> None:
        monkeypatch.setattr(timm, "get_pretrained_cfg", lambda *a, **k: dataclasses.replace(get(*a, **k), license=name))

    return set_to


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the network, with its head, in a stand-in for Hugging Face's cache."""
    import huggingface_hub

    torch.manual_seed(7)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "model.safetensors")
    path = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: path)
    return tmp_path / "model.safetensors"


def test_a_state_dict_of_timm_is_loaded_and_its_positions_are_resampled(
    tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_vit").state_dict()
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    body = build(tmp_path / "w.pth").body.net
    assert torch.equal(body.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])  # type: ignore
    assert state["pos_embed"].shape[1] > body.pos_embed.shape[1] == 1 + 4 * 4  # type: ignore
    assert "timm:test_vit: 78 tensors of the body loaded (dictionary state_dict, prefix model.)" in messages.text
    native = build(tmp_path / "w.pth", image_size=160).body.net
    assert torch.equal(native.pos_embed, state["pos_embed"])  # type: ignore


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    assert "are not those of timm:test_vit" in refusal(tmp_path / "w.pth")
    torch.save(timm.create_model("test_vit", init_values=1e-5).state_dict(), tmp_path / "w.pth")
    assert "the file has blocks.0.ls1.gamma, and blocks.0.ls1 of timm:test_vit has no such weights" in refusal(
        tmp_path / "w.pth"
    )


def test_the_names_of_efficientnet_pytorch_are_known(tmp_path: Path) -> None:
    """In the order of these layers both name the same tensors."""
    network = timm.create_model("tf_efficientnet_lite0")
    inner = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    inner |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    names, number = {}, -1
    for name, module in network.named_modules():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "blocks":
            number += 1
        elif len(parts) == 4 and list(module.parameters(recurse=False)):
            names[name] = f"_blocks.{number}.{(inner if number else first)[parts[3]]}"
        elif len(parts) == 1 and name in outer:
            names[name] = outer[name]
    state = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": t for k, t in network.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    body = build(tmp_path / "w.pth", "timm:tf_efficientnet_lite0").body.net
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in body.state_dict().items())  # type: ignore


def test_permissive_weights_are_loaded_from_the_cache_and_their_licence_is_kept(
    cached: Path, messages: pytest.LogCaptureFixture
) -> None:
    network = build("imagenet", image_size=160)
    torch.manual_seed(7)
    expected = timm.create_model("test_vit").state_dict()
    assert torch.equal(network.body.net.pos_embed, expected["pos_embed"])  # type: ignore
    said = "timm/test_vit.r160_in1k of Hugging Face, licence apache-2.0"
    assert f"timm:test_vit starts from {said}" in messages.text
    assert describe_weights(config("imagenet")) == said
    assert weights_identity(config("imagenet")) == "timm/test_vit.r160_in1k"
    finding = check_weights(read_config(settings=[f"model.arch={ARCH}"]))
    assert (finding.level, finding.found) == ("fine", f"{said}, {cached}")


@pytest.mark.parametrize("name", ["cc-by-nc-4.0", "dinov3-license", "cc-by-nd-4.0", None])
def test_other_licences_want_the_weights_asked_for_by_name(
    licence: Any, cached: Path, messages: pytest.LogCaptureFixture, name: str | None
) -> None:
    licence(name)
    message = refusal("imagenet")
    assert f"the licence {name or 'unknown'}, which may forbid your use" in message
    assert "model.arch=timm:test_vit.r160_in1k" in message
    assert check_weights(read_config(settings=[f"model.arch={ARCH}"])).level == "failed"
    build("imagenet", "timm:test_vit.r160_in1k")
    assert any(r.levelname == "WARNING" and f"licence {name or 'unknown'}" in r.getMessage() for r in messages.records)
    tagged = read_config(settings=["model.arch=timm:test_vit.r160_in1k"])
    assert check_weights(tagged).level == "warning"


@pytest.mark.parametrize("name", ["apache-2.0", "MIT", "bsd-3-clause", "cc0-1.0", "cc-by-4.0"])
def test_licences_that_allow_any_use_are_known(licence: Any, name: str) -> None:
    licence(name)
    assert find_timm_weights(ARCH).is_permissive


def test_networks_without_weights_and_damaged_files_are_sentences(cached: Path) -> None:
    assert "timm has no weights of timm:coatnet_0_224 on Hugging Face; set model.weights" in refusal(
        "imagenet", "timm:coatnet_0_224"
    )
    assert "download https://" in refusal("imagenet", "timm:gcvit_xxtiny")
    content = bytearray(cached.read_bytes())
    cached.write_bytes(content[: len(content) // 2])
    assert "is damaged, or not of timm:test_vit" in refusal("imagenet")


def test_what_the_hub_answers_is_a_sentence_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    answers = {
        GatedRepoError: "is gated or private .*set HF_TOKEN",
        EntryNotFoundError: "has no model.safetensors",
        ConnectionError: "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors could not be",
    }
    for kind, expected in answers.items():

        def answer(*_: object, kind: type[Exception] = kind, **__: object) -> None:
            raise kind.__new__(kind)

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
        with pytest.raises(WeightsError, match=expected):
            load_timm_weights(ARCH)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    assert locate_timm_weights(find_timm_weights(ARCH)) is None


def test_nobody_is_contacted_for_a_name_or_a_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("contacted")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(timm_weights, "locate_timm_weights", refuse)
    assert describe_weights(config("imagenet")).endswith("licence apache-2.0")
    build("none")


def test_the_check_names_networks_and_sizes_that_cannot_be() -> None:
    settings = [f"model.arch={ARCH}", "model.weights=none", "model.image_size=64"]
    assert check_network(read_config(settings=settings)).level == "fine"
    wrong_size = check_network(read_config(settings=[*settings, "finetune.progressive_sizes=[72]"]))
    assert wrong_size.level == "failed"
    assert "does not take images of 72 x 72" in wrong_size.found
    misspelt = check_network(read_config(settings=["model.arch=timm:resnet19"]))
    assert (misspelt.level, "did you mean timm:resnet1" in misspelt.remedy) == ("failed", True)
