"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pcam_model.cli.logs import set_quiet, set_verbose

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PCAM_STORE",
        metavar="URI",
        help="The store: file:///folder or s3://bucket/prefix. By default the folder .pcam/store here.",
        show_default=False,
    ),
]
SourceOption = Annotated[
    str,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="The patches: sample, kaggle, a .zip, a folder, or an http(s) address. By default the preset's.",
        show_default=False,
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A ready configuration: sample, quick, pcam or recipe. By default the defaults that `pcam config` prints.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A YAML file of keys, as `pcam config` prints it. It overrides the preset.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One key of the configuration, as in finetune.epochs=3. It overrides preset and file; may be repeated.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of text.")]
TtaOption = Annotated[
    bool | None,
    typer.Option(
        "--tta/--no-tta",
        help="Average over the 8 symmetries of a patch, or not. By default as the model was calibrated.",
        show_default=False,
    ),
]
BackendOption = Annotated[
    Literal["auto", "torch", "onnx", "openvino"],
    typer.Option(
        "--backend",
        metavar="NAME",
        help="The network's runtime: torch, onnx, openvino, or auto: onnx on a CPU, torch on a GPU.",
    ),
]
PrecisionOption = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        "--precision",
        metavar="float32|bfloat16",
        help="bfloat16 is faster and less exact; it needs OpenVINO, and a CPU that supports it.",
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", callback=set_verbose, help="Show debug lines, and Prefect's own lines.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", callback=set_quiet, help="Show warnings and errors only.")]
