"""What a pack is a function of, before it is made: the name under which it is found again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pcam_model.core.files import sha256
from pcam_model.data.source import Archive, SourceConfig

VERSION = 2


def pack_name(archive: Archive, config: SourceConfig, seed: int) -> str:
    """The name of an archive's pack on this machine."""
    content = {"archive": archive.sha256, **choices(config, seed)}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def asked(config: SourceConfig, seed: int) -> dict[str, Any] | None:
    """What names the pack of a source that is downloaded, without a download; None for what lies here anyway."""
    if config.kind == "kaggle":
        return {"source": "kaggle", **choices(config, seed)}
    return {"source": config.path, **choices(config, seed)} if config.remote else None


def choices(config: SourceConfig, seed: int) -> dict[str, Any]:
    """Which of a source's patches are taken, and how."""
    slides = Path(config.slides).expanduser()
    return {
        "version": VERSION,
        "limit": config.max_patches,
        "seed": seed if config.max_patches is not None else None,
        "slides": sha256(slides) if config.slides and slides.is_file() else config.slides,
        "published": config.verify_md5,
        "on_bad_patch": config.on_bad_patch,
        "max_bad_fraction": config.max_bad_fraction,
    }
