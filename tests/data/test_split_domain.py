"""A domain (centre, scanner) that is held out is the test split, and nothing of it is trained on."""

import json

import pandas as pd
import pytest
from pydantic import ValidationError

from pcam_model.config import TrainConfig
from pcam_model.core.errors import SplitError
from pcam_model.data.pack import Pack, build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.data.split import SplitConfig, make_split

COUNT = 240


@pytest.fixture
def domain_pack(tmp_path, patch_set):
    """domain_pack(slides, domains) -> a pack of real files with a slide map; "" for what is not known."""

    def make(slides, domains) -> Pack:
        patches = patch_set(COUNT)
        path = patches.zip(tmp_path / "patches.zip")
        lines = [",".join(row) for row in zip(patches.ids, slides, domains, strict=True)]
        (tmp_path / "map.csv").write_text("\n".join(["id,wsi,domain", *lines]) + "\n")
        config = SourceConfig(kind="path", path=str(path), slides=str(tmp_path / "map.csv"))
        return build_pack(fetch(config, 2), config, tmp_path / "packs", 2)

    return make


def by_slide(per_slide=8):
    return [f"s{i // per_slide:02d}" for i in range(COUNT)]


def domains_of(slides):
    """Ten slides of each of three centres."""
    return [("north", "south", "west")[int(slide[1:]) % 3] for slide in slides]


def test_the_domain_is_test_and_validation_has_other_slides_of_other_domains(domain_pack, tmp_path):
    pack = domain_pack(by_slide(), domains_of(by_slide()))
    config = SplitConfig(kind="leave_one_domain_out", domain="south", valid=0.25)
    split = make_split(pack, config, tmp_path / "s")
    table = pd.read_parquet(tmp_path / "s" / "split.parquet")
    rows = pd.read_parquet(f"{pack.folder}/patches.parquet").set_index("id").loc[table["id"]].reset_index()
    assert set(rows["domain"][table["split"] == "test"]) == {"south"}
    assert set(rows["domain"][table["split"] != "test"]) == {"north", "west"}
    assert table["split"].groupby(rows["slide"]).nunique().max() == 1
    assert (table["split"] == "test").sum() == 80
    assert (table["split"] == "valid").sum() == pytest.approx(40, abs=16)
    assert "all of test is of south" in split.meaning
    assert "validation has slides of the other domains that were not trained on" in split.meaning
    leakage = json.loads((tmp_path / "s" / "split.json").read_text())["leakage"]
    assert leakage["domains_held_out"] == ["south"]


def test_each_domain_can_be_left_out_in_turn_also_in_folds(domain_pack, tmp_path):
    pack = domain_pack(by_slide(), domains_of(by_slide()))
    valid = []
    for fold in range(3):
        config = SplitConfig(kind="leave_one_domain_out", domain="north", folds=3, fold=fold)
        make_split(pack, config, tmp_path / f"s{fold}")
        table = pd.read_parquet(tmp_path / f"s{fold}" / "split.parquet")
        valid += table["id"][table["split"] == "valid"].tolist()
    assert len(valid) == len(set(valid)) == 160


def test_patches_of_no_domain_or_of_a_slide_of_the_held_out_one_are_left_out(domain_pack, tmp_path):
    slides = by_slide()
    domains = domains_of(slides)
    domains[0], domains[8] = "", "west"  # slide s00 is of north, s01 of south
    split = make_split(
        domain_pack(slides, domains), SplitConfig(kind="leave_one_domain_out", domain="south"), tmp_path / "s"
    )
    assert sum(sum(classes.values()) for classes in split.counts.values()) == COUNT - 2
    assert "2 patches that have no domain, or share a slide or pixels with this one, were left out" in split.meaning


def test_without_slides_validation_is_called_optimistic(tmp_path, patch_set):
    patches = patch_set(COUNT)
    lines = [f"{name},{i % 2},{'ab'[i // 2 % 2]}" for i, name in enumerate(patches.ids)]
    patches.files["train_labels.csv"] = ("\n".join(["id,label,domain", *lines]) + "\n").encode()
    config = SourceConfig(kind="path", path=str(patches.zip(tmp_path / "patches.zip")))
    pack = build_pack(fetch(config, 2), config, tmp_path / "packs", 2)
    split = make_split(pack, SplitConfig(kind="leave_one_domain_out", domain="b"), tmp_path / "s")
    assert split.counts["test"] == {"0": 60, "1": 60}
    assert "validation is optimistic" in split.meaning


def test_an_unknown_domain_is_answered_with_those_that_are_known(domain_pack, tmp_path):
    config = SplitConfig(kind="leave_one_domain_out", domain="South")
    pack = domain_pack(by_slide(), domains_of(by_slide()))
    with pytest.raises(SplitError, match=r"split\.domain is 'South', but the patches are of north, south, west"):
        make_split(pack, config, tmp_path / "s")
    with pytest.raises(SplitError, match="no patch has a domain; give a column domain"):
        make_split(domain_pack(by_slide(), [""] * COUNT), config, tmp_path / "s")
    one_class = ["east" if i % 2 and i < 20 else "west" for i in range(COUNT)]
    with pytest.raises(SplitError, match=r"test split 0 patches of class 0 .* choose another split\.domain"):
        make_split(domain_pack(by_slide(1), one_class), config.model_copy(update={"domain": "east"}), tmp_path / "s")
    with pytest.raises(SplitError, match="every patch with a domain is of South"):
        make_split(domain_pack(by_slide(), ["South"] * COUNT), config, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_domain_and_its_kind_are_given_together_and_no_share_for_test():
    for keys in ({"kind": "leave_one_domain_out"}, {"domain": "north"}, {"kind": "slide", "domain": "north"}):
        with pytest.raises(ValidationError, match="or neither"):
            SplitConfig.model_validate(keys)
    with pytest.raises(ValidationError, match="the domain is the test split"):
        SplitConfig(kind="leave_one_domain_out", domain="north", test=0.1)


def test_training_may_stop_early_where_a_domain_is_test():
    keys = {"finetune": {"early_stopping_patience": 2}}
    domain = {"split": {"kind": "leave_one_domain_out", "domain": "north"}}
    assert TrainConfig.model_validate(keys | domain).split.has_test
    with pytest.raises(ValidationError, match=r"or split\.kind=leave_one_domain_out"):
        TrainConfig.model_validate(keys)


def test_a_run_from_before_the_key_has_the_same_config():
    assert "domain" not in TrainConfig().result_keys()["split"]
    keys = {"split": {"kind": "leave_one_domain_out", "domain": "north"}}
    assert TrainConfig.model_validate(keys).result_keys()["split"]["domain"] == "north"
