"""Help, version and structure of the command line; nothing here opens a store or trains."""

import importlib.metadata
import json
import logging
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

import pcam_model
from pcam_model.cli.main import CHECK, COMMANDS, REGISTRY, TRAIN, USE, app
from pcam_model.core.log import log

ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
NAMES = sorted(GROUP.commands)


def help_text(*words: str, width: int = 80) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)})
    assert done.exit_code == 0
    return done.stdout


def unwrapped(text: str) -> str:
    """Help without its frames and line breaks."""
    return " ".join(text.translate({ord(sign): " " for sign in "│╭╮╰╯─"}).split())


def test_the_version_has_one_source() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"pcam {version}\n")
    assert pcam_model.__version__ == importlib.metadata.version("pcam") == version
    sources = [path for path in (ROOT / "pcam_model").rglob("*.py") if f'"{version}"' in path.read_text()]
    assert sources == []


def test_the_commands_stand_in_panels_with_sentences_that_are_not_cut() -> None:
    text = help_text()
    places = [text.index(f"─ {panel} ─") for panel in (TRAIN, USE, REGISTRY, CHECK)]
    assert places == sorted(places)
    assert "…" not in text
    assert "--show-completion" in text
    for name in NAMES:
        sentence = (GROUP.commands[name].help or "").split("\n\n")[0]
        assert sentence.endswith("."), name
        assert f"{name} {' '.join(sentence.split())}" in unwrapped(text), name


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_has_whole_sentences_and_one_example(name: str) -> None:
    text, command = unwrapped(help_text(name)), GROUP.commands[name]
    assert "…" not in text
    assert text.count("Example: pcam ") == 1
    for parameter in command.params:
        description = getattr(parameter, "help", None)
        assert description, f"{name} {parameter.name}"
        assert description.endswith("."), f"{name} {parameter.name}"
        assert " ".join(description.split())[:40] in unwrapped(help_text(name, width=200))


@pytest.mark.parametrize("example", [example for _, _, example in COMMANDS])
def test_an_example_is_a_command_that_is_accepted(example: str) -> None:
    program, *words = shlex.split(example.partition(" > ")[0])
    assert program == "pcam"
    name, command, arguments = GROUP.resolve_command(typer.Context(GROUP), words)
    assert command
    command.make_context(name, arguments)


def options(command: TyperCommand) -> dict[str, object]:
    return {flag: parameter for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_prints_json_takes_v_and_q_and_the_store_from_the_environment(name: str) -> None:
    flags = options(GROUP.commands[name])
    assert {"--json", "-v", "-q"} <= flags.keys()
    if "--store" in flags:
        assert getattr(flags["--store"], "envvar") == "PCAM_STORE"  # noqa: B009 - of a parameter of any kind


@pytest.mark.parametrize(
    ("words", "level"), [("runs", "INFO"), ("-v runs", "DEBUG"), ("runs -v", "DEBUG"), ("runs -q", "WARNING")]
)
def test_the_log_level_is_taken_before_and_after_the_command(
    words: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []

    def list_runs(store: object) -> list[object]:
        levels.append(log.level)
        return []

    monkeypatch.setattr("pcam_model.registry.runs.list_runs", list_runs)
    CliRunner().invoke(app, [*words.split(), "--store", str(tmp_path)], catch_exceptions=False)
    assert [logging.getLevelName(number) for number in levels] == [level]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_shows_no_types_of_flags_and_arguments(name: str) -> None:
    text = help_text(*name.split())
    assert not any(f"<{kind}" in text for kind in ("bool", "str", "path", "list"))


def test_usage_names_arguments_as_they_are_and_the_terminal_wraps_paragraphs() -> None:
    assert "predict [OPTIONS] MODEL INPUT... " in help_text("predict", width=100)
    assert "config [OPTIONS] [PRESET] " in help_text("config", width=100)
    for name in NAMES:
        paragraphs = (GROUP.commands[name].help or "").split("\n\n")
        assert not any("\n" in paragraph for paragraph in paragraphs), name


def test_a_command_of_two_words_leaves_that_of_its_first_word_as_it_is() -> None:
    context = typer.Context(GROUP)
    assert GROUP.resolve_command(context, ["slides", "score", "a", "b"])[::2] == ("slides score", ["a", "b"])
    assert GROUP.resolve_command(context, ["slides", "champion", "score"])[::2] == ("slides", ["champion", "score"])
    assert GROUP.resolve_command(context, ["slides"])[::2] == ("slides", [])


def test_wrong_usage_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["train", "--epochs", "3"]).exit_code == 2
    assert CliRunner().invoke(app, ["pull", "champion"]).exit_code == 2
    assert CliRunner().invoke(app, ["unknown"]).exit_code == 2


def test_json_is_printed_alone(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["runs", "--store", str(tmp_path), "--json"])
    assert json.loads(done.stdout) == []
