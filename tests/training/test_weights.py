import socket
from pathlib import Path

import pytest
import torch
from imagenet_cache import cache_imagenet
from safetensors.torch import save_file
from torchvision import models

from pcam_model.core.errors import WeightsError
from pcam_model.training import weights
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network


def build(path: object, arch: str = "resnet18") -> PatchNetwork:
    return build_network(ModelConfig.model_validate({"arch": arch, "weights": str(path), "image_size": 32}), 1)


def test_a_full_state_dict_loads_its_body_and_names_what_is_left_over(
    tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    model = models.resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    network = build(tmp_path / "w.pth")
    assert torch.equal(network.body.conv1.weight, model.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert "missing: none" in messages.text
    assert "left out: 2 (fc.weight, fc.bias)" in messages.text


def test_a_file_of_safetensors_names_what_is_missing(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    state = {k: v for k, v in models.resnet18(weights=None).state_dict().items() if "layer1.0.bn" not in k}
    save_file(state, tmp_path / "w.safetensors")
    build(tmp_path / "w.safetensors")
    assert "missing: 8 (layer1.0.bn1.weight" in messages.text
    assert "left out: 2" in messages.text


def test_wrapped_and_prefixed_state_dicts_are_understood(tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in models.resnet18(weights=None).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    network = build(tmp_path / "w.pth")
    assert torch.equal(network.body.conv1.weight, state["module.conv1.weight"])  # type: ignore[union-attr, arg-type]


def refusal(path: Path, arch: str = "resnet18") -> str:
    with pytest.raises(WeightsError) as caught:
        build(path, arch)
    return str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(models.mobilenet_v2(weights=None).state_dict(), tmp_path / "w.pth")
    assert "314 tensors (first: features.0.0.weight) are not those of resnet18" in refusal(tmp_path / "w.pth")
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    assert "model.arch" in refusal(tmp_path / "w.pth", "resnet50")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pth")
    assert "read safely" in refusal(tmp_path / "w.pth")
    assert not Path("evil").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert "state dict" in refusal(tmp_path / "w.pth")


def test_a_missing_file_and_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.pth")
    state = models.resnet18(weights=None).state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    assert "conv1.weight is not finite" in refusal(tmp_path / "w.pth")


def test_imagenet_weights_that_cannot_be_downloaded_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = socket.getdefaulttimeout()
    message = refusal(Path("imagenet"))
    assert all(text in message for text in ("resnet18-f37072fd.pth", "model.weights", str(tmp_path)))
    assert socket.getdefaulttimeout() == before


def test_imagenet_weights_are_taken_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = cache_imagenet(monkeypatch, models.resnet18(weights=None).state_dict())
    assert "fc.weight" in weights.load_imagenet("resnet18")
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 1
    cached.write_bytes(content)
    assert f"{cached} is damaged, or another file: its SHA-256 begins with" in refusal(Path("imagenet"))
    assert cached.read_bytes() == content
