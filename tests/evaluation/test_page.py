"""The report as a reader meets it: in a browser, at a desk and on a phone, in the light and in the dark."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam_model.evaluation.report import Example, ScoreConfig, write_report
from tests.evaluation.chromium import Chromium, chromium, find_chromium

PROGRAM = find_chromium()
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


def examples() -> list[Example]:
    random, heat = np.random.default_rng(1), np.linspace(0, 1, 96 * 96, dtype=np.float32).reshape(96, 96)
    return [
        Example(group=group, id=f"{'a1b2c3d4' * 5}-{number}", slide="camelyon16_train_tumor_091", label=number % 2,
                predict_rows=(number + 1) % 2, probability=0.93, heat=None if number == 2 else heat,
                patch=random.integers(0, 256, (96, 96, 3), dtype=np.uint8))
        for group in ("Missed tumours, highest loss", "Random hits") for number in range(6)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, module_evidence) -> Path:
    """A report with everything in it, long names included."""
    folder = tmp_path_factory.mktemp("report")
    valid, test = (table.assign(slide="a_slide_with_a_name_that_is_very_long_indeed_" + table["slide"])
                   for table in module_evidence().predictions.values())  # fmt: skip
    noise = np.random.default_rng(2).normal(0, 1, len(test))
    write_report(folder, module_evidence(
        run="a-run-whose-name-takes-more-room-than-a-phone-has-in-one-line", examples=examples(),
        predictions={"valid": valid, "test": test}, score=ScoreConfig(tta=True),
        pointing={"share": 0.31, "chance": 1 / 9, "patches": 120, "blank": 3},
        single_view={"test": test.assign(logit1=test["logit1"] + noise)},
    ))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    assert PROGRAM is not None
    with chromium(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_it_opens_from_disk_whole_and_quiet(report, browser, width, scheme):
    address = (report / "report.html").as_uri()
    browser.open(address, width, scheme=scheme)
    asked = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
    assert asked[0] == address and all(other.startswith("data:") for other in asked[1:])
    assert browser.happened("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    pictures = browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(pictures) == 22 and all(pictures)
    drawn = browser.value("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
    assert len(drawn) == 7 and sum(each > 200 for each in drawn) == 6  # the losses are there wide and narrow
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    beyond = "e => e.getBoundingClientRect().right > innerWidth && !e.closest('svg')"
    names = f"[...document.querySelectorAll('body *')].filter({beyond}).map(e => e.tagName + ' ' + e.className)"
    assert browser.value(names) == []


@in_a_browser
def test_dark_and_light_differ_and_print_is_light(report, browser):
    colours = []
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        browser.open((report / "report.html").as_uri(), 1000, media=media, scheme=scheme)
        ink = "getComputedStyle(document.querySelector('svg text tspan, svg text')).fill"
        colours.append((browser.value("getComputedStyle(document.body).backgroundColor"), browser.value(ink)))
    light, dark, printed = colours
    assert light[0] == "rgb(244, 245, 247)" and dark[0] == "rgb(15, 18, 21)" and printed[0] == "rgb(255, 255, 255)"
    assert light[1] != dark[1] and printed[1] != dark[1]


def test_the_page_names_no_address_and_runs_no_script(report):
    page = (report / "report.html").read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r"base64,[^\"]*", "", page)))
    assert addresses <= {"http://www.w3.org"}  # the name spaces of SVG
    assert "<script" not in page and "@import" not in page


def test_what_users_name_is_text_and_never_markup(tmp_path, make_evidence):
    table = make_evidence().predictions["valid"]
    bad = "<img src=x onerror=alert(1)>"
    write_report(tmp_path, make_evidence(run=bad, predictions={"valid": table.assign(slide=bad + table["slide"])}))
    page = (tmp_path / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_the_caption_names_the_class_that_the_heat_explains_and_a_blank_map_is_no_explanation(report):
    page = (report / "report.html").read_text()
    assert "Is no tumour, called tumour (tumour 0.930), slide camelyon16_train_tumor_091. Heat: tumour." in page
    assert page.count("Nothing here spoke for tumour") == 2
    assert "31% of the heat lies inside the square (chance: 11%)" in page


def test_the_card_is_a_whole_markdown_document(report):
    card = (report / "MODEL_CARD.md").read_text()
    for title in ("Intended use", "Figures", "Operating points", "Data", "Training", "Limits"):
        assert f"\n\n## {title}\n\n" in card
    assert "**Not for clinical use.**" in card
    tables = [block for block in card.split("\n\n") if block.startswith("|")]
    for block in tables:
        rows = block.strip().split("\n")
        assert len(rows) > 3 and len({row.count("|") for row in rows}) == 1, block


def test_a_model_of_generated_patches_says_that_it_knows_no_tissue(tmp_path, make_evidence):
    write_report(tmp_path, make_evidence(config={"source": {"kind": "sample"}}))
    assert "knows nothing of real tissue" in (tmp_path / "report.html").read_text()
    assert "knows nothing of real tissue" in (tmp_path / "MODEL_CARD.md").read_text()


def test_the_predictions_are_there_to_compute_everything_again(report):
    table = pd.read_parquet(report / "predictions.parquet")
    assert list(table.columns) == ["id", "side", "slide", "label", "logit0", "logit1", "logit", "probability", "called"]
    assert table["side"].value_counts().to_dict() == {"valid": 400, "test": 400}
    assert np.allclose(table["logit"], table["logit1"] - table["logit0"])
    test = table[table["side"] == "test"]
    assert ((test["probability"] >= 0.5) == (test["called"] == 1)).all()
