"""The data flows one way: flows -> tasks -> pcam_model, and each room imports only what it may."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "pcam_model"
LIBRARY_NEVER = {"prefect", "kaggle", "flows", "tasks", "deployments"}
NEVER = {
    "pcam_model/data": LIBRARY_NEVER | {"boto3", "pcam_model.training", "pcam_model.evaluation", "pcam_model.registry"},
    "pcam_model/training": LIBRARY_NEVER | {"boto3", "pcam_model.evaluation", "pcam_model.registry"},
    "pcam_model/evaluation": LIBRARY_NEVER | {"boto3", "pcam_model.registry"},
    "pcam_model/registry": LIBRARY_NEVER
    | {"torch", "torchvision", "pcam_model.data", "pcam_model.training", "pcam_model.evaluation"},
    "tasks": {"flows", "deployments", "boto3"},
    "flows": {"torch", "boto3", "kaggle", "pathlib", "os", "deployments"},
}
DOORS = ("data", "training", "scoring", "publishing", "predicting")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def offences(folder: str, never: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imports(path)
        if any(name == bad or name.startswith(f"{bad}.") for bad in never)
    ]


@pytest.mark.parametrize("folder", NEVER)
def test_a_room_imports_only_what_it_may(folder: str) -> None:
    assert any((ROOT / folder).rglob("*.py"))
    assert offences(folder, NEVER[folder]) == []


def test_the_doors_do_not_import_each_other() -> None:
    for door in DOORS:
        others = {f"tasks.{other}" for other in DOORS if other != door}
        names = list(imports(ROOT / "tasks" / f"{door}.py"))
        assert not [name for name in names if any(name.startswith(other) for other in others)]


def test_the_library_reads_the_environment_in_one_place() -> None:
    """To set what another library reads (`os.environ.setdefault`) is no reading."""
    texts = {path: path.read_text("utf-8").replace("os.environ.setdefault(", "") for path in LIBRARY.rglob("*.py")}
    readers = [
        str(path.relative_to(ROOT)) for path, text in texts.items() if "os.environ" in text or "os.getenv" in text
    ]
    rooms = [reader for reader in readers if reader.count("/") > 1 and not reader.startswith("pcam_model/registry")]
    assert rooms == []


def test_the_help_opens_nothing_heavy() -> None:
    heavy = ("torch", "prefect", "pandas", "boto3")
    code = f"import sys; import pcam_model.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
