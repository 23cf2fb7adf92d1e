"""Whatever happens to the archive or to the process, a pack is right or not there."""

import multiprocessing
import os
import random
import resource
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzz
from patch_sets import make_patch_set, plain_tiff, without_locks

from pcam_model.core.errors import SourceError
from pcam_model.data.pack import build_pack, load_patches, open_pack
from pcam_model.data.pack_verification import verify_pack
from pcam_model.data.source import SourceConfig, fetch


@pytest.mark.timeout(3600)
def test_broken_archives_are_refused_or_packed_right(tmp_path):
    tries = int(os.environ.get("PCAM_TEST_TRIES", "150"))
    ends = fuzz(tries, tmp_path)
    assert ends.total() == tries
    assert ends["refused"] > tries // 3
    assert ends["whole"] > 0
    assert ends["quarantined"] > 0


def bomb(path: Path, name: str, size: int) -> Path:
    made = make_patch_set(6)
    made.files.pop(name, None)
    made.zip(path)
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
    made = make_patch_set(6)
    path = made.zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"train/{made.ids[0]}.tif")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2", 0, content.rindex(member.filename.encode()))
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SourceError, match="checksum in the archive is wrong"):
        pack(path)


def test_a_changed_pixel_in_a_pack_is_found(kaggle_zip, pack):
    made = pack(kaggle_zip)
    verify_pack(made)
    with (Path(made.folder) / "patches.npy").open("r+b") as file:
        file.seek(200_000)
        byte = file.read(1)[0]
        file.seek(200_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(SourceError, match=r"1 of 24 patches are not those that were packed \(first: row 7\)"):
        verify_pack(made)


def slow(done: int, total: int) -> None:
    time.sleep(0.01)


def pack_slowly(path: str, packs: str) -> None:
    config = SourceConfig(kind="path", path=path)
    build_pack(fetch(config, 2), config, Path(packs), 2, slow)


def test_packing_killed_at_any_moment_starts_again_and_ends_the_same(tmp_path):
    chance = random.Random(0)
    made = make_patch_set(10)
    content, count = made.files[f"train/{made.ids[0]}.tif"], 2000
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(count):
            archive.writestr(f"train/{i}.tif", content[:-4] + i.to_bytes(4, "little"))
        archive.writestr("train_labels.csv", "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(count)))
    right = build(tmp_path, "right")
    context, killed = multiprocessing.get_context("fork"), 0
    for _ in range(20):
        process = context.Process(target=pack_slowly, args=(str(tmp_path / "a.zip"), str(tmp_path / "packs")))
        process.start()
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        for folder in tmp_path.glob("packs/[!.]*"):
            found = open_pack(folder)
            verify_pack(found)
            assert found.digest == right.digest
            for path in folder.iterdir():
                path.unlink()
    assert killed > 10
    again = build(tmp_path, "packs")
    assert again.digest == right.digest
    assert np.array_equal(load_patches(again), load_patches(right))
    assert len(without_locks(tmp_path / "packs")) == 1


def build(place: Path, packs: str):
    config = SourceConfig(kind="path", path=str(place / "a.zip"))
    return build_pack(fetch(config, 2), config, place / packs, 2)


def test_two_builders_at_once_make_one_pack(tmp_path):
    make_patch_set(200).zip(tmp_path / "a.zip")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=pack_slowly, args=(str(tmp_path / "a.zip"), str(tmp_path / "packs"))) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    (name,) = without_locks(tmp_path / "packs")
    verify_pack(open_pack(tmp_path / "packs" / name))


def test_a_plain_tiff_is_read_as_pillow_reads_it():
    from pcam_model.data.image import Decoder, decode_with_pillow

    decode = Decoder()
    for patch in make_patch_set(5).patches:
        content = plain_tiff(patch)
        assert np.array_equal(decode(content), patch)
        assert np.array_equal(decode_with_pillow(content), patch)
        assert decode.frame is not None
