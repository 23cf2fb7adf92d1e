"""Checkpoints of other tools as initial weights: the dictionary and the prefix are found, and said."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from imagenet_cache import cache_imagenet
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from pcam_model.core.errors import WeightsError
from pcam_model.training import weights
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network

State = dict[str, Tensor]


def build(path: Path, arch: str = "resnet18") -> PatchNetwork:
    return build_network(ModelConfig.model_validate({"arch": arch, "weights": str(path), "image_size": 32}), 1)


def refusal(content: object, path: Path, arch: str = "resnet18") -> str:
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        build(path, arch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(5)
    return models.resnet18(weights=None)


@pytest.fixture(scope="module")
def other() -> State:
    torch.manual_seed(6)
    return models.resnet18(weights=None).state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def sequential(network: nn.Module) -> State:
    """The body as fastai and many others cut it."""
    return nn.Sequential(*list(network.children())[:-2]).state_dict()


LIGHTNING = {"pytorch-lightning_version": "2.4.0", "epoch": 3, "optimizer_states": [{"state": {0: {}}}]}

CASES: dict[str, tuple[Callable[[nn.Module, State], object], str]] = {
    "torchvision": (lambda net, _: net.state_dict(), "(no prefix)"),
    "Lightning": (
        lambda net, _: {**LIGHTNING, "state_dict": prefixed("model.", net.state_dict())},
        "(dictionary state_dict, prefix model.)",
    ),
    "Lightning, net": (
        lambda net, _: {**LIGHTNING, "state_dict": prefixed("net.", net.state_dict())},
        "(dictionary state_dict, prefix net.)",
    ),
    "Ciga's histopathology": (
        lambda net, _: {**LIGHTNING, "state_dict": prefixed("model.resnet.", net.state_dict())},
        "(dictionary state_dict, prefix model.resnet.)",
    ),
    "MoCo": (
        lambda net, other: {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": {
                **prefixed("module.encoder_q.", net.state_dict()),
                **prefixed("module.encoder_k.", other),
                "module.queue": torch.rand(8, 16),
            },
            "optimizer": {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": []},
        },
        "(dictionary state_dict, prefix module.encoder_q.)",
    ),
    "DINO": (
        lambda net, other: {
            "student": prefixed("module.backbone.", other),
            "teacher": {**prefixed("backbone.", net.state_dict()), "head.mlp.0.weight": torch.rand(4, 4)},
            "args": argparse.Namespace(arch="resnet18", lr=0.03),
        },
        "(dictionary teacher, prefix backbone.)",
    ),
    "fastai": (
        lambda net, _: {"model": {**prefixed("0.", sequential(net)), "1.8.weight": torch.rand(2, 512)}, "opt": {}},
        "(dictionary model, prefix 0.)",
    ),
    "children in an nn.Sequential": (lambda net, _: prefixed("backbone.", sequential(net)), "(prefix backbone.)"),
    "OpenSelfSup": (
        lambda net, _: {"state_dict": prefixed("encoder_q.0.", net.state_dict())},
        "(dictionary state_dict, prefix encoder_q.0.)",
    ),
    "net": (
        lambda net, _: {"net": net.state_dict(), "acc": np.float64(93.1), "epoch": np.int64(7)},
        "(dictionary net)",
    ),
    "model_state": (lambda net, _: {"model_state": net.state_dict()}, "(dictionary model_state)"),
    "torch.compile": (lambda net, _: torch.compile(net, backend="eager").state_dict(), "(prefix _orig_mod.)"),
    "DistributedDataParallel": (lambda net, _: prefixed("module.", net.state_dict()), "(prefix module.)"),
    "an average beside the last": (
        lambda net, other: {"state_dict": other, "state_dict_ema": net.state_dict()},
        "(dictionary state_dict_ema)",
    ),
    "deep": (lambda net, _: {"a": {"b": {"c": net.state_dict()}}}, "(dictionary a.b.c)"),
}


@pytest.fixture(scope="module")
def body() -> nn.Module:
    return PatchNetwork("resnet18").body


@pytest.mark.parametrize("case", CASES)
def test_the_body_is_found_in_checkpoints_of_other_tools(
    tmp_path: Path, network: nn.Module, other: State, body: nn.Module, case: str
) -> None:
    make, location = CASES[case]
    torch.save(make(network, other), tmp_path / "w.ckpt")
    body.load_state_dict(other, strict=False)
    summary = weights.load_body_weights(body, weights.load_weights_file(tmp_path / "w.ckpt"), "resnet18")
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in body.state_dict().items())
    assert f"120 tensors of the body loaded {location}; missing: none; left out: " in summary


def test_what_else_would_fit_is_said(
    tmp_path: Path, network: nn.Module, other: State, messages: pytest.LogCaptureFixture
) -> None:
    state = {**prefixed("encoder_q.", network.state_dict()), **prefixed("encoder_k.", other)}
    save_file(state, tmp_path / "w.safetensors")
    build(tmp_path / "w.safetensors")
    location = "prefix encoder_k." if messages.text.count("(prefix encoder_q.)") else "prefix encoder_q."
    assert f"; {location} would fit too" in messages.text


@pytest.mark.parametrize("arch", ["mobilenet_v2", pytest.param("convnext_tiny", marks=pytest.mark.slow)])
def test_other_bodies_are_found_by_name_and_by_position(
    tmp_path: Path, messages: pytest.LogCaptureFixture, arch: str
) -> None:
    net = models.get_model(arch, weights=None)
    torch.save(prefixed("model.", net.state_dict()), tmp_path / "named.pth")
    torch.save(prefixed("0.", nn.Sequential(net.features).state_dict()), tmp_path / "numbered.pth")
    for name in ("named", "numbered"):
        body = build(tmp_path / f"{name}.pth", arch).body
        assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in body.state_dict().items())
    assert messages.text.count("missing: none") == 2


def test_torchvisions_own_densenet_file_has_dots_in_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = models.densenet121(weights=None)
    rename = {"norm1.": "norm.1.", "norm2.": "norm.2.", "conv1.": "conv.1.", "conv2.": "conv.2."}
    state = {}
    for key, tensor in net.state_dict().items():
        name = key
        for new, old in rename.items():
            name = name.replace(new, old) if "denselayer" in key else name
        state[name] = tensor
    cache_imagenet(monkeypatch, state)
    body = build(Path("imagenet"), "densenet121").body
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in body.state_dict().items())
    assert "missing: none" in messages.text


def test_a_file_with_half_of_the_body_is_refused(tmp_path: Path, network: nn.Module) -> None:
    message = refusal(network.state_dict(), tmp_path / "w.pth", "resnet34")
    assert "model.weights: 52% of the weights of resnet34 are in the file (no prefix), at least 90%" in message
    assert "layer1.2.conv1.weight" in message
    assert "model.arch" in message
    build(tmp_path / "w.pth", "resnet18")  # as the message says


def test_a_larger_networks_file_is_refused_by_a_shape(tmp_path: Path) -> None:
    message = refusal({"net": models.resnet50(weights=None).state_dict()}, tmp_path / "w.pth")
    assert "is (64, 64, 1, 1) in the file, (64, 64, 3, 3) in resnet18" in message
    build(tmp_path / "w.pth", "resnet50")


def test_statistics_that_are_missing_are_named(
    tmp_path: Path, network: nn.Module, messages: pytest.LogCaptureFixture
) -> None:
    torch.save(dict(network.named_parameters()), tmp_path / "w.pth")
    build(tmp_path / "w.pth")
    assert "missing: 40 (bn1.running_mean" in messages.text


def test_what_is_not_taken_need_not_be_finite(tmp_path: Path, network: nn.Module) -> None:
    torch.save({**network.state_dict(), "queue": torch.full((2,), torch.nan)}, tmp_path / "w.pth")
    build(tmp_path / "w.pth")


def test_whole_modules_and_foreign_objects_are_named_and_never_run(tmp_path: Path, network: nn.Module) -> None:
    assert "it holds torchvision.models.resnet.ResNet, which is code" in refusal(network, tmp_path / "w.pth")
    content = {"state_dict": network.state_dict(), "callback": Path("x").touch}
    message = refusal(content, tmp_path / "w.pth")
    assert "which is code and is not loaded" in message
    assert not Path("x").exists()
    torch.save(network.state_dict(), tmp_path / "w.pth")  # as the message says
    build(tmp_path / "w.pth")


def test_a_home_folder_is_understood(tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    build(Path("~/w.pth"))
    assert weights.weights_digest("~/w.pth") == weights.weights_digest(str(tmp_path / "w.pth"))
