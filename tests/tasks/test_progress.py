"""Artifacts on Prefect's page: in order, small, and never in the way of the work."""

import base64
import json
import threading
import time
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from tasks import progress


def test_a_server_that_does_not_answer_delays_no_work_and_gets_everything_in_order_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, created = threading.Event(), list[object]()

    def create(rows: object, key: str, description: str) -> None:
        assert answers.wait(60)
        created.append(rows)

    monkeypatch.setattr(progress, "create_table_artifact", create)
    monkeypatch.setattr(progress, "SEND_TIMEOUT_S", 0.05)
    start = time.monotonic()
    for epoch in range(5):
        progress.show_table("epochs", [{"epoch": epoch}], "Epochs")
    assert time.monotonic() - start < 30
    assert created == []
    answers.set()
    monkeypatch.setattr(progress, "SEND_TIMEOUT_S", 60)
    progress.show_table("epochs", [{"epoch": 5}], "Epochs")
    assert created == [[{"epoch": epoch}] for epoch in range(6)]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_growing_table_is_one_artifact(prefect: str) -> None:
    @flow(name="table")
    def show() -> str:
        table = progress.GrowingTable("epochs", "Epochs")
        for epoch in range(3):
            table.show([{"epoch": number, "loss": 1 / 3} for number in range(epoch + 1)])
        return str(runtime.flow_run.id)

    flow_run_id = ArtifactFilterFlowRunId(any_=[UUID(show())])
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=flow_run_id))
    assert isinstance(artifact.data, str)
    assert json.loads(artifact.data) == [{"epoch": number, "loss": 0.3333} for number in range(3)]


def test_a_server_that_refuses_an_artifact_fails_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[object, ...]]()

    def refuse(*args: object) -> None:
        calls.append(args)
        raise ConnectionError("the server is away")

    monkeypatch.setattr(progress, "create_link_artifact", refuse)
    progress.show_link("model", "file:///store/model", "The model")
    assert len(calls) == 1


def test_a_picture_is_sent_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 5e6
    sent = list[str]()
    monkeypatch.setattr(progress, "create_image_artifact", lambda address, *_: sent.append(address))
    progress.show_picture("noise", tmp_path / "noise.png", "Noise")
    (address,) = sent
    assert len(address) < 250_000
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    (tmp_path / "small.png").write_bytes(content)
    with Image.open(tmp_path / "small.png") as small:
        assert 300 < small.width <= 900
        assert small.width / small.height == pytest.approx(4 / 3, abs=0.02)


def test_a_small_picture_keeps_its_size(tmp_path: Path) -> None:
    Image.new("RGBA", (300, 200), "red").save(tmp_path / "red.png")
    (tmp_path / "small.png").write_bytes(progress.small_png(tmp_path / "red.png"))
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (300, 200)
        assert small.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
