"""Imports run one way: flows -> tasks -> pcam_model, room above room, and never in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pcam_model", "tasks", "flows", "deployments", "benchmarks")
PIPELINE = {"prefect", "kaggle", "flows", "tasks", "deployments"}
# The rooms of pcam_model from the ground up, each with the rooms that it may import.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "presets": set(),
    "data": {"core"},
    "registry": {"core"},
    "training": {"core", "data"},
    "evaluation": {"core", "data", "training"},
    "config": {"core", "data", "training", "evaluation", "registry"},
    "config_docs": {"config"},
    "config_reader": {"core", "presets", "config", "config_docs"},
    "inference": {"core", "data", "training", "evaluation", "registry"},
    "slides": {"core", "data", "evaluation", "inference", "registry"},
    "check": {"core", "data", "training", "registry", "slides", "config"},
    "cli": {
        *("core", "data", "training", "evaluation", "registry", "config", "config_reader", "config_docs"),
        *("inference", "slides", "check"),
    },
}
# Packages that a room never imports, beside the pipeline's, which nothing in pcam_model does.
FOREIGN: dict[str, set[str]] = {
    "core": {"boto3", "torchvision", "pandas"},
    "data": {"boto3"},
    "training": {"boto3"},
    "evaluation": {"boto3"},
    "registry": {"torch", "torchvision"},
}
LAYERS: dict[str, set[str]] = {
    "tasks": {"flows", "deployments", "benchmarks", "boto3"},
    "flows": {"torch", "boto3", "kaggle", "pathlib", "os", "deployments", "benchmarks"},
    "deployments": {"benchmarks"},
}
# Modules of tasks, each a step of the flows.
STEPS = ("data", "training", "scoring", "publishing", "inference", "slides")


@cache
def imports(path: Path) -> list[str]:
    """Every module or name that a file imports, also within functions, as `package.module.name`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{name.name}" for name in node.names]
    return names


def offences(path: Path, never: set[str]) -> list[str]:
    """The imports of a file, or of all files below a folder, that are forbidden."""
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
        for name in imports(file)
        if any(name == bad or name.startswith(f"{bad}.") for bad in never)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    path = ROOT / "pcam_model" / room
    upper = {f"pcam_model.{other}" for other in set(ROOMS) - ROOMS[room] - {room}}
    assert (
        offences(path if path.is_dir() else path.with_suffix(".py"), upper | PIPELINE | FOREIGN.get(room, set())) == []
    )


def test_every_room_of_the_library_has_its_rule() -> None:
    folder = ROOT / "pcam_model"
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_no_layer_above_it(layer: str) -> None:
    assert offences(ROOT / layer, LAYERS[layer]) == []


def test_the_steps_do_not_import_each_other() -> None:
    for step in STEPS:
        others = {f"tasks.{other}" for other in STEPS if other != step}
        assert offences(ROOT / "tasks" / f"{step}.py", others) == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph() -> dict[str, set[str]]:
    """The modules of the tree, each with those of them that it imports."""
    files = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        candidates = ((name, name.rpartition(".")[0]) for name in imports(path))
        found = (next((name for name in pair if name in files), "") for pair in candidates)
        graph[module] = {name for name in found if name and name != module}
    return graph


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """The circles of a graph, each once, found depth first."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> Iterator[list[str]]:
        if node in path:
            yield [*path[path.index(node) :], node]
        elif node not in done:
            for target in sorted(graph[node]):
                yield from visit(target, [*path, node])
            done.add(node)

    for node in graph:
        yield from visit(node, [])


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = import_graph()
    assert len(graph) > 100
    assert [" -> ".join(circle) for circle in circles(graph)] == []


def test_the_finder_of_circles_finds_them() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c", "a"]]
    assert list(circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []


def test_the_library_reads_the_environment_in_one_place() -> None:
    """`os.environ.setdefault`, which sets what another library reads, is allowed everywhere."""
    files = [path for path in (ROOT / "pcam_model").rglob("*.py") if "registry" not in path.parts]
    texts = {path: path.read_text("utf-8").replace("os.environ.setdefault(", "") for path in files}
    readers = {path.relative_to(ROOT).as_posix() for path, text in texts.items() if "os.environ" in text}
    readers |= {path.relative_to(ROOT).as_posix() for path, text in texts.items() if "os.getenv" in text}
    assert readers <= {"pcam_model/core/paths.py", "pcam_model/cli/logs.py"}


def test_the_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "prefect", "pandas", "boto3", "numpy", "pydantic")
    code = f"import sys; import pcam_model.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
