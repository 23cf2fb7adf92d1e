import importlib
from pathlib import Path

import pytest
import yaml

from pcam_model.core.errors import BadPlan
from pcam_model.config import TrainPlan, checked, read_plan, source_keys

PLANS = Path(__file__).parents[1] / "deployments" / "plans"


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_plan_is_a_plan(path: Path) -> None:
    assert isinstance(read_plan(path), TrainPlan)


def test_the_recipe_is_the_published_one() -> None:
    plan = read_plan(PLANS / "recipe.yaml")
    assert (plan.network.name, plan.network.weights, plan.network.size) == ("resnet50", "imagenet", 224)
    assert (plan.frozen.epochs, plan.tuned.epochs, plan.frozen.batch, plan.tuned.batch) == (30, 30, 64, 64)
    assert (plan.split.kind, plan.split.valid, plan.tuned.spread) == ("random", 0.2, 10)


def test_settings_win_over_the_file_and_keywords_over_settings(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("tuned: {epochs: 5, batch: 32}\nseed: 9\n")
    plan = read_plan(tmp_path / "p.yaml", ["tuned.epochs=3", "frozen.rate=1e-2", "run=x"], run="y")
    assert (plan.tuned.epochs, plan.tuned.batch, plan.seed) == (3, 32, 9)
    assert (plan.frozen.rate, plan.run) == (0.01, "y")


def test_a_source_is_a_kind_or_a_path(tmp_path: Path) -> None:
    assert source_keys("sample") == {"kind": "sample", "path": ""}
    assert source_keys(str(tmp_path / "a.zip")) == {"kind": "path", "path": str(tmp_path / "a.zip")}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tuned.epoch=3", "the plan has no key tuned.epoch; did you mean tuned.epochs?"),
        ("colour=red", "the plan has no key colour"),
        ("tuned.epochs=many", "tuned.epochs is 'many'"),
        ("tuned.rate=fast", "tuned.rate is 'fast'"),
        ("tuned.rate=-1", "tuned.rate is -1"),
        ("network.name=vgg", "network.name is 'vgg'"),
        ("split.valid=1.5", "split.valid is 1.5"),
        ("tuned=3", "tuned is 3"),
        ("tuned.epochs", "write a key of the plan and its value"),
        ("=3", "write a key of the plan and its value"),
        ("seed=[", "seed is '['"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    with pytest.raises(BadPlan) as caught:
        read_plan(sets=[setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "tuned: {epochs\n", "\x00"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(BadPlan, match="p.yaml"):
        read_plan(tmp_path / "p.yaml")


def test_a_missing_plan_and_one_that_trains_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPlan, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(BadPlan, match="both 0"):
        checked({"frozen": {"epochs": 0}, "tuned": {"epochs": 0}})


def test_stopping_early_wants_a_part_that_chose_nothing() -> None:
    with pytest.raises(BadPlan, match="split.test"):
        checked({"tuned": {"patience": 2}})
    assert checked({"tuned": {"patience": 2}, "split": {"test": 0.1}}).tuned.patience == 2
    assert checked({"frozen": {"patience": 1}, "split": {"kind": "official"}}).frozen.patience == 1


def test_the_flow_takes_exactly_the_plans_keys() -> None:
    flow = importlib.import_module("flows.full_train").full_train
    assert list(flow.parameters.properties) == list(TrainPlan.model_fields)
    for name in TrainPlan.model_fields:
        assert name in flow.parameters.properties


def test_every_key_has_a_default_and_a_word_of_help() -> None:
    for name, field in TrainPlan.model_fields.items():
        assert not field.is_required(), name
        inner = getattr(field.annotation, "model_fields", {})
        for key, one in inner.items():
            assert not one.is_required() and one.description, f"{name}.{key}"


def test_a_plan_survives_yaml() -> None:
    plan = read_plan(PLANS / "recipe.yaml")
    assert checked(yaml.safe_load(yaml.safe_dump(plan.model_dump(mode="json")))) == plan
