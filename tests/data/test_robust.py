"""Whatever happens to the archive or to the process, a pack is right or does not exist."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzz
from patch_sets import make_patch_set, plain_tiff, without_locks

from pcam_model.core.errors import SourceError
from pcam_model.data.image import Decoder, decode_with_pillow
from pcam_model.data.pack import Pack, build_pack, load_patches, open_pack
from pcam_model.data.pack_verification import verify_pack
from pcam_model.data.pack_writer import OnProgress
from pcam_model.data.source import SourceConfig, fetch


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tries", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_broken_archives_are_refused_or_packed_right(tmp_path, tries):
    outcomes = fuzz(tries, tmp_path)
    assert outcomes.total() == tries
    assert outcomes["refused"] > tries // 3
    assert outcomes["complete"] > 0
    assert outcomes["quarantined"] > 0


def bomb(path: Path, name: str, size: int) -> Path:
    dataset = make_patch_set(6)
    dataset.files.pop(name, None)
    dataset.zip(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize("name", [f"train/{make_patch_set(6).ids[0]}.tif", "train_labels.csv"])
def test_a_zip_bomb_is_refused_before_it_grows(tmp_path, pack, name):
    path = bomb(tmp_path / "a.zip", name, 1 << 27)
    assert path.stat().st_size < 1 << 19
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="its size in the archive is 134,217,728 bytes, more than"):
        pack(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_member_that_holds_more_than_it_says_is_refused(tmp_path, pack):
    dataset = make_patch_set(6)
    path = dataset.zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"train/{dataset.ids[0]}.tif")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2", 0, content.rindex(member.filename.encode()))
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SourceError, match="checksum in the archive is wrong"):
        pack(path)


def test_a_changed_pixel_in_a_pack_is_found(kaggle_zip, pack):
    built = pack(kaggle_zip)
    verify_pack(built)
    with (Path(built.folder) / "patches.npy").open("r+b") as file:
        file.seek(200_000)
        byte = file.read(1)[0]
        file.seek(200_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(SourceError, match=r"1 of 24 patches are not those that were packed \(first: row 7\)"):
        verify_pack(built)


# A server that forks: builders start at once, and know nothing of what other tests have left in this process.
BUILDERS = multiprocessing.get_context("forkserver")
BUILDERS.set_forkserver_preload(["pcam_model.data.pack", "pcam_model.data.pack_writer"])


def build(home: Path, packs: str, on_progress: OnProgress | None = None) -> Pack:
    """The pack of home/a.zip below home/packs."""
    config = SourceConfig(kind="path", path=str(home / "a.zip"))
    return build_pack(fetch(config, 2), config, home / packs, 2, on_progress)


def build_slowly(home: Path) -> None:
    """Build in small steps, each of which appends this process's id to a file."""

    def on_progress(done: int, total: int) -> None:
        with (home / "steps").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.01)

    build(home, "packs", on_progress)


def start_builder(home: Path) -> multiprocessing.Process:
    process = BUILDERS.Process(target=build_slowly, args=(home,))
    process.start()
    return process


@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_packing_killed_at_any_moment_starts_again_and_ends_the_same(tmp_path, kills):
    chance = random.Random(0)
    dataset = make_patch_set(10)
    content, count = dataset.files[f"train/{dataset.ids[0]}.tif"], 1000
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(count):
            archive.writestr(f"train/{i}.tif", content[:-4] + i.to_bytes(4, "little"))
        archive.writestr("train_labels.csv", "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(count)))
    expected, killed = build(tmp_path, "expected"), 0
    for _ in range(kills):
        process = start_builder(tmp_path)
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        for folder in tmp_path.glob("packs/[!.]*"):
            built = open_pack(folder)
            verify_pack(built)
            assert built.digest == expected.digest
            shutil.rmtree(folder)
    assert killed >= kills // 2
    again = build(tmp_path, "packs")
    assert again.digest == expected.digest
    assert np.array_equal(load_patches(again), load_patches(expected))
    assert len(without_locks(tmp_path / "packs")) == 1


def test_of_two_builders_at_once_the_second_waits_and_takes_the_pack_of_the_first(tmp_path):
    make_patch_set(200).zip(tmp_path / "a.zip")
    for process in [start_builder(tmp_path), start_builder(tmp_path)]:
        process.join()
        assert process.exitcode == 0
    assert len(set((tmp_path / "steps").read_text().split())) == 1
    (name,) = without_locks(tmp_path / "packs")
    verify_pack(open_pack(tmp_path / "packs" / name))


def test_a_plain_tiff_is_read_as_pillow_reads_it():
    decode = Decoder()
    for patch in make_patch_set(5).patches:
        content = plain_tiff(patch)
        assert np.array_equal(decode(content), patch)
        assert np.array_equal(decode_with_pillow(content), patch)
        assert decode.frame is not None
