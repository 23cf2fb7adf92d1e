"""The report's sentences."""

from collections.abc import Mapping
from typing import Any

from pcam_model.evaluation.bootstrap import FEW
from pcam_model.evaluation.calibration import BINS
from pcam_model.evaluation.evidence import ELSEWHERE, Example, LrCurve
from pcam_model.evaluation.style import STAGE_NAME

SIDE = {"valid": "Validation", "test": "Test", "train": "Training", "new": "New patches"}
CLASS = {0: "no tumour", 1: "tumour"}
POINT = {"youden": "Youden", "sensitivity95": "Sensitivity ≥ 0.95", "specificity95": "Specificity ≥ 0.95"}
GENERATED = ("It was trained and scored on generated patches, which only look like tissue: it knows nothing of real "
             "tissue, and these figures say only that the pipeline works.")  # fmt: skip


def sentences(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates say about the content."""
    side = content["sides"][content["headline"]]
    return {
        "lead": _lead(content),
        "interval_words": _intervals(side),
        "figure_words": _figures(content),
        "point_words": _points(content, side),
        "calibration_words": _calibration(content),
        "no_test_words": _no_test(content),
        "generated_words": GENERATED if content["config"].get("source", {}).get("kind") == "sample" else "",
        "pointing_words": _pointing(content["pointing"]),
        "data": _data(content),
    }


def _lead(content: Mapping[str, Any]) -> str:
    network, source = content["config"].get("model", {}), content["pack"].get("source", "a source that was not named")
    name, size = network.get("arch", "A network"), network.get("image_size")
    seen = f", looking at {size} × {size} pixels" if size else ""
    if content["published"]:
        return f"{name}{seen}, as it was published; scored on {source}."
    trained = sum(content["split"].get("counts", {}).get("train", {}).values())
    return f"{name}{seen}, trained on {f'{trained:,} patches of ' if trained else ''}{source}."


def _intervals(side: Mapping[str, Any]) -> str:
    over, units = side["intervals"]["unit"], side["intervals"]["units"]
    said = (f"Intervals are 95 %, bias-corrected and accelerated, from {side['intervals']['resamples']:,} bootstrap "
            f"resamples of {units:,} {over}.")  # fmt: skip
    if over == "patches":
        return f"{said} Slides are not known, so patches of one count as independent: the intervals are too narrow."
    few = f" Fewer than {FEW} slides give rough intervals, though these are widened for it."
    return said + few if units < FEW else said


def _no_test(content: Mapping[str, Any]) -> str:
    """What validation figures are worth where no test part stands behind them."""
    if content["headline"] != "valid":
        return ""
    return (
        "There is no test part, so the validation part served for choosing as well: temperature and thresholds are "
        "cross-fitted, but a config that is kept for these figures was chosen by them. They are optimistic; score the "
        "model on other patches, or give split.test above 0."
    )


def _figures(content: Mapping[str, Any]) -> str:
    hows = "; ".join(f"{SIDE.get(name, name).lower()}: {side['method']}" for name, side in content["sides"].items())
    own = content["sides"][content["headline"]]["operating_point"]
    return (
        f"Accuracy to F1 at the operating point “{point(own)}”; NLL (in nats), Brier score and ECE after calibration, "
        f"lower is better. ECE: the gap between probability and share of tumour, averaged over {BINS} bins of equal "
        f"width by their patches. Thresholds and temperature, {hows}."
    )


def _points(content: Mapping[str, Any], side: Mapping[str, Any]) -> str:
    wanted = content["operating_point"]
    said = f"Thresholds: {side['method']}. A rule that was met on the part that chose it need not be met here."
    if wanted not in side["points"]:
        said += f" {point(wanted)} was asked for, but could not be chosen: {point(side['operating_point'])} stands in."
    return said


def _calibration(content: Mapping[str, Any]) -> str:
    temperature, how = content["chosen"]["temperature"], content["chosen"]["method"]
    tendency = "too sure of itself" if temperature > 1.02 else "too timid" if temperature < 0.98 else "well calibrated"
    return f"temperature {temperature:.3f}, {how} (the network was {tendency})."


def gain(side: str, found: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """What averaging 8 views brought on a side, and what it takes."""
    seconds = cost.get("scoring, seconds")
    took = f"; scoring took {seconds:,.0f} s" if seconds else ""
    return (
        f"Averaging 8 views, {SIDE.get(side, side).lower()}: AUC {found['auc_first']:.4f} → {found['auc_second']:.4f}, "
        f"a difference of {found['value']:+.4f} (95 %: {found['low']:+.4f} to {found['high']:+.4f}, over "
        f"{found['unit']}), for 8 forward passes a patch{took}."
    )


def _pointing(found: Mapping[str, Any] | None) -> str:
    if found is None or found["share"] is None:
        return ""
    blank = f"; {found['blank']:,} without any heat are left out" if found["blank"] else ""
    return (f"Over {found['patches']:,} tumours that were found, {found['share']:.0%} of the heat lies inside the "
            f"square (chance: {found['chance']:.0%}){blank}.")  # fmt: skip


def _data(content: Mapping[str, Any]) -> dict[str, str]:
    pack, split = content["pack"], content["split"]
    rows = {"Source": str(pack.get("source", "–"))}
    if split.get("kind") != ELSEWHERE:
        rows["Split"] = str(split.get("kind", "–"))
    for side, counts in split.get("counts", {}).items():
        none, some = counts.get("0", 0), counts.get("1", 0)
        rows[SIDE.get(side, side)] = f"{none + some:,} patches, {some:,} with tumour" if none + some else "none"
    if content["unlabelled"]:
        rows["Unlabelled"] = f"{content['unlabelled']:,} patches, predicted in submission.csv"
    rows["Pack"] = str(pack.get("digest", "–"))[:16]
    return rows


def sentence(said: str) -> str:
    """A capital in front and a full stop behind."""
    said = said.strip()
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '!', '?')) or not said else '.'}"


def search(stage: str, curve: LrCurve) -> str:
    """What an LR search ended in."""
    return f"LR search, {STAGE_NAME[stage].lower()}: rate {curve['lr']:.3g} ({curve['method']})."


def caption(example: Example) -> str:
    """What an example is, what it was called and what its heat explains."""
    slide = f", slide {example.slide}" if example.slide else ""
    heat = f"Heat: {CLASS[example.predict_rows]}." if example.heat is not None else ""
    return (f"Is {CLASS[example.label]}, called {CLASS[example.predict_rows]} "
            f"(tumour {example.probability:.3f}){slide}. {heat}".strip())  # fmt: skip


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
