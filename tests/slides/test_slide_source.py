"""Annotated slides as a source: labels by the centre, balance, hard negatives, identity, and what is refused."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pcam_model.core.errors import ConfigError, MissingPackageError, SourceError
from pcam_model.data.pack import Pack, build_pack, load_patches, load_table
from pcam_model.data.source import SourceConfig
from pcam_model.data.split_assignment import SplitConfig, resolve_kind
from pcam_model.slides.annotated_slides import find_annotated
from pcam_model.slides.patch_selection import HARD_POOL, Cells, common_quota
from pcam_model.slides.prediction import PreparedSlide
from pcam_model.slides.slide_patches import SlidePatches
from pcam_model.slides.slide_source import open_slide_patches, slides_archive
from tests.slides.slide_files import Composed, compose, write_slide

pytest.importorskip("openslide", reason="needs pcam[slides]")


def centres(composed: Composed, label: int) -> list[tuple[int, int]]:
    """The top left corner (x, y) of the centre 32x32 of each patch with a label."""
    return [(int(x) + 32, int(y) + 32) for y, x in composed.corners[composed.labels == label]]


def geojson(path: Path, squares: Sequence[tuple[int, int]], name: str = "Tumor") -> None:
    """QuPath's GeoJSON of squares of 32 pixels."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring(x, y)]},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for x, y in squares
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def ring(x: int, y: int, side: int = 32) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def asap(path: Path, squares: Sequence[tuple[int, int]]) -> None:
    """ASAP's XML, as Camelyon's."""
    shapes = "".join(
        '<Annotation Type="Polygon" PartOfGroup="_0"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{px}" Y="{py}"/>' for i, (px, py) in enumerate(ring(x, y)[:4]))
        + "</Coordinates></Annotation>"
        for x, y in squares
    )
    path.write_text(f"<ASAP_Annotations><Annotations>{shapes}</Annotations></ASAP_Annotations>")


def mask(path: Path, composed: Composed) -> None:
    """A mask TIFF that is white where there is tumour."""
    pixels = np.zeros(composed.pixels.shape[:2], np.uint8)
    for x, y in centres(composed, 1):
        pixels[y : y + 32, x : x + 32] = 255
    tifffile.imwrite(path, pixels)


@pytest.fixture
def slides(tmp_path: Path) -> tuple[Path, list[Composed]]:
    """A folder of three slides with QuPath's annotations, and what they are composed of."""
    folder = tmp_path / "slides"
    folder.mkdir()
    composed = [compose(rows=4, columns=4, seed=seed) for seed in (3, 4, 5)]
    for number, each in enumerate(composed):
        write_slide(folder / f"s{number}.tif", each.pixels)
        geojson(folder / f"s{number}.geojson", centres(each, 1))
    return folder, composed


def packed(folder: Path, tmp_path: Path, seed: int = 2, **keys: object) -> Pack:
    config = SourceConfig.model_validate({"kind": "slides", "path": str(folder), **keys})
    archive = slides_archive(config, seed, "")
    return build_pack(archive, config, tmp_path / "packs", seed, open_slides=open_slide_patches)


def test_patches_are_labelled_by_their_centre_and_have_the_slides_pixels(
    slides: tuple[Path, list[Composed]], tmp_path: Path
) -> None:
    folder, composed = slides
    pack = packed(folder, tmp_path)
    table, patches = load_table(pack), load_patches(pack)
    expected = {
        f"s{number}-{x + 16}-{y + 16}": each.patches[row]
        for number, each in enumerate(composed)
        for row, (x, y) in zip(np.flatnonzero(each.labels == 1), centres(each, 1), strict=True)
    }
    tumour = table.index[table["label"] == 1]
    assert set(table["id"][tumour]) == set(expected)
    assert all(np.array_equal(patches[row], expected[table["id"][row]]) for row in tumour)
    normal = int((table["label"] == 0).sum())
    assert len(tumour) <= normal <= len(tumour) + len(composed)  # balanced over all slides
    assert set(table["slide"]) == {"s0", "s1", "s2"}
    assert (pack.mpp, pack.mpp_assumed) == (0.972, False)
    assert resolve_kind(table, SplitConfig()) == "slide"


def test_geojson_asap_and_masks_give_the_same_patches(slides: tuple[Path, list[Composed]], tmp_path: Path) -> None:
    folder, composed = slides
    tables = [load_table(packed(folder, tmp_path))]
    for kind in ("asap", "mask"):
        other = tmp_path / kind
        other.mkdir()
        for number, each in enumerate(composed):
            if kind == "asap":
                asap(other / f"s{number}.xml", centres(each, 1))
            else:
                mask(other / f"s{number}_mask.tif", each)
        tables.append(load_table(packed(folder, tmp_path, annotations=str(other))))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_a_slide_gives_at_most_its_share_and_another_seed_draws_others(
    slides: tuple[Path, list[Composed]], tmp_path: Path
) -> None:
    table, other = (load_table(packed(slides[0], tmp_path, seed=seed, max_per_slide=4)) for seed in (2, 3))
    assert table.groupby("slide").size().max() <= 4
    assert set(table["id"]) != set(other["id"])


def test_only_annotated_tissue_is_taken_where_asked(slides: tuple[Path, list[Composed]], tmp_path: Path) -> None:
    folder, composed = slides
    for number, each in enumerate(composed):
        content = [(*corner, "Tumor") for corner in centres(each, 1)] + [(*c, "Normal") for c in centres(each, 0)[:3]]
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring(x, y)]},
                "properties": {"classification": {"name": name}},
            }
            for x, y, name in content
        ]
        (folder / f"s{number}.geojson").write_text(json.dumps(features))
    table = load_table(packed(folder, tmp_path, unannotated_tissue="ignore"))
    assert int((table["label"] == 0).sum()) == 9


def test_the_source_is_another_where_an_annotation_is(slides: tuple[Path, list[Composed]]) -> None:
    folder, composed = slides
    config = SourceConfig(kind="slides", path=str(folder))
    first = slides_archive(config, 2, "")
    assert slides_archive(config, 2, "") == first
    assert first.source == "slides (3 slides)"
    assert slides_archive(config, 3, "").sha256 != first.sha256
    geojson(folder / "s1.geojson", centres(composed[1], 1)[1:])
    assert slides_archive(config, 2, "").sha256 != first.sha256
    geojson(folder / "s1.geojson", centres(composed[1], 1))  # exported again, with the same content
    assert slides_archive(config, 2, "").sha256 == first.sha256


def test_half_of_those_without_tumour_are_the_most_alike_of_many(slides: tuple[Path, list[Composed]]) -> None:
    config, hardest = SourceConfig(kind="slides", path=str(slides[0]), max_per_slide=8), set()

    def likeness(slide: PreparedSlide, cells: Cells) -> NDArray[np.float64]:
        assert len(cells) == HARD_POOL * 4
        likenesses = np.random.default_rng(len(hardest)).permutation(len(cells)) / len(cells)
        for row, column in cells[np.argsort(-likenesses)[:2]]:
            hardest.add(f"{slide.file.name}-{column * 32 + 48}-{row * 32 + 48}")
        return likenesses

    with closing(SlidePatches(find_annotated(config), config, 2, likeness)) as source:
        negatives = source.table[source.table["label"] == 0]
    assert negatives.groupby("slide").size().to_dict() == {"s0": 4, "s1": 4, "s2": 4}
    assert len(hardest) == 6
    assert hardest <= set(negatives["id"])


@pytest.mark.parametrize("total", [0, 1, 7, 50, 1000])
def test_a_common_quota_makes_the_total_and_hardly_more(total: int) -> None:
    counts = np.random.default_rng(total).integers(0, 40, 25)
    quota = common_quota(counts, total)
    made = int(np.minimum(counts, quota).sum())
    assert made >= min(total, counts.sum())
    assert quota == 1 or np.minimum(counts, quota - 1).sum() < total


def test_a_published_model_mines_hard_negatives_at_its_own_scale(
    slides: tuple[Path, list[Composed]], tmp_path: Path, model_folder: Path
) -> None:
    keys = {"hard_negatives": str(model_folder), "max_per_slide": 8}
    mined, plain = packed(slides[0], tmp_path, **keys), packed(slides[0], tmp_path, max_per_slide=8)
    assert mined.archive != plain.archive
    assert set(load_table(mined)["id"]) != set(load_table(plain)["id"])
    with pytest.raises(ConfigError, match=r"a model of 0\.972 microns per pixel, and the patches are cut at 0\.25"):
        packed(slides[0], tmp_path, mpp=0.25, **keys)


def test_masks_in_a_folder_of_their_own_are_no_slides_wherever_it_lies(
    slides: tuple[Path, list[Composed]], tmp_path: Path
) -> None:
    folder, composed = slides
    for masks in (folder / "masks", tmp_path / "masks"):
        masks.mkdir()
        for number, each in enumerate(composed):
            mask(masks / f"s{number}.tif", each)
        config = SourceConfig(kind="slides", path=str(folder), annotations=str(masks), unannotated_slides="normal")
        assert [(file.name, path) for file, path in find_annotated(config)] == [
            (f"s{number}", masks / f"s{number}.tif") for number in range(3)
        ]
        (masks / "s1.tif").rename(masks / "other.tif")
        with pytest.raises(SourceError, match=r"other\.tif: there is no slide of this name"):
            find_annotated(config)
        shutil.rmtree(masks)


def test_the_extra_is_named_where_it_is_not_installed(
    slides: tuple[Path, list[Composed]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pcam_model.slides.openslide_reader", raising=False)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingPackageError, match=r"reading a slide needs openslide.*pip install 'pcam\[slides\]'"):
        packed(slides[0], tmp_path)


def test_what_is_missing_or_not_understood_is_one_sentence(slides: tuple[Path, list[Composed]], tmp_path: Path) -> None:
    folder, composed = slides
    (folder / "s2.geojson").rename(folder / "other.geojson")
    with pytest.raises(SourceError, match=r"1 of 3 slides have no annotations .*first: s2.*unannotated_slides=normal"):
        packed(folder, tmp_path)
    with pytest.raises(SourceError, match=r"other\.geojson: there is no slide of this name"):
        packed(folder, tmp_path, unannotated_slides="normal")
    (folder / "other.geojson").unlink()
    assert set(load_table(packed(folder, tmp_path, unannotated_slides="normal"))["slide"]) == {"s0", "s1", "s2"}
    geojson(folder / "s2.geojson", centres(composed[2], 1), "Stroma")
    with pytest.raises(SourceError, match=r"annotations of the class Stroma, whose meaning is not known"):
        packed(folder, tmp_path)
    assert packed(folder, tmp_path, normal_classes=["stroma"]).count
    write_slide(folder / "s2.tif", composed[2].pixels, mpp=None)
    with pytest.raises(SourceError, match=r"as in source\.slide_mpp=0\.25"):
        packed(folder, tmp_path)
    with pytest.raises(ConfigError, match=r"source\.path is empty"):
        slides_archive(SourceConfig(kind="slides"), 2, "")
    with pytest.raises(SourceError, match=r"source\.path is .*nowhere, but there is no such folder"):
        slides_archive(SourceConfig(kind="slides", path=str(tmp_path / "nowhere")), 2, "")
