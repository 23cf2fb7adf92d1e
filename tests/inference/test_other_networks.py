"""An ONNX file that is no network of patches is one sentence, though model.json has its digest."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pcam_model.core.errors import ModelError
from pcam_model.core.files import sha256
from pcam_model.core.model_metadata import METADATA_FILE, ONNX_FILE
from pcam_model.inference.backends import Backend, OnnxBackend
from pcam_model.inference.openvino_backend import OpenVinoBackend

PATCHES = ("N", 96, 96, 3)
BACKENDS = pytest.mark.parametrize("backend", [OnnxBackend, OpenVinoBackend])


def network(
    shape: tuple[Any, ...] = PATCHES, kind: int = TensorProto.UINT8, classes: int = 2, names: tuple[str, ...] = ("x",)
) -> onnx.ModelProto:
    """The mean of all pixels, as many times as there are classes; further inputs are added to it."""
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in names]
    axes = helper.make_tensor("axes", TensorProto.INT64, (len(shape) - 1,), list(range(1, len(shape))))
    repeats = helper.make_tensor("repeats", TensorProto.INT64, (2,), [1, classes])
    column = helper.make_tensor("column", TensorProto.INT64, (2,), [-1, 1])
    nodes = [
        helper.make_node("Sum" if len(names) > 1 else "Cast", ["x"], ["float"], to=TensorProto.FLOAT)
        if len(names) == 1
        else helper.make_node("Concat", list(names), ["both"], axis=1),
        *([helper.make_node("Cast", ["both"], ["float"], to=TensorProto.FLOAT)] if len(names) > 1 else []),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["one"]),
        helper.make_node("Tile", ["one", "repeats"], ["other name"]),
    ]
    output = helper.make_tensor_value_info("other name", TensorProto.FLOAT, ("N", classes))
    graph = helper.make_graph(nodes, "graph", inputs, [output], [axes, repeats, column])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def with_network(model_folder: Path, tmp_path: Path) -> Any:
    """with_network(onnx model) -> a model's folder that has it as model.onnx, with its digest."""

    def make(model: onnx.ModelProto) -> Path:
        folder = shutil.copytree(model_folder, tmp_path / "model")
        onnx.save(model, str(folder / ONNX_FILE))
        metadata = json.loads((folder / METADATA_FILE).read_bytes())
        metadata["onnx_sha256"] = sha256(folder / ONNX_FILE)
        (folder / METADATA_FILE).write_text(json.dumps(metadata))
        return folder

    return make


@BACKENDS
@pytest.mark.parametrize(
    "other",
    [
        {"classes": 3},
        {"classes": 1},
        {"kind": TensorProto.FLOAT},
        {"shape": ("N", 3, 96, 96)},
        {"shape": ("N", 64, 64, 3)},
        {"names": ("x", "y")},
    ],
    ids=str,
)
def test_a_network_of_something_else_is_refused_before_it_computes(
    with_network: Any, backend: type[Backend], other: dict[str, Any]
) -> None:
    folder = with_network(network(**other))
    with pytest.raises(ModelError, match=r"model\.onnx (is no network of patches|cannot be computed).*do not use") as e:
        backend(folder)  # type: ignore[call-arg]
    assert "\n" not in str(e.value)


@BACKENDS
def test_names_of_inputs_and_outputs_are_free(with_network: Any, backend: type[Backend]) -> None:
    logits = backend(with_network(network()))(np.full((3, 96, 96, 3), 7, np.uint8), True)  # type: ignore[call-arg]
    assert np.allclose(logits, 7)
    assert logits.shape == (3, 2)
