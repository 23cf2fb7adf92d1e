"""Every command, key, link and Python block of the pages is checked against what there is."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from pcam_model.cli.main import app
from pcam_model.config_reader import PRESETS, key_names, read_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deployments/**/*.md")])
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
NOT_COMMITTED = {"docs/cli.md", "docs/configuration.md"}
# Settings that are valid together only; alone, the tests give the other half.
COMPANIONS = {
    "split.kind=leave_one_domain_out": "split.domain=north",
    "split.domain=north": "split.kind=leave_one_domain_out",
}
SECTIONS = {key.split(".")[0] for key in key_names() if "." in key}


def blocks(language: str = "") -> Iterator[tuple[Path, str]]:
    """Fenced blocks of a language."""
    for page, text in TEXTS.items():
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield page, found[1]


def commands() -> Iterator[tuple[str, str]]:
    """Lines of blocks without a language, less their comments."""
    for page, block in blocks():
        for line in block.splitlines():
            command = re.split(r"\s{2,}#|^#", line)[0].strip()
            for one in re.split(r"\s&&\s", command):
                if one:
                    yield page.name, one


def of_program(name: str) -> list[str]:
    """The commands of a program, without its own name."""
    found = [one for _, one in commands()]
    words = [re.sub(r"^(\.venv/bin/)?", "", one) for one in found]
    return sorted({one.removeprefix(f"{name} ") for one in words if one.startswith(f"{name} ")})


def settings(text: str) -> list[str]:
    """`section.key=value` words of a text, `section.*` excluded."""
    return [
        found[0]
        for found in re.finditer(r"\b([a-z_]+)\.[a-z_]+=(?:\[[^\]]*\]|[^\s`\"',;)]+)", text)
        if found[1] in SECTIONS and not found[0].endswith("=...")
    ]


def with_test_split(settings: list[str]) -> list[str]:
    """The settings, after a share for a test split where they bring none: early stopping wants one."""
    return settings if "split.kind=leave_one_domain_out" in settings else ["split.test=0.1", *settings]


@pytest.mark.parametrize("command", of_program("pcam"))
def test_the_command_line_takes_each_command_of_the_pages(command: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    words = shlex.split(command.partition(" > ")[0])
    name, subcommand, arguments = group.resolve_command(typer.Context(group), words)  # fails where it has none
    assert subcommand
    subcommand.make_context(name, arguments)


@pytest.mark.parametrize("command", of_program("make"))
def test_make_knows_each_target_and_variable_of_the_pages(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in shlex.split(command):
        variable, equals, value = word.partition("=")
        if not equals:
            assert re.search(rf"^{word}:", makefile, re.MULTILINE), f"make {word}"
            continue
        assert re.search(rf"\b{variable}\b", makefile), f"make knows no {variable}"
        if variable == "PRESET":
            assert value in PRESETS
        if variable == "SET":
            read_config(settings=with_test_split(shlex.split(value)))


@pytest.mark.parametrize("setting", sorted({found for text in TEXTS.values() for found in settings(text)}))
def test_each_setting_of_the_pages_is_a_key_with_a_value_that_it_takes(setting: str) -> None:
    if setting.split("=")[1].isupper():  # a placeholder, as in source.path=FILE
        assert setting.split("=")[0] in set(key_names())
        return
    alone = setting.replace("HOST:", "host:")
    read_config(settings=with_test_split([alone, *([COMPANIONS[alone]] if alone in COMPANIONS else [])]))


def test_each_key_in_backticks_is_a_key() -> None:
    known = set(key_names())
    for page, text in TEXTS.items():
        for found in re.finditer(r"`([a-z_]+)\.([a-z_0-9]+)`", text):
            if (
                found[1] in SECTIONS
                and found[2] not in ("json", "yaml", "onnx", "py", "safetensors")
                and page.name != "CHANGELOG.md"
            ):
                assert f"{found[1]}.{found[2]}" in known, f"{page.name}: {found[0]}"


@pytest.mark.parametrize("command", of_program("prefect deployment run"))
def test_the_parameters_of_each_deployment_run_are_those_of_its_flow(command: str) -> None:
    words = shlex.split(command)
    assert words[0] in deployments(), words[0]
    parameters = deployments()[words[0]]
    for flag, word in zip(words[1::2], words[2::2], strict=True):
        assert flag == "-p"
        name, _, value = word.partition("=")
        assert name in parameters
        if name == "config":
            read_config(**yaml.safe_load(value))
        if name == "preset":
            assert value in PRESETS


@cache
def deployments() -> dict[str, set[str]]:
    """The deployments of deployments/prefect.yaml as `flow/deployment`, with the parameters of their flows."""
    found = {}
    for one in yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]:
        module, _, name = one["entrypoint"].partition(".py:")
        flow = getattr(import_module(module.replace("/", ".")), name)
        found[f"{flow.name}/{one['name']}"] = set(flow.parameters.properties)
    return found


def test_each_link_leads_somewhere() -> None:
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_each_module_and_file_that_is_named_exists() -> None:
    for page, text in TEXTS.items():
        for module in re.findall(r"python -m ((?:benchmarks|deployments)[\w.]*)", text):
            assert importlib.util.find_spec(module), f"{page.name}: {module}"
        for name in re.findall(r"\b((?:tests|benchmarks|deployments|flows|examples|pcam_model)/[\w./-]+\.\w+)", text):
            assert (ROOT / name).exists() or (ROOT / f"{name}.example").exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", [page for page, _ in blocks("python")], ids=lambda page: page.name)
def test_the_python_of_the_pages_runs(page: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, block in blocks("python"):
        if source == page:
            exec(block.replace('load("champion")', f"load({str(model_folder)!r})"), {})
    assert "[0" in capsys.readouterr().out


def test_the_readme_is_short() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 120
