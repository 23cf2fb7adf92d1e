"""Who is train, who valid, who test; with the proof that the sides share no pixels and, where asked, no slide."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.data.divide import divide, groups_of
from pcam_model.data.pack import Pack, table
from pcam_model.data.proof import SIDES, Kind, counted, meaning, prove, refuse_one_class
from pcam_model.errors import BadPlan, BadSplit
from pcam_model.files import room_on_disk, write_whole
from pcam_model.records import Plan, Record

TABLE, RECORD = "split.parquet", "split.json"


class SplitPlan(Plan):
    """How to divide the labelled patches."""

    kind: Literal["auto", "random", "slide", "official"] = "auto"
    """official: as the source divides; slide: no slide on two sides; random: any patch; auto: the first possible."""
    valid: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the patches for validation."""
    test: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the patches to report on, on which nothing is chosen."""
    seed: int = Field(default=2, ge=0)
    """Another seed, another division."""
    without_slide: Literal["refuse", "alone"] = "refuse"
    """Patches that the slide map does not name: refused, or each a slide of its own."""


class Split(Record):
    """A division of a pack, with what figures on it mean."""

    path: str
    """The folder of split.parquet (id, side) and split.json."""
    digest: str
    """SHA-256 over the sorted ids and their sides."""
    kind: Kind
    """How the patches were divided."""
    counts: dict[str, dict[str, int]]
    """Patches of each class ("0", "1") on each side."""
    meaning: str
    """What a figure on this split says, and what it does not."""


def make_split(pack: Pack, plan: SplitPlan, folder: Path) -> Split:
    """Divide the pack's labelled patches and write the division and its proof into `folder`.

    Does not depend on the order of the rows. Raises BadSplit where the patches cannot be divided so.
    """
    rows = table(pack)
    rows = rows[rows["label"].notna()].sort_values("id", ignore_index=True).astype({"label": int})
    kind = plan.kind if plan.kind != "auto" else best_kind(rows)
    side = divided(rows, kind, plan)
    counts = counted(rows, side)
    refuse_one_class(counts, kind)
    proof = prove(rows, side, kind)
    listing = "".join(f"{i} {s}\n" for i, s in zip(rows["id"], side, strict=True))
    split = Split(
        path=str(folder),
        digest=hashlib.sha256(listing.encode()).hexdigest(),
        kind=kind,
        counts=counts,
        meaning=meaning(kind, proof),
    )
    with room_on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = pd.DataFrame({"id": rows["id"], "side": side}).to_parquet(index=False)
        write_whole(folder / TABLE, content)
        written = {
            **split.model_dump(exclude={"path"}),
            "pack": pack.model_dump(),
            "plan": plan.model_dump(),
            "proof": proof.model_dump(),
        }
        write_whole(folder / RECORD, json.dumps(written, indent=1).encode())
    return split


def sides(split: Split) -> dict[str, NDArray[np.int64]]:
    """The rows of the pack on each side (train, valid, test), ascending; test may be empty."""
    folder = Path(split.path)
    try:
        pack = Pack(**json.loads((folder / RECORD).read_bytes())["pack"])
        found = pd.read_parquet(folder / TABLE)
    except (OSError, ValueError, KeyError) as error:
        raise BadSplit(
            f"{folder}: no whole split lies here ({type(error).__name__}); delete the folder and split again"
        ) from error
    of = table(pack)["id"].map(found.set_index("id")["side"])
    return {side: np.flatnonzero(of == side).astype(np.int64) for side in SIDES}


def best_kind(rows: pd.DataFrame) -> Kind:
    """What `auto` means for these patches."""
    if {"train", "valid"} <= set(rows["origin"]) <= set(SIDES):
        return "official"
    return "slide" if rows["slide"].notna().any() else "random"


def divided(rows: pd.DataFrame, kind: Kind, plan: SplitPlan) -> NDArray[np.str_]:
    """The side of each row, "" for the few that an official split leaves out."""
    if kind == "official":
        return official(rows)
    if plan.valid + plan.test >= 1:
        raise BadPlan(
            f"split.valid and split.test together are {plan.valid + plan.test:g}; less than 1 must remain for training"
        )
    pixels = pd.factorize(rows["pixels"])[0]
    if kind == "random":
        return divide(rows["label"].to_numpy(), pixels, plan.valid, plan.test, plan.seed, "groups of different patches")
    slides = slide_codes(rows, plan)
    groups = groups_of(pixels, slides)
    return divide(rows["label"].to_numpy(), groups, plan.valid, plan.test, plan.seed, "slides without shared patches")


def slide_codes(rows: pd.DataFrame, plan: SplitPlan) -> NDArray[np.int64]:
    """A number a slide."""
    lost = rows["id"][rows["slide"].isna()]
    if len(lost) == len(rows):
        raise BadSplit(
            "split.kind is slide, but the slides of the patches are not known; give their map (a CSV with the columns "
            "id,wsi) as source.slides, or choose split.kind=random"
        )
    if len(lost) and plan.without_slide == "refuse":
        raise BadSplit(
            f"the slide map does not name {len(lost):,} of {len(rows):,} patches (first: {lost.iat[0]}); every patch "
            "needs a slide; complete the map, or take each as a slide of its own with split.without_slide=alone"
        )
    named = rows["slide"].astype(object).where(rows["slide"].notna(), "\0" + rows["id"].astype(object))
    return np.asarray(pd.factorize(named)[0], np.int64)


def official(rows: pd.DataFrame) -> NDArray[np.str_]:
    """The source's own sides; of identical patches on two sides those that train (or valid) has are left out."""
    if not {"train", "valid"} <= set(rows["origin"]) <= set(SIDES):
        raise BadSplit(
            f"split.kind is official, but the source divides its labelled patches into {sorted(set(rows['origin']))}; "
            "train and valid are needed; choose split.kind=random, or slide with a slide map"
        )
    side = rows["origin"].to_numpy().astype("<U5")
    rank = rows["origin"].map(SIDES.index)
    side[(rank < rank.groupby(rows["pixels"]).transform("max")).to_numpy()] = ""
    return side
