"""What people are shown, and that it holds nothing up."""

import threading
import time

import pytest

from tasks import progress


def test_a_server_that_does_not_answer_holds_up_no_work_and_is_told_in_order_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back, told = threading.Event(), list[object]()

    def create(rows: object, key: str, about: str) -> None:
        assert back.wait(60)
        told.append(rows)

    monkeypatch.setattr(progress, "create_table_artifact", create)
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    begun = time.monotonic()
    for epoch in range(5):
        progress.show_table("epochs", [{"epoch": epoch}], "Epochs")
    assert time.monotonic() - begun < 30
    assert told == []
    back.set()
    monkeypatch.setattr(progress, "PATIENCE", 60)
    progress.show_table("epochs", [{"epoch": 5}], "Epochs")
    assert told == [[{"epoch": epoch}] for epoch in range(6)]


def test_a_server_that_refuses_what_is_only_shown_fails_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(progress, "create_link_artifact", refuse)
    progress.show_link("model", "file:///store/model", "The model")
