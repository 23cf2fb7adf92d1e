"""The FROC is that of Camelyon16's program, and of MONAI's where that is installed."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pcam_model.core.errors import SplitError
from pcam_model.slides.froc import FP_RATES, FrocCurve, SlideHits, estimate_froc, froc
from pcam_model.slides.lesions import count_hits, isolated_cells, label_lesions, suppress

Array = NDArray[Any]
CASES = 1000


class Slide(NamedTuple):
    """Detections on a slide, and its lesions."""

    probabilities: NDArray[np.float32]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    labels: NDArray[np.int64]
    """(H, W)."""
    isolated: list[int]


def random_slides(case: int) -> list[Slide]:
    """One to six slides with 0 to 4 lesions, of which some are not counted; with ties, misses and empty slides."""
    random = np.random.default_rng(case)
    slides = []
    for _ in range(int(random.integers(1, 7))):
        count, height, width = int(random.integers(0, 15)), int(random.integers(8, 30)), int(random.integers(8, 30))
        labels = np.zeros((height, width), np.int64)
        lesions = int(random.integers(0, 5))
        for lesion in range(1, lesions + 1):
            labels[lesion * height // 6 : lesion * height // 6 + 1, : int(random.integers(2, width))] = lesion
        lesions = int(labels.max())
        probabilities = np.round(random.random(count), int(random.integers(1, 4))).astype(np.float32)
        isolated = [label for label in range(1, lesions + 1) if random.random() < 0.2]
        y, x = random.integers(0, height, count), random.integers(0, width, count)
        slides.append(Slide(probabilities, y, x, labels, isolated))
    return slides


def cases() -> Iterator[list[Slide]]:
    """1,000 random sets of slides that hold a lesion that counts."""
    number = found = 0
    while found < CASES:
        slides = random_slides(number)
        number += 1
        if any(slide.labels.max() > len(slide.isolated) for slide in slides):
            found += 1
            yield slides


def our_score(slides: list[Slide]) -> Array:
    hits = [
        count_hits(each.probabilities, each.labels[each.y, each.x], int(each.labels.max()), tuple(each.isolated))
        for each in slides
    ]
    return froc(hits)


def published_score(slides: list[Slide]) -> Array:
    """Score and sensitivities by the steps of Camelyon16's published program, threshold by threshold."""
    fp_probs: list[float] = []
    tp_probs: list[float] = []
    targets = 0
    for slide in slides:
        best = [0.0] * int(slide.labels.max())
        for probability, y, x in zip(slide.probabilities.tolist(), slide.y, slide.x, strict=True):
            label = int(slide.labels[y, x])
            if label == 0:
                fp_probs.append(probability)
            elif label not in slide.isolated:
                best[label - 1] = max(best[label - 1], probability)
        tp_probs += best
        targets += len(best) - len(slide.isolated)
    total_fps, total_tps = [], []
    for threshold in sorted({*fp_probs, *tp_probs})[1:]:
        total_fps.append(sum(probability >= threshold for probability in fp_probs))
        total_tps.append(sum(probability >= threshold for probability in tp_probs))
    fps, sensitivity = np.array([*total_fps, 0]) / len(slides), np.array([*total_tps, 0]) / targets
    values = np.interp(FP_RATES, fps[::-1], sensitivity[::-1])
    return np.append(values.mean(), values)


def test_the_froc_is_that_of_the_published_program_on_1000_random_cases() -> None:
    worst = max(float(np.abs(our_score(slides) - published_score(slides)).max()) for slides in cases())
    assert worst < 1e-9


@pytest.mark.slow
def test_the_froc_is_that_of_monai_on_1000_random_cases() -> None:
    monai = pytest.importorskip("monai.metrics.froc", reason="needs monai")
    for slides in cases():
        fp_probs: list[Any] = []
        tp_probs: list[Any] = []
        total = 0
        for slide in slides:
            fp, tp, targets = monai.compute_fp_tp_probs(
                probs=slide.probabilities, y_coord=slide.y, x_coord=slide.x, evaluation_mask=slide.labels,
                labels_to_exclude=slide.isolated,
            )  # fmt: skip
            fp_probs.extend(fp)
            tp_probs.extend(tp)
            total += targets
        curve = monai.compute_froc_curve_data(
            np.array(fp_probs, np.float32), np.array(tp_probs, np.float32), total, len(slides)
        )
        assert abs(our_score(slides)[0] - monai.compute_froc_score(*curve, FP_RATES)) < 1e-9


@pytest.mark.slow
def test_lesions_and_detections_are_those_of_monai() -> None:
    utils = pytest.importorskip("monai.apps.pathology.utils", reason="needs monai")
    for case in range(50):
        random = np.random.default_rng(case)
        mask = ndimage.binary_dilation(random.random((60, 80)) > 0.99, iterations=int(random.integers(1, 4)))
        theirs = utils.compute_multi_instance_mask(mask.astype(np.uint8), 4.8)
        labels = label_lesions(mask, 4.8)
        assert (labels == theirs).all()
        properties = utils.measure.regionprops(theirs)
        assert isolated_cells(labels, 12.0) == tuple(
            number for number, each in enumerate(properties, 1) if each.axis_major_length < 12.0
        )
        values = np.round(random.random((60, 80)), 2).astype(np.float32)
        box = int(random.integers(1, 20))
        ours = suppress(values, box)
        points = utils.PathologyProbNMS(box_size=box)(values.copy(), 0)
        assert [(float(p), int(y), int(x)) for p, y, x in points] == [
            (float(p), int(y), int(x)) for p, y, x in zip(ours.probabilities, ours.rows, ours.columns, strict=True)
        ]


def test_weights_are_slides_that_are_taken_as_often() -> None:
    for case in range(60):
        slides = random_slides(case)
        hits = [count_hits(each.probabilities, each.labels[each.y, each.x], int(each.labels.max())) for each in slides]
        weights = np.random.default_rng(case).integers(0, 4, (5, len(hits)))
        curve = FrocCurve(hits)(weights)
        for row, values in zip(weights, curve, strict=True):
            repeated = [hit for hit, count in zip(hits, row, strict=True) for _ in range(count)]
            if sum(hit.lesions for hit in repeated):
                assert values == pytest.approx(froc(repeated), abs=1e-12)
            else:
                assert np.isnan(values).all()


def hit(false: list[float], true: list[float]) -> SlideHits:
    return SlideHits(np.array(false, np.float32), np.array(true, np.float32), len(true))


def test_a_perfect_and_a_blind_detector_score_1_and_0() -> None:
    assert froc([hit([0.1], [0.9, 0.8]), hit([], [])]) == pytest.approx(np.ones(7))
    assert froc([hit([0.9], [0.0]), hit([], [0.0])]) == pytest.approx(np.zeros(7))
    with pytest.raises(SplitError, match="hold no lesion"):
        froc([hit([0.3], [])])


def test_the_interval_holds_the_value_and_narrows_with_more_slides() -> None:
    slides = [hit([0.6, 0.7], [0.9, 0.0]), hit([0.8], []), hit([], [0.65]), hit([0.55], [0.0])]
    few, many = (estimate_froc(slides * count, seed=1, resamples=300) for count in (2, 20))
    assert (few.lesions, few.slides, few.false_positives) == (8, 8, 8)
    assert few.score.value == pytest.approx(froc(slides)[0])
    widths = []
    for figures in (few, many):
        assert figures.score.low is not None
        assert figures.score.high is not None
        assert 0 <= figures.score.low <= figures.score.value <= figures.score.high <= 1
        widths.append(figures.score.high - figures.score.low)
    assert widths[1] < widths[0] / 2
    assert list(few.sensitivity) == ["0.25", "0.5", "1", "2", "4", "8"]
