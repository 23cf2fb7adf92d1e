"""What holds of every split, for any labels, slides, repeats and seed."""

from fractions import Fraction

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pcam_model.core.errors import SplitError
from pcam_model.data.split_assignment import SplitConfig, assign_splits


@st.composite
def rows(draw) -> pd.DataFrame:
    """A labelled table sorted by id: slides from few to one a patch, some repeats, from balanced to rare tumour."""
    count = draw(st.integers(2, 400))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    slides = random.integers(0, draw(st.integers(1, count)), count)
    return pd.DataFrame({
        "id": [f"p{i:04d}" for i in range(count)],
        "label": (random.random(count) < draw(st.sampled_from([0.5, 0.4, 0.1, 0.02]))).astype(int),
        "slide": [f"s{i}" for i in slides],
        "pixels": random.integers(0, draw(st.sampled_from([count * 100, count * 2, count])), count).astype(str),
        "origin": "train",
    })  # fmt: skip


plans = st.builds(
    SplitConfig,
    kind=st.sampled_from(["random", "slide"]),
    valid=st.floats(0.05, 0.5),
    test=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 2**31),
)


def sides_of(table: pd.DataFrame, config: SplitConfig) -> np.ndarray | None:
    try:
        return assign_splits(table, config.kind, config)
    except SplitError as error:
        assert "\n" not in str(error)
        return None


def largest_group(table: pd.DataFrame, kind: str) -> int:
    """An upper bound of the largest group: the largest chain of slides that share pixels, found by repeated joining."""
    group = table["pixels"] if kind == "random" else table["slide"]
    for _ in range(len(table) if kind == "slide" else 0):
        joined = group.groupby(table["pixels"]).transform("min").groupby(group).transform("min")
        if joined.equals(group):
            break
        group = joined
    return int(group.value_counts().max())


@settings(max_examples=60, deadline=None)
@given(rows(), plans)
def test_sides_share_nothing_and_cover_everything(table, config):
    side = sides_of(table, config)
    if side is None:
        return
    assert set(side) <= {"train", "valid", "test"}
    assert len(side) == len(table)
    kept = table.assign(side=side)
    assert kept.groupby("pixels")["side"].nunique().max() == 1
    if config.kind == "slide":
        assert kept.groupby("slide")["side"].nunique().max() == 1
    assert {"train", "valid"} <= set(side)
    assert ("test" in side) == (config.test > 0)


@settings(max_examples=60, deadline=None)
@given(rows(), plans.filter(lambda config: config.test == 0))
def test_sizes_and_classes_are_in_proportion_as_far_as_the_groups_allow(table, config):
    side = sides_of(table, config)
    if side is None:
        return
    largest = largest_group(table, config.kind)
    rounding = abs(float(Fraction(config.valid).limit_denominator(10)) - config.valid)
    for part in (table["label"] >= 0, table["label"] == 0, table["label"] == 1):
        missed = abs((side[part] == "valid").sum() - config.valid * part.sum())
        assert missed <= 2 * largest + 10 + rounding * part.sum(), (missed, largest, part.sum())


@settings(max_examples=30, deadline=None)
@given(rows(), plans, st.randoms(use_true_random=False))
def test_the_sides_are_those_of_the_ids_not_of_their_order(table, config, random):
    side = sides_of(table, config)
    order = list(range(len(table)))
    random.shuffle(order)
    again = sides_of(table.iloc[order].sort_values("id", ignore_index=True), config)
    assert (side is None) == (again is None)
    assert side is None or np.array_equal(side, again)


@settings(max_examples=30, deadline=None)
@given(rows(), st.integers(2, 6), st.sampled_from(["random", "slide"]), st.sampled_from([0.0, 0.2]))
def test_folds_divide_all_that_is_not_test_once(table, folds, kind, test):
    sides = [sides_of(table, SplitConfig(kind=kind, folds=folds, fold=fold, test=test)) for fold in range(folds)]
    if sides[0] is None:
        assert all(side is None for side in sides)
        return
    valid = np.stack([side == "valid" for side in sides])
    tested = np.stack([side == "test" for side in sides])
    assert (tested == tested[0]).all()
    assert (valid.sum(axis=0) == ~tested[0]).all()


def test_three_slides_make_three_sides():
    table = pd.DataFrame({"id": [f"p{i}" for i in range(6)], "label": [0, 0, 1, 0, 1, 0], "pixels": list("abcdef")})
    table = table.assign(slide=["s3", "s1", "s0", "s0", "s3", "s3"], origin="train")
    side = assign_splits(table, "slide", SplitConfig(kind="slide", valid=0.5, test=0.1, seed=0))
    assert set(side) == {"train", "valid", "test"}
