"""What becomes of a challenger, and which patches may decide it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.promotion_gate import PromotionConfig, decide, held_out
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
    assert decision.verdict == verdict and words.replace("X", f"{margin:g}") in decision.reason
    assert (decision.champion, decision.challenger, decision.left_out) == ("champion", "challenger", 7)


def test_better_by_chance_alone_is_rejected() -> None:
    few, random = predictions(60, 6), np.random.default_rng(4)
    one, other = (few.assign(logit1=few["logit1"] + random.normal(0, 2, 60)) for _ in range(2))
    difference = auc_difference({"champion": one, "challenger": other}, resamples=300)
    if difference.value < 0:
        difference = auc_difference({"champion": other, "challenger": one}, resamples=300)
    assert difference.value > 0 > difference.low
    decision = decide(PromotionConfig(margin=0), difference, 60, 0)
    assert decision.verdict == "rejected" and "better, but a loss beyond the margin of 0 is possible" in decision.reason


def split(folder: Path, ids: list[str], sides: list[str], kind: str) -> Path:
    folder.mkdir()
    table = pd.DataFrame({"id": ids, "row": range(len(ids)), "side": sides})
    table.to_parquet(folder / "split.parquet", index=False)
    (folder / "split.json").write_text(json.dumps({"kind": kind}))
    return folder


def test_what_the_champion_has_learnt_from_does_not_judge_it(tmp_path: Path) -> None:
    config = SourceConfig(kind="sample", max_patches=48)
    pack = build_pack(fetch(config, 1), config, tmp_path / "packs", 1)  # rows 0 and 24 are of one slide, and so on
    ids = [f"sample{row:06d}" for row in range(48)]
    challenger = split(tmp_path / "new", ids, ["train"] * 24 + ["valid"] * 24, "random")
    for kind, learnt, kept in (("random", [30, 31], 22), ("slide", [0, 1, 30], 21), ("slide", [], 24)):
        sides = ["train" if row in learnt else "valid" for row in range(48)]
        rows, left_out = held_out(pack, challenger, split(tmp_path / f"{kind}{kept}", ids, sides, kind))
        assert (len(rows), left_out) == (kept, 24 - kept)
        assert not set(rows.tolist()) & set(learnt)
