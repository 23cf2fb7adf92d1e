"""The promotion gate: the decision, and the patches that may decide it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.promotion_gate import PromotionConfig, decide, held_out_rows
from tests.evaluation.conftest import predictions


@pytest.mark.parametrize(
    ("noise", "margin", "verdict", "words"),
    [
        (0.0, 0.005, "rejected", "no better, but a loss beyond the margin of X is ruled out"),
        (-3.0, 0.005, "promoted", "better, and a loss beyond the margin of X is ruled out"),
        (3.0, 0.005, "rejected", "no better, and a loss beyond the margin of X is possible"),
        (3.0, 0.5, "rejected", "no better, but a loss beyond the margin of X is ruled out"),
    ],
)
def test_promoted_is_what_is_better_and_surely_not_worse(noise: float, margin: float, verdict: str, words: str) -> None:
    good = predictions(400, 5)
    shaken = good.assign(logit1=good["logit1"] + np.random.default_rng(1).normal(0, abs(noise), 400))
    champion, challenger = (shaken, good) if noise < 0 else (good, shaken)
    difference = auc_difference({"champion": champion, "challenger": challenger}, resamples=300)
    decision = decide(PromotionConfig(margin=margin), difference, 400, 7)
    assert decision.verdict == verdict
    assert words.replace("X", f"{margin:g}") in decision.reason
    assert (decision.champion, decision.challenger, decision.left_out) == ("champion", "challenger", 7)


def test_better_by_chance_alone_is_rejected() -> None:
    few, rng = predictions(60, 6), np.random.default_rng(4)
    one, other = (few.assign(logit1=few["logit1"] + rng.normal(0, 2, 60)) for _ in range(2))
    difference = auc_difference({"champion": one, "challenger": other}, resamples=300)
    if difference.value < 0:
        difference = auc_difference({"champion": other, "challenger": one}, resamples=300)
    assert difference.value > 0 > difference.low
    decision = decide(PromotionConfig(margin=0), difference, 60, 0)
    assert decision.verdict == "rejected"
    assert "better, but a loss beyond the margin of 0 is possible" in decision.reason


def write_split(folder: Path, ids: list[str], splits: list[str], kind: str) -> Path:
    """The folder of a split."""
    folder.mkdir()
    table = pd.DataFrame({"id": ids, "row": range(len(ids)), "split": splits})
    table.to_parquet(folder / "split.parquet", index=False)
    (folder / "split.json").write_text(json.dumps({"kind": kind}))
    return folder


def test_patches_that_the_champion_was_trained_on_are_left_out(tmp_path: Path) -> None:
    config = SourceConfig(kind="sample", max_patches=48)
    pack = build_pack(fetch(config, 1), config, tmp_path / "packs", 1)  # rows 0 and 24 are of one slide, and so on
    ids = [f"sample{row:06d}" for row in range(48)]
    challenger = write_split(tmp_path / "new", ids, ["train"] * 24 + ["valid"] * 24, "random")
    for kind, trained_on, count in (
        ("random", [30, 31], 22),
        ("cluster", [30, 32], 22),
        ("slide", [0, 1, 30], 21),
        ("leave_one_domain_out", [0, 1, 31], 21),
        ("slide", [], 24),
    ):
        splits = ["train" if row in trained_on else "valid" for row in range(48)]
        champion = write_split(tmp_path / f"{kind}{count}", ids, splits, kind)
        rows, left_out = held_out_rows(pack, challenger, champion)
        assert (len(rows), left_out) == (count, 24 - count)
        assert not set(rows.tolist()) & set(trained_on)
