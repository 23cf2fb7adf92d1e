"""Figures by domain: from the label table or the slide map to report and promotion gate."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pcam_model.core.errors import SourceError
from pcam_model.data.pack import build_pack, load_table
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.evaluation import metrics
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.domains import domain_differences
from pcam_model.evaluation.predictions import predictions_table
from pcam_model.evaluation.promotion_gate import PromotionConfig, decide
from pcam_model.evaluation.report import write_report
from tests.evaluation.conftest import predictions, split_predictions


def with_domains(count: int, seed: int, **noise: float) -> pd.DataFrame:
    """Predictions whose slides belong to the domains in turn; `noise` is added to the log odds of each."""
    table, rng = predictions(count, seed, slides=40), np.random.default_rng(seed)
    names = np.array(list(noise))
    domain = names[table["slide"].str[-3:].astype(int).to_numpy() % len(names)]
    added = rng.normal(0, 1, count) * np.array([noise[name] for name in domain])
    return table.assign(domain=domain, logit1=table["logit1"] + added)


@pytest.mark.parametrize("where", ["labels", "slides"])
def test_a_domain_goes_from_the_users_table_to_the_predictions(patch_set, tmp_path: Path, where: str) -> None:
    made = patch_set(12)
    domains = ["north", "south", ""] * 4
    labels = pd.DataFrame({"id": made.ids, "label": made.labels})
    slides = pd.DataFrame({"id": made.ids, "wsi": [f"s{row}" for row in range(12)]})
    (labels if where == "labels" else slides)["Domain "] = domains
    made.files["train_labels.csv"] = labels.to_csv(index=False).encode()
    slides.to_csv(tmp_path / "slides.csv", index=False)
    config = SourceConfig(kind="path", path=str(made.zip(tmp_path / "a.zip")), slides=str(tmp_path / "slides.csv"))
    pack = build_pack(fetch(config, 0), config, tmp_path / "packs", 0)
    table = load_table(pack)
    assert table.sort_values("id")["domain"].tolist() == [
        domain or None for _, domain in sorted(zip(made.ids, domains, strict=True))
    ]
    assert predictions_table(table, np.array([3]), torch.zeros(1, 2))["domain"].notna().all()


def test_a_pack_without_domains_is_the_one_of_before(patch_set, tmp_path: Path) -> None:
    config = SourceConfig(kind="path", path=str(patch_set(12).zip(tmp_path / "a.zip")))
    pack = build_pack(fetch(config, 0), config, tmp_path / "packs", 0)
    assert load_table(pack)["domain"].tolist() == [None] * 12
    assert "domain" not in pd.read_parquet(Path(pack.folder) / "patches.parquet")


def test_two_domains_of_one_patch_are_refused(patch_set, tmp_path: Path) -> None:
    made = patch_set(4)
    rows = [f"{each},s1,north" for each in made.ids] + [f"{made.ids[0]},s1,south"]
    (tmp_path / "slides.csv").write_text("\n".join(["id,wsi,domain", *rows]))
    config = SourceConfig(kind="path", path=str(made.zip(tmp_path / "a.zip")), slides=str(tmp_path / "slides.csv"))
    with pytest.raises(SourceError, match="two slides or domains"):
        build_pack(fetch(config, 0), config, tmp_path / "packs", 0)


def test_the_worst_domain_is_named_in_report_and_card(tmp_path: Path, make_evidence) -> None:
    tables = {"valid": predictions(200, 1), "test": with_domains(900, 2, north=0, east=8, south=1)}
    one_class = (
        tables["test"].assign(domain=lambda t: t["domain"].where(t["label"] == 1, None)).query("domain=='south'")
    )
    tables["test"].loc[one_class.index, "domain"] = "west"  # tumour alone
    write_report(tmp_path, make_evidence(predictions=split_predictions(**tables)))
    rows = json.loads((tmp_path / "report.json").read_bytes())["splits"]["test"]["domains"]
    assert [row["domain"] for row in rows] == ["east", "north", "south", "west"]
    assert "auc" not in rows[3]["figures"]
    east = tables["test"].query("domain=='east'")
    expected = metrics.auc(east["label"].to_numpy(), east[["logit0", "logit1"]].to_numpy())
    assert rows[0]["figures"]["auc"]["value"] == pytest.approx(expected)
    assert set(rows[0]["figures"]) == {"auc", "sensitivity", "specificity", "ece"}
    assert all(each["low"] <= each["value"] <= each["high"] for each in rows[0]["figures"].values())
    for name in ("report.html", "MODEL_CARD.md"):
        assert "Worst of 4 domains is east: AUC" in (tmp_path / name).read_text()
    assert set(pd.read_parquet(tmp_path / "predictions.parquet")["domain"].dropna()) == {
        "north",
        "east",
        "south",
        "west",
    }


def test_a_challenger_better_on_average_and_worse_in_one_domain_is_rejected_with_that_reason() -> None:
    champion = with_domains(2000, 5, north=6, south=0)
    challenger = with_domains(2000, 5, north=0, south=1.5)
    assert (champion["id"] == challenger["id"]).all()
    tables = {"champion": champion, "challenger": challenger}
    difference, domains = auc_difference(tables, resamples=300), domain_differences(tables, 2)
    assert decide(PromotionConfig(), difference, 2000, 0).verdict == "promoted"
    decision = decide(PromotionConfig(), difference, 2000, 0, domains)
    assert decision.verdict == "rejected"
    assert "better, and a loss beyond the margin of 0.005 is ruled out; but in 1 of 2 domains" in decision.reason
    assert "most in south: AUC" in decision.reason
    assert decision.domains["north"].value > 0 > decision.domains["south"].value
    no_worse = decide(PromotionConfig(), difference, 2000, 0, {"north": domains["north"]})
    assert no_worse.verdict == "promoted"
    assert "in none of 1 domains is it worse" in no_worse.reason
