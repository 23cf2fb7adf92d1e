"""Folders that are built beside their target and renamed."""

from pathlib import Path

import pytest

from pcam_model.core.atomic_dir import build_dir


def is_complete(folder: Path) -> bool:
    return (folder / "done").is_file()


def test_a_folder_appears_complete_and_is_built_once(tmp_path: Path) -> None:
    target = tmp_path / "pack"
    with build_dir(target, is_complete) as part:
        assert part is not None
        assert not target.exists()
        (part / "done").write_text("first")
    with build_dir(target, is_complete) as part:
        assert part is None
    assert (target / "done").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["pack"]


def test_an_incomplete_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "old").touch()
    with build_dir(tmp_path / "pack", is_complete) as part:
        assert part is not None
        (part / "done").touch()
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["done"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_failed_build_leaves_no_target_and_its_part_only_to_resume(tmp_path: Path, resume: bool) -> None:
    def fail() -> None:
        with build_dir(tmp_path / "pack", is_complete, resume=resume) as part:
            assert part is not None
            (part / "half").touch()
            raise OSError("interrupted")

    with pytest.raises(OSError, match="interrupted"):
        fail()
    assert not (tmp_path / "pack").exists()
    assert (tmp_path / ".pack.part" / "half").exists() == resume
    with build_dir(tmp_path / "pack", is_complete, resume=resume) as part:
        assert part is not None
        assert (part / "half").exists() == resume
        (part / "done").touch()
    assert (tmp_path / "pack" / "half").exists() == resume
