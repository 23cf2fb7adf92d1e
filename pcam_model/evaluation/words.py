"""The report's sentences."""

from collections.abc import Mapping
from typing import Any

from pcam_model.evaluation.evidence import Example, LrCurve
from pcam_model.evaluation.style import STAGE_NAME

SIDE = {"valid": "Validation", "test": "Test", "train": "Training", "new": "New patches"}
CLASS = {0: "no tumour", 1: "tumour"}
POINT = {"youden": "Youden", "sensitivity95": "Sensitivity ≥ 0.95", "specificity95": "Specificity ≥ 0.95"}
GENERATED = ("It was trained and scored on generated patches, which only look like tissue: it knows nothing of real "
             "tissue, and these figures say only that the pipeline works.")  # fmt: skip
FEW = 20  # slides, below which the bootstrap over them is rough


def sentences(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates say about the content."""
    side = content["sides"][content["headline"]]
    return {
        "lead": _lead(content),
        "interval_words": _intervals(side),
        "figure_words": _figures(content),
        "point_words": _points(content, side),
        "calibration_words": _calibration(content),
        "generated_words": GENERATED if content["plan"].get("source", {}).get("kind") == "sample" else "",
        "pointing_words": _pointing(content["pointing"]),
        "data": _data(content),
    }


def _lead(content: Mapping[str, Any]) -> str:
    network = content["plan"].get("network", {})
    name, size = network.get("name", "A network"), network.get("size")
    seen = f", looking at {size} × {size} pixels" if size else ""
    return f"{name}{seen}, trained on {content['pack'].get('source', 'a source that was not named')}."


def _intervals(side: Mapping[str, Any]) -> str:
    over, units = side["intervals"]["over"], side["intervals"]["units"]
    said = f"Intervals are 95 %, from {side['intervals']['resamples']:,} bootstrap resamples of {units:,} {over}."
    if over == "patches":
        return f"{said} Slides are not known, so patches of one count as independent: the intervals are too narrow."
    return f"{said} So few slides give rough intervals." if units < FEW else said


def _figures(content: Mapping[str, Any]) -> str:
    hows = "; ".join(f"{SIDE.get(name, name).lower()} part {side['how']}" for name, side in content["sides"].items())
    own = content["sides"][content["headline"]]["operating_point"]
    return (
        f"Accuracy to F1 at the operating point “{point(own)}”; NLL (in nats), Brier score and ECE (15 bins) after "
        f"calibration, lower is better. Thresholds and temperature: {hows}."
    )


def _points(content: Mapping[str, Any], side: Mapping[str, Any]) -> str:
    wanted = content["operating_point"]
    said = f"Thresholds: {side['how']}. A rule that was met on the part that chose it need not be met here."
    if wanted not in side["points"]:
        said += f" {point(wanted)} was asked for, but could not be chosen: {point(side['operating_point'])} stands in."
    return said


def _calibration(content: Mapping[str, Any]) -> str:
    temperature, how = content["chosen"]["temperature"], content["chosen"]["how"]
    tendency = "too sure of itself" if temperature > 1.02 else "too timid" if temperature < 0.98 else "well calibrated"
    return f"temperature {temperature:.3f}, {how} (the network was {tendency})."


def _pointing(found: Mapping[str, Any] | None) -> str:
    if found is None or found["share"] is None:
        return ""
    blank = f"; {found['blank']:,} without any heat are left out" if found["blank"] else ""
    return (f"Over {found['patches']:,} tumours that were found, {found['share']:.0%} of the heat lies inside the "
            f"square (chance: {found['chance']:.0%}){blank}.")  # fmt: skip


def _data(content: Mapping[str, Any]) -> dict[str, str]:
    pack, split = content["pack"], content["split"]
    rows = {"Source": str(pack.get("source", "–")), "Split": str(split.get("kind", "–"))}
    for side, counts in split.get("counts", {}).items():
        none, some = counts.get("0", 0), counts.get("1", 0)
        rows[SIDE.get(side, side)] = f"{none + some:,} patches, {some:,} with tumour" if none + some else "none"
    rows["Pack"] = str(pack.get("digest", "–"))[:16]
    return rows


def sentence(said: str) -> str:
    """A capital in front and a full stop behind."""
    said = said.strip()
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '!', '?')) or not said else '.'}"


def search(stage: str, curve: LrCurve) -> str:
    """What an LR search ended in."""
    return f"LR search, {STAGE_NAME[stage].lower()}: rate {curve['rate']:.3g} ({curve['how']})."


def caption(example: Example, probability: float) -> str:
    """What an example is, what it was called and what its heat explains."""
    slide = f", slide {example.slide}" if example.slide else ""
    heat = f"Heat: {CLASS[example.predicted]}." if example.heat is not None else ""
    return (f"Is {CLASS[example.label]}, called {CLASS[example.predicted]} "
            f"(tumour {probability:.3f}){slide}. {heat}".strip())  # fmt: skip


def point(name: str) -> str:
    """An operating point for people."""
    return POINT.get(name, f"Probability {name}")


def figure(value: float | None) -> str:
    """Three decimals; a dash where there is no figure."""
    return "–" if value is None else f"{value:.3f}"


def interval(found: Mapping[str, Any] | None) -> str:
    """A figure with its interval."""
    if found is None:
        return "–"
    ends = "" if found["low"] is None else f" ({figure(found['low'])}–{figure(found['high'])})"
    return figure(found["value"]) + ends


def plain(value: object) -> str:
    """A cost for people: numbers with separators, words as they are."""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
