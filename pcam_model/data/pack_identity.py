"""What a pack is a function of, before it is made: the name under which it is found again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pcam_model.data.source import Archive, SourcePlan
from pcam_model.core.files import sha256

VERSION = 2


def pack_name(archive: Archive, plan: SourcePlan, seed: int) -> str:
    """The name of an archive's pack on this machine."""
    content = {"archive": archive.sha256, **choices(plan, seed)}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def asked(plan: SourcePlan, seed: int) -> dict[str, Any] | None:
    """What names the pack of a source that is downloaded, without a download; None for what lies here anyway."""
    if plan.kind == "kaggle":
        return {"source": "kaggle", **choices(plan, seed)}
    return {"source": plan.path, **choices(plan, seed)} if plan.remote else None


def choices(plan: SourcePlan, seed: int) -> dict[str, Any]:
    """Which of a source's patches are taken, and how."""
    slides = Path(plan.slides).expanduser()
    return {
        "version": VERSION,
        "limit": plan.limit,
        "seed": seed if plan.limit is not None else None,
        "slides": sha256(slides) if plan.slides and slides.is_file() else plan.slides,
        "published": plan.published,
        "on_bad_patch": plan.on_bad_patch,
        "bad_share": plan.bad_share,
    }
