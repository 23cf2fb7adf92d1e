import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from pcam_model.core.errors import WeightsError
from pcam_model.training import weights
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network


def build(path: object, name: str = "resnet18") -> tuple[PatchNetwork, str]:
    said: list[str] = []
    network = build_network(ModelConfig(arch=name, weights=str(path), size=32), 1, said.append)
    return network, " ".join(said)


def test_a_full_state_dict_loads_its_body_and_names_what_is_left_over(tmp_path: Path) -> None:
    whole = models.resnet18(weights=None)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    network, said = build(tmp_path / "w.pth")
    assert torch.equal(network.body.conv1.weight, whole.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert "missing: none" in said and "unexpected: 2 (fc.weight, fc.bias)" in said


def test_a_body_only_file_of_safetensors_names_what_is_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in models.resnet18(weights=None).state_dict().items() if "layer4" not in k}
    save_file(state, tmp_path / "w.safetensors")
    _, said = build(tmp_path / "w.safetensors")
    assert "layer4.0.conv1.weight" in said and "unexpected: 2" in said


def test_wrapped_and_prefixed_state_dicts_are_understood(tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in models.resnet18(weights=None).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    network, _ = build(tmp_path / "w.pth")
    assert torch.equal(network.body.conv1.weight, state["module.conv1.weight"])  # type: ignore[union-attr, arg-type]


def refused(path: Path, name: str = "resnet18") -> str:
    with pytest.raises(WeightsError) as caught:
        build(path, name)
    return str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(models.mobilenet_v2(weights=None).state_dict(), tmp_path / "w.pth")
    assert "none of the" in refused(tmp_path / "w.pth")
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    assert "model.arch" in refused(tmp_path / "w.pth", "resnet50")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pth")
    assert "read safely" in refused(tmp_path / "w.pth")
    assert not Path("evil").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert "state dict" in refused(tmp_path / "w.pth")


def test_a_missing_file_and_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "none.pth")
    state = models.resnet18(weights=None).state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    assert "conv1.weight is not finite" in refused(tmp_path / "w.pth")


def test_imagenet_weights_that_cannot_be_had_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = socket.getdefaulttimeout()
    said = refused(Path("imagenet"))
    assert "resnet18-f37072fd.pth" in said and "model.weights" in said and str(tmp_path) in said
    assert socket.getdefaulttimeout() == before


def test_imagenet_weights_are_taken_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    _, cached = weights.imagenet_file("resnet18")
    cached.parent.mkdir(parents=True)
    torch.save(models.resnet18(weights=None).state_dict(), cached)
    assert "fc.weight" in weights.imagenet("resnet18")
