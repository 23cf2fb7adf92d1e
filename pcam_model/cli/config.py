"""The command `pcam config`."""

from typing import Annotated

import typer

from pcam_model.cli.options import ConfigOption, JsonOption, SetOption
from pcam_model.cli.output import print_json


def config(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="[PRESET]", help="sample, quick, pcam or recipe. Without one, the defaults.", show_default=False
        ),
    ] = "",
    file: ConfigOption = None,
    settings: SetOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of all keys instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a configuration as YAML: every key with its value, meaning, range and default.

    The output is itself a file for --config.
    """
    from pcam_model.config import TrainConfig
    from pcam_model.config_docs import commented_yaml
    from pcam_model.config_reader import resolve_config

    if schema:
        return print_json(TrainConfig.model_json_schema())
    resolved = resolve_config(preset, file, settings or [])
    if as_json:
        return print_json(resolved.model_dump(mode="json"))
    name = f"The preset {preset}" if preset else "The defaults"
    changes = [str(file)] * (file is not None) + list(settings or [])
    title = f"{name}, with {', '.join(changes)}" if changes else name
    print(commented_yaml(resolved, f"{title}. Every key may be left out."), end="")
