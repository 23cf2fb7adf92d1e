"""How training computes changes its speed, not its result."""

import os
from pathlib import Path

import pytest
import torch
from stages import FINETUNE, small_loader, trainer

from pcam_model.data.patch_loader import free_memory
from pcam_model.training.device import ComputeConfig, local_world_size, set_deterministic
from pcam_model.training.metrics_log import read_metrics


def losses(folder: Path, arch: str = "mobilenet_v2", **compute: object) -> list[float]:
    config = ComputeConfig.model_validate({"precision": "fp32"} | compute)
    trainer(folder, FINETUNE, small_loader(24), config, arch=arch).run()
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "step"]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile networks without code generation, which takes a minute; the number of nodes of each graph."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(len(list(graph.graph.nodes)))
        return graph

    monkeypatch.setattr(
        "pcam_model.training.train_state.compile_network", lambda network: torch.compile(network, backend=backend)
    )
    return graphs


def test_a_compiled_network_learns_the_same_from_one_graph(
    tmp_path: Path, traced: list[int], messages: pytest.LogCaptureFixture
) -> None:
    plain, compiled = losses(tmp_path / "plain", "resnet18"), losses(tmp_path / "compiled", "resnet18", compile=True)
    assert len(plain) == 6
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert len(traced) == 1
    assert "Compiled in" in messages.text


def test_float32_is_not_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    trainer(tmp_path, FINETUNE, small_loader(8), arch="resnet18")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("gpus", "batch_size", "config", "expected"),
    [
        (0, 64, {}, 1),
        (1, 16, {}, 1),
        (8, 64, {}, 2),
        (8, 512, {}, 8),
        (8, 512, {"nnodes": 4}, 4),
        (8, 64, {"nproc_per_node": 8}, 8),
    ],
)
def test_only_gpus_with_patches_enough_train(
    monkeypatch: pytest.MonkeyPatch,
    messages: pytest.LogCaptureFixture,
    gpus: int,
    batch_size: int,
    config: dict[str, int],
    expected: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert local_world_size(ComputeConfig.model_validate(config), batch_size) == expected
    assert (f"{expected} of {gpus} GPUs train" in messages.text) == (expected < gpus)


def test_memory_that_pytorch_keeps_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2_000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10_000)
    assert free_memory(torch.device("cuda:0")) == 62_000


def test_deterministic_training_uses_deterministic_kernels_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    try:
        assert losses(tmp_path / "first", deterministic=True) == losses(tmp_path / "again", deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")  # set before the first product
    finally:
        set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
