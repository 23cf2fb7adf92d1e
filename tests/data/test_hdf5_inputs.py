"""PCam's official HDF5 files as images to predict: with or without labels, packed or not."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from official_files import official_folder
from patch_sets import some_patches

from pcam_model.core.errors import SourceError
from pcam_model.data.hdf5_inputs import Hdf5Images
from pcam_model.data.image_inputs import Images
from pcam_model.data.official_files import PREFIX
from pcam_model.data.pack import build_pack, load_table
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.inference.predictor import load
from pcam_model.inference.streaming import predict_to_csv


@pytest.mark.parametrize(("packed", "chunks"), [(True, None), (False, None), (False, (3, 96, 96, 3))])
def test_every_split_is_predicted_in_its_order_and_no_file_is_left(
    tmp_path: Path, model_folder: Path, packed: bool, chunks: tuple[int, ...] | None
) -> None:
    folder = official_folder(tmp_path / "pcam", packed, chunks)
    images = Images([folder], tmp_path / "scratch")
    pixels = np.concatenate([some_patches(count, seed)[0] for seed, count in enumerate((12, 6, 4))])
    assert (np.stack([images.patch(row) for row in range(len(images))]) == pixels).all()
    assert images.ignored_files == []
    assert images.name(12) == ("pcam-valid-000000", f"{PREFIX}_valid_x.h5{'.gz' * packed}")
    assert images.content(21) == pixels[21].tobytes()
    predictor = load(model_folder, backend="onnx", tta=False)
    counts = predict_to_csv(tmp_path / "out.csv", predictor, images, batch_size=5)
    with (tmp_path / "out.csv").open(newline="") as file:
        probabilities = [float(row["probability"]) for row in csv.DictReader(file)]
    assert counts.patches == 22
    np.testing.assert_allclose(probabilities, predictor(pixels).probabilities, rtol=0, atol=1e-6)
    assert not list((tmp_path / "scratch").glob("*"))


def test_the_ids_are_those_of_a_pack(tmp_path: Path) -> None:
    folder = official_folder(tmp_path / "pcam")
    config = SourceConfig(kind="path", path=str(folder), verify_md5=False)
    pack = build_pack(fetch(config, 0), config, tmp_path / "packs", 0)
    images = Images([folder], tmp_path / "scratch")
    assert [images.name(row).id for row in range(len(images))] == load_table(pack)["id"].tolist()


def test_labels_need_not_be_there_and_single_files_will_do(tmp_path: Path) -> None:
    folder = official_folder(tmp_path / "pcam", packed=False)
    for path in folder.glob("*_y.h5"):
        path.unlink()
    (folder / "notes.txt").write_text("mine")
    images = Images([folder])
    assert len(images) == 22
    assert images.ignored_files == ["notes.txt"]
    test = folder / f"{PREFIX}_test_x.h5"
    both = Images([test, folder])
    assert len(both) == 26
    assert both.name(0) == ("pcam-test-000000", str(test))
    assert both.name(4).file == f"{folder}/{PREFIX}_train_x.h5"
    mine = test.rename(tmp_path / "ward 3.h5")
    assert Images([mine]).name(2).id == "ward 3-000002"


def test_an_unpacked_file_is_taken_before_its_packed_form(tmp_path: Path) -> None:
    folder, plain = official_folder(tmp_path / "pcam"), official_folder(tmp_path / "plain", packed=False)
    name = f"{PREFIX}_test_x.h5"
    (plain / name).rename(folder / name)
    assert Images([folder], tmp_path / "scratch").name(21).file == name


def test_files_without_patches_are_refused(tmp_path: Path) -> None:
    folder = official_folder(tmp_path / "pcam", packed=False)
    path = folder / f"{PREFIX}_test_x.h5"
    with pytest.raises(SourceError, match="holds y, not the dataset x"):
        Images([folder / f"{PREFIX}_test_y.h5"])
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((3, 50, 50, 3), np.uint8))
    with pytest.raises(SourceError, match=r"x is uint8 \(3, 50, 50, 3\); expected uint8 \(N, 96, 96, 3\), RGB"):
        Images([folder])
    path.write_bytes(b"no")
    with pytest.raises(SourceError, match="it is no whole HDF5 file"):
        Images([folder])
    packed = tmp_path / f"{PREFIX}_test_x.h5.gz"
    packed.write_bytes(b"\x1f\x8bno")
    with pytest.raises(SourceError, match="it is no whole gzip file"):
        Hdf5Images(packed, "x", tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("*"))
    for path in folder.glob("*_x.h5"):
        path.unlink()
    with pytest.raises(SourceError, match="none of PCam's image files is here; add"):
        Images([folder])
