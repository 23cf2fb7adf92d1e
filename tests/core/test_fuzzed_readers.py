"""Damaged files of every kind are read, or refused in one sentence: a minute of the campaign."""

from pathlib import Path

import pytest
from fuzzing_readers import campaign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_damaged_file_ends_a_reader_otherwise_than_with_a_sentence(tmp_path: Path) -> None:
    counts = campaign(tmp_path / "home", 60.0)
    assert len(counts) > 25
    assert all(outcomes.total() >= 20 for outcomes in counts.values())
    assert sum(outcomes["read"] for outcomes in counts.values()) > 0
