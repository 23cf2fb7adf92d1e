"""Progress as log lines, where there is no terminal."""

import logging

import pytest

from pcam_model.core import progress as progress_module
from pcam_model.core.progress import progress


def test_without_a_terminal_a_line_is_logged_at_intervals(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "pcam_model"), progress("packing") as on_progress:
        for second in range(0, 41, 10):
            now[0] = float(second)
            on_progress(500 + 10 * second, 2000)  # resumed at 500
    assert [record.getMessage() for record in caplog.records] == [
        "packing: 35 %, 10 patches/s, 130 s left",
        "packing: 45 %, 10 patches/s, 110 s left",
    ]


def test_a_second_pass_is_counted_anew(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "pcam_model"), progress("scoring") as on_progress:
        for second, done in ((0, 500), (10, 1000), (20, 0), (30, 200), (40, 400)):
            now[0] = float(second)
            on_progress(done, 1000)
    assert [record.getMessage() for record in caplog.records] == ["scoring: 20 %, 20 patches/s, 40 s left"]
