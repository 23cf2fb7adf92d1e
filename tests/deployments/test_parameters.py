"""What a user asks of `make train` becomes the flow's parameters."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from clone import make_project

from pcam_model.core.errors import ConfigError, PcamError, SourceError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    content = {"source": {"kind": "sample", "max_patches": 10}, "finetune": {"epochs": 1}, "run": "", "seed": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return "config.yaml"


@pytest.fixture
def ask(config: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The parameters for a value of each of the Makefile's variables."""
    from deployments.local.__main__ import resolve_parameters

    def parameters(**variables: str) -> dict[str, Any]:
        for name, value in ({"CONFIG": config} | variables).items():
            monkeypatch.setenv(f"PCAM_MAKE_{name}", value)
        return dict(resolve_parameters()["config"])

    return parameters


Ask = Callable[..., dict[str, Any]]


def test_what_is_set_by_hand_wins_over_the_file_and_keeps_the_rest(ask: Ask) -> None:
    parameters = ask(SET="finetune.epochs=3 finetune.lr=1e-4 model.arch=mobilenet_v2 seed=4", RUN="mine")
    assert (parameters["finetune"]["epochs"], parameters["finetune"]["lr"], parameters["model"]["arch"]) == (
        3,
        1e-4,
        "mobilenet_v2",
    )
    assert (parameters["seed"], parameters["run"], parameters["source"]["max_patches"]) == (4, "mine", 10)


def test_a_key_that_is_set_keeps_the_presets_other_keys(ask: Ask) -> None:
    config = ask(CONFIG="", PRESET="recipe", SOURCE="sample", SET="finetune.epochs=3")
    assert (config["finetune"]["epochs"], config["frozen"]["epochs"], config["finetune"]["lr"]) == (3, 30, 1e-4)
    assert ask(CONFIG="", PRESET="", SET="")["model"]["arch"] == "resnet18"  # the sample, where nothing is named


def test_a_path_that_is_there_is_taken_and_a_run_without_a_name_gets_one(ask: Ask, tmp_path: Path) -> None:
    for name in ("a.zip", "w.pth", "slides.csv"):
        (tmp_path / name).touch()
    parameters = ask(SOURCE="./a.zip", SET="model.weights=w.pth source.slides=slides.csv")
    assert (parameters["source"]["kind"], parameters["source"]["path"]) == ("path", str(tmp_path / "a.zip"))
    assert (parameters["model"]["weights"], parameters["source"]["slides"]) == (
        str(tmp_path / "w.pth"),
        str(tmp_path / "slides.csv"),
    )
    assert parameters["run"]
    assert parameters["store"]["uri"] == (tmp_path / ".pcam" / "store").as_uri()


def test_names_that_are_no_paths_stay_as_they_are(ask: Ask) -> None:
    parameters = ask(SOURCE="kaggle", SET="model.weights=imagenet", STORE="s3://bucket/pcam")
    assert (parameters["source"]["kind"], parameters["source"]["path"]) == ("kaggle", "")
    assert (parameters["model"]["weights"], parameters["store"]["uri"]) == ("imagenet", "s3://bucket/pcam")


@pytest.mark.parametrize(
    ("variables", "kind", "named"),
    [
        ({"SOURCE": "no.zip"}, SourceError, "source.path"),
        ({"SET": "model.weights=no.pth"}, SourceError, "model.weights"),
        ({"SET": "finetune.epochs"}, ConfigError, "finetune.epochs"),
        ({"SET": "finetune.epocs=1"}, ConfigError, "finetune.epocs"),
        ({"SET": "run='"}, ConfigError, "SET="),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    ask: Ask, variables: dict[str, str], kind: type[PcamError], named: str
) -> None:
    with pytest.raises(kind, match=r".") as caught:
        ask(**variables)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("words", "code"), [(("down",), 0), (("sideways",), 2), ((), 2)])
def test_down_is_quick_and_wrong_usage_is_told_so(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    started = time.monotonic()
    heavy = "import runpy; runpy.run_module('deployments.local', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", heavy, *words],
        cwd=make_project(tmp_path / "clone"),
        capture_output=True,
    )
    assert done.returncode == code
    assert time.monotonic() - started < 10
    assert not {b"torch", b"prefect"} & {line.split()[-1] for line in done.stderr.splitlines() if b"|" in line}
