"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    str, typer.Option("--store", envvar="PCAM_STORE", help="The store: file:///folder or s3://bucket/prefix.")
]
PresetOption = Annotated[
    str, typer.Option("--preset", help="A ready configuration: sample, quick, pcam or recipe; see `pcam config`.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A YAML file of keys, as `pcam config` prints; overrides the preset.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One key and its value, as in finetune.epochs=3; may be repeated.")
]
