"""Write docs/configuration.md and docs/cli.md from the configuration's classes and the command line.

python -m docs.generate
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

from pcam_model.cli.main import EXIT_CODES, app
from pcam_model.config_docs import KeyDoc, key_docs, section_docs, yaml_value
from pcam_model.config_reader import PRESETS
from pcam_model.presets import preset_text

FOLDER = Path(__file__).parent
GENERATED = "<!-- Made by `python -m docs.generate`: change the docstrings and run it again. -->"


def main() -> None:
    """Write both pages."""
    (FOLDER / "configuration.md").write_text(configuration_page(), "utf-8")
    (FOLDER / "cli.md").write_text(cli_page(), "utf-8")


def configuration_page() -> str:
    """The page of every key and every preset."""
    return "\n".join(_configuration_lines())


def cli_page() -> str:
    """The page of every command."""
    return "\n".join(_cli_lines())


def _configuration_lines() -> Iterator[str]:
    yield from ("# Configuration", "", GENERATED, "")
    yield (
        "A run is configured by a preset, a YAML file and single keys; each overrides those before it, and a key that "
        "is not given has its default:"
    )
    yield from ("", "```")
    yield "pcam train --preset quick --config my.yaml --set finetune.epochs=3 --set seed=4"
    yield from ("```", "")
    yield (
        "`pcam config` prints a preset, or the defaults, as such a file with the text of this page as comments; "
        "`pcam config --schema` prints the JSON schema. An unknown key is answered with the nearest one."
    )
    yield ""
    descriptions = section_docs()
    keys = sorted(key_docs(), key=lambda key: "." not in key.name)  # the keys without a section first
    for section, members in groupby(keys, key=lambda key: key.name.rpartition(".")[0]):
        yield from (f"## {section or 'Top level'}", "")
        if section:
            yield from (descriptions[section], "")
        yield from ("| key | values | default | meaning |", "|---|---|---|---|")
        yield from (_key_row(key) for key in members)
        yield ""
    yield from ("## Presets", "")
    yield "The keys that each preset sets; all others have their defaults."
    for preset in PRESETS:
        yield from ("", f"### {preset}", "", "```yaml", preset_text(preset).rstrip(), "```")
    yield ""


def _key_row(key: KeyDoc) -> str:
    cells = (f"`{key.name}`", key.values, f"`{yaml_value(key.default)}`", key.description)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cli_lines() -> Iterator[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    yield from ("# Command line", "", GENERATED, "")
    yield from (EXIT_CODES, "")
    yield (
        "`--json` prints a command's result as JSON on standard output; notes for people go to standard error. "
        "`pcam --install-completion` installs completion for the shell."
    )
    yield from ("", "## Options of `pcam` itself", "")
    yield from _parameter_table(group)
    commands = list(group.commands.values())
    for panel, members in groupby(commands, key=lambda command: str(getattr(command, "rich_help_panel", ""))):
        yield from (f"## {panel}", "")
        for command in members:
            yield from _command_lines(command)


def _command_lines(command: Any) -> Iterator[str]:
    yield from (f"### pcam {command.name}", "", (command.help or "").strip(), "")
    yield from ("```", (command.epilog or "").removeprefix("Example: "), "```", "")
    yield from _parameter_table(command)


def _parameter_table(command: Any) -> Iterator[str]:
    yield from ("| argument or option | meaning |", "|---|---|")
    for parameter in command.params:
        if parameter.name in ("install_completion", "show_completion"):
            continue
        yield f"| {_names(parameter)} | {_meaning(parameter)} |"
    yield ""


def _names(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return f"`{parameter.metavar}`"
    value = f" {parameter.metavar}".replace("|", "\\|") if parameter.metavar else ""
    return ", ".join(f"`{flag}{value}`" for flag in [*parameter.opts, *parameter.secondary_opts])


def _meaning(parameter: Any) -> str:
    meaning = parameter.help or ""
    default = parameter.default
    if parameter.show_default and default not in (None, "", False):
        meaning += f" Default: `{default}`."
    if parameter.envvar:
        meaning += f" Environment: `{parameter.envvar}`."
    return meaning


if __name__ == "__main__":
    main()
