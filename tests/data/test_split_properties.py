"""Properties of every division, for any labels, slides, repeats and seed."""

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
    return pd.DataFrame(
        {
            "id": [f"p{i:04d}" for i in range(count)],
            "label": (random.random(count) < draw(st.sampled_from([0.5, 0.4, 0.1, 0.02]))).astype(int),
            "slide": [f"s{i}" for i in slides],
            "pixels": random.integers(0, draw(st.sampled_from([count * 100, count * 2, count])), count).astype(str),
            "origin": "train",
            "cluster": slides,
        }
    )


configs = st.builds(
    SplitConfig,
    kind=st.sampled_from(["random", "slide", "cluster"]),
    valid=st.floats(0.05, 0.5),
    test=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 2**31),
)


def splits_of(table: pd.DataFrame, config: SplitConfig) -> np.ndarray | None:
    """The splits; None where the division is refused."""
    try:
        return assign_splits(table, config.kind, config)
    except SplitError:
        return None


def largest_group(table: pd.DataFrame, kind: str) -> int:
    """An upper bound of the largest group: the largest chain of slides that share pixels, found by repeated joining."""
    group = table["pixels"] if kind == "random" else table["slide"]
    for _ in range(len(table) if kind != "random" else 0):
        joined = group.groupby(table["pixels"]).transform("min").groupby(group).transform("min")
        if joined.equals(group):
            break
        group = joined
    return int(group.value_counts().max())


@settings(max_examples=30, deadline=None)
@given(rows(), configs)
def test_splits_share_nothing_and_cover_everything(table, config):
    splits = splits_of(table, config)
    if splits is None:
        return
    assert set(splits) <= {"train", "valid", "test"}
    assert len(splits) == len(table)
    divided = table.assign(split=splits)
    assert divided.groupby("pixels")["split"].nunique().max() == 1
    if config.kind != "random":
        assert divided.groupby("slide")["split"].nunique().max() == 1  # a cluster here is a slide
    assert {"train", "valid"} <= set(splits)
    assert ("test" in splits) == (config.test > 0)


@settings(max_examples=30, deadline=None)
@given(rows(), configs.filter(lambda config: config.test == 0))
def test_sizes_and_classes_are_in_proportion_as_far_as_the_groups_allow(table, config):
    splits = splits_of(table, config)
    if splits is None:
        return
    largest = largest_group(table, config.kind)
    rounding = abs(float(Fraction(config.valid).limit_denominator(10)) - config.valid)
    for selected in (table["label"] >= 0, table["label"] == 0, table["label"] == 1):
        error = abs((splits[selected] == "valid").sum() - config.valid * selected.sum())
        assert error <= 2 * largest + 10 + rounding * selected.sum(), (error, largest, selected.sum())


@settings(max_examples=15, deadline=None)
@given(rows(), configs, st.randoms(use_true_random=False))
def test_splits_do_not_depend_on_the_order_of_rows(table, config, random):
    splits = splits_of(table, config)
    order = list(range(len(table)))
    random.shuffle(order)
    again = splits_of(table.iloc[order].sort_values("id", ignore_index=True), config)
    assert (splits is None) == (again is None)
    assert splits is None or np.array_equal(splits, again)


@settings(max_examples=15, deadline=None)
@given(rows(), st.integers(2, 6), st.sampled_from(["random", "slide", "cluster"]), st.sampled_from([0.0, 0.2]))
def test_folds_divide_all_that_is_not_test_once(table, folds, kind, test):
    by_fold = [splits_of(table, SplitConfig(kind=kind, folds=folds, fold=fold, test=test)) for fold in range(folds)]
    if by_fold[0] is None:
        assert all(splits is None for splits in by_fold)
        return
    valid = np.stack([splits == "valid" for splits in by_fold])
    tested = np.stack([splits == "test" for splits in by_fold])
    assert (tested == tested[0]).all()
    assert (valid.sum(axis=0) == ~tested[0]).all()


def test_three_slides_make_three_splits():
    table = pd.DataFrame({"id": [f"p{i}" for i in range(6)], "label": [0, 0, 1, 0, 1, 0], "pixels": list("abcdef")})
    table = table.assign(slide=["s3", "s1", "s0", "s0", "s3", "s3"], origin="train")
    splits = assign_splits(table, "slide", SplitConfig(kind="slide", valid=0.5, test=0.1, seed=0))
    assert set(splits) == {"train", "valid", "test"}
