"""The name of a pack, a function of its source and config, known before it is built."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pcam_model.core.files import sha256
from pcam_model.data.source import Archive, SourceConfig

VERSION = 4
"""Of the pack's files."""


def pack_name(archive: Archive, config: SourceConfig, seed: int) -> str:
    """The folder name of an archive's pack: 32 hexadecimal digits."""
    content = {"archive": archive.sha256, **content_keys(config, seed)}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def remote_pack_key(config: SourceConfig, seed: int) -> dict[str, Any] | None:
    """What identifies the pack of a downloaded source without a download; None for local files and the sample."""
    if config.kind == "kaggle":
        return {"source": "kaggle", **content_keys(config, seed)}
    return {"source": config.path, **content_keys(config, seed)} if config.is_remote else None


def content_keys(config: SourceConfig, seed: int) -> dict[str, Any]:
    """The config keys that decide a pack's content, beside the source itself."""
    slides = Path(config.slides).expanduser()
    return {
        "version": VERSION,
        "max_patches": config.max_patches,
        "seed": seed if config.max_patches is not None else None,
        "slides": sha256(slides) if config.slides and slides.is_file() else config.slides,
        "verify_md5": config.verify_md5,
        **({"classes": list(config.classes)} if config.classes else {}),
        "on_bad_patch": config.on_bad_patch,
        "max_bad_fraction": config.max_bad_fraction,
    }
