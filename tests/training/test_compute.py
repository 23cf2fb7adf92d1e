"""How training computes changes how fast it is, not what comes out."""

import os
from pathlib import Path

import pytest
import torch
from stages import SEED, TUNED, fresh, part

from pcam_model.training import step
from pcam_model.training.device import ComputeConfig, make_deterministic
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.trainer import Trainer


def losses(folder: Path, **compute: object) -> list[float]:
    config = ComputeConfig.model_validate({"precision": "fp32"} | compute)
    Trainer(TUNED.prepare(fresh("resnet18")), part(), part(16, 1), TUNED, 1e-3, SEED, folder, compute=config).run()
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "step"]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks are compiled, without the minute that a code generator takes; how often each graph was made anew."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(len(list(graph.graph.nodes)))
        return graph

    monkeypatch.setattr(step, "compiled", lambda network: torch.compile(network, backend=backend))
    return graphs


def test_a_compiled_network_learns_the_same_from_one_graph(
    tmp_path: Path, traced: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, compiled = losses(tmp_path / "plain"), losses(tmp_path / "compiled", compile=True)
    assert len(plain) == 12 and compiled == pytest.approx(plain, rel=1e-4)
    assert len(traced) == 1
    assert "Compiled in" in capsys.readouterr().out


def test_deterministic_training_has_none_but_deterministic_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    try:
        assert losses(tmp_path / "asked", deterministic=True) == losses(tmp_path / "again", deterministic=True)
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") in (":4096:8", ":16:8")
    finally:
        make_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
