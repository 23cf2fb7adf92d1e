"""report.html in a browser: wide and narrow, light, dark and printed; and the model card."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam_model.evaluation.evidence import Example, ScoreConfig
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.report import write_report
from pcam_model.evaluation.report_schema import HeatInCentre, PackSummary
from tests.evaluation.chromium import Chromium, chromium, find_chromium
from tests.evaluation.conftest import predictions, split_predictions

PROGRAM = find_chromium()
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


def examples() -> list[Example]:
    random, heat = np.random.default_rng(1), np.linspace(0, 1, 96 * 96, dtype=np.float32).reshape(96, 96)
    return [
        Example(group=group, id=f"{'a1b2c3d4' * 5}-{number}", slide="camelyon16_train_tumor_091", label=number % 2,
                predicted=(number + 1) % 2, probability=0.93, heat=None if number == 2 else heat,
                patch=random.integers(0, 256, (96, 96, 3), dtype=np.uint8))
        for group in ("Missed tumours, highest loss", "Random hits") for number in range(6)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_evidence) -> Path:
    """A report with everything in it, long names included."""
    folder = tmp_path_factory.mktemp("report")
    valid, test = (
        table.assign(slide="a_slide_with_a_name_that_is_very_long_indeed_" + table["slide"])
        for table in (predictions(400, 1), predictions(400, 2))
    )
    noise = np.random.default_rng(2).normal(0, 1, len(test))
    write_report(folder, make_evidence(
        run="a-run-whose-name-takes-more-room-than-a-phone-has-in-one-line", examples=examples(),
        score=ScoreConfig(tta=True),
        heat_in_centre=HeatInCentre(mean_share=0.31, chance=1 / 9, patches=120, blank=3),
        predictions={
            "valid": SplitPredictions(valid),
            "test": SplitPredictions(test, single_view=test.assign(logit1=test["logit1"] + noise)),
        },
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
def test_it_opens_from_disk_complete_and_without_messages(report, browser, width, scheme):
    address = (report / "report.html").as_uri()
    browser.open(address, width, scheme=scheme)
    requested = [event["request"]["url"] for event in browser.events_of("Network.requestWillBeSent")]
    assert requested[0] == address
    assert all(other.startswith("data:") for other in requested[1:])
    assert browser.events_of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    pictures = browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(pictures) == 22
    assert all(pictures)
    drawn = browser.value("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
    assert len(drawn) == 7
    assert sum(each > 200 for each in drawn) == 6
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
    assert light[0] == "rgb(244, 245, 247)"
    assert dark[0] == "rgb(15, 18, 21)"
    assert printed[0] == "rgb(255, 255, 255)"
    assert light[1] != dark[1]
    assert printed[1] != dark[1]


def test_the_page_names_no_address_and_runs_no_script(report):
    page = (report / "report.html").read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r"base64,[^\"]*", "", page)))
    assert addresses <= {"http://www.w3.org"}  # the name spaces of SVG
    assert "<script" not in page
    assert "@import" not in page


def test_what_users_name_is_text_and_never_markup(tmp_path, make_evidence):
    table = predictions(100, 1)
    bad = "<img src=x onerror=alert(1)>"
    named = split_predictions(valid=table.assign(slide=bad + table["slide"]))
    write_report(tmp_path, make_evidence(run=bad, predictions=named))
    page = (tmp_path / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_the_caption_names_the_class_that_the_heat_explains_and_a_blank_map_is_no_explanation(report):
    page = (report / "report.html").read_text()
    caption = "Label no tumour, predicted tumour (probability of tumour 0.930), slide camelyon16_train_tumor_091."
    assert f"{caption} Heat: tumour." in page
    assert page.count("Nothing here spoke for tumour") == 2
    assert "31% of the heat lies inside the square (chance: 11%)" in page


def test_the_card_is_a_whole_markdown_document(report):
    card = (report / "MODEL_CARD.md").read_text()
    for title in ("Intended use", "Metrics", "Operating points", "Data", "Training", "Limits"):
        assert f"\n\n## {title}\n\n" in card
    assert "**Not for clinical use.**" in card
    tables = [block for block in card.split("\n\n") if block.startswith("|")]
    for block in tables:
        rows = block.strip().split("\n")
        assert len(rows) > 3, block
        assert len({row.count("|") for row in rows}) == 1, block


@pytest.mark.parametrize(
    ("assumed", "row"), [(True, "0.5 µm (assumed: the source does not tell it)"), (False, "0.5 µm")]
)
def test_the_card_tells_the_pixel_size_and_whether_it_is_assumed(tmp_path, make_evidence, assumed, row):
    few = split_predictions(valid=predictions(100, 1))
    pack = PackSummary(digest="ab" * 32, mpp=0.5, mpp_assumed=assumed)
    write_report(tmp_path, make_evidence(pack=pack, predictions=few))
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert f"- Pixel size: {row}\n" in card
    assert f"trained on: 0.5 µm a pixel{' (assumed)' if assumed else ''}, stained" in card


def test_a_model_of_generated_patches_says_that_it_knows_no_tissue(tmp_path, make_evidence):
    few = split_predictions(valid=predictions(100, 1))
    write_report(tmp_path, make_evidence(config={"source": {"kind": "sample"}}, predictions=few))
    assert "nothing about real tissue" in (tmp_path / "report.html").read_text()
    assert "nothing about real tissue" in (tmp_path / "MODEL_CARD.md").read_text()


def test_the_predictions_are_there_to_compute_everything_again(report):
    table = pd.read_parquet(report / "predictions.parquet")
    columns = ["id", "split", "slide", "label", "logit0", "logit1", "logit", "probability", "predicted"]
    assert list(table.columns) == columns
    assert table["split"].value_counts().to_dict() == {"valid": 400, "test": 400}
    assert np.allclose(table["logit"], table["logit1"] - table["logit0"])
    test = table[table["split"] == "test"]
    assert ((test["probability"] >= 0.5) == (test["predicted"] == 1)).all()
