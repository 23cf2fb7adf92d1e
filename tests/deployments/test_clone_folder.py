"""A clone whose .pcam cannot be written to, as after `sudo make train`, is named before anything starts."""

from pathlib import Path

import pytest
from unwritable import unwritable

from deployments.local import stack
from pcam_model.core.errors import UnwritableError


@pytest.mark.parametrize("name", ["STACKS", "LOGS", "PREFECT_HOME"])
@pytest.mark.parametrize("reason", ["file above it", "read-only"])
def test_a_folder_of_the_clone_that_cannot_be_written_to_is_named(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for each in ("STACKS", "LOGS", "PREFECT_HOME"):
        monkeypatch.setattr(stack, each, tmp_path / each)
    with unwritable(reason, tmp_path) as target:
        monkeypatch.setattr(stack, name, target)
        monkeypatch.setattr(stack, "OWN", stack.STACKS / "own")
        with pytest.raises(UnwritableError, match=f"{target}.* cannot be written to"), stack.lease(keep=False):
            pytest.fail("it has started")
