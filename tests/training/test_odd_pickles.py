"""A pickle of anything as `model.weights` is one sentence: no code is run, nothing hangs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pcam_model.core.errors import WeightsError
from pcam_model.training.weights import load_body_weights, load_weights_file

ODD = {
    "nothing": b"",
    "an empty stack": b"\x80\x02.",
    "a mark without its end": b"\x80\x02(.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "an item of a number": b"\x80\x02K\x01K\x02K\x03s.",
    "a build of a list": b"\x80\x02]K\x01b.",
    "an append to nothing": b"\x80\x02K\x01a.",
    "a length of a gigabyte": b"\x80\x02T\xff\xff\xff\x3fx.",
    "a negative length": b"\x80\x02T\xff\xff\xff\xffx.",
    "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(tR.",
    "an ordered dictionary of a number": b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
    "code": b"cposix\nsystem\n(S'touch /tmp/never'\ntR.",
    "a persistent id": b"\x80\x02X\x01\0\0\0xQ.",
    "text in another code": b"\x80\x02X\x02\0\0\0\xff\xfe.",
    "protocol 255": b"\x80\xff.",
}
CONTENTS: dict[str, Any] = {
    "a number": 7,
    "a list": [torch.zeros(2)],
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": {"0.weight": torch.zeros(1)}}}}}}},
    "numbers as names": {1: torch.zeros(2, 3)},
    "complex numbers": {"0.weight": torch.zeros(2, 3, dtype=torch.complex64), "0.bias": torch.zeros(2)},
    "a sparse tensor": {"0.weight": torch.zeros(2, 3).to_sparse(), "0.bias": torch.zeros(2)},
    "a tensor without values": {"0.weight": torch.zeros(2, 3, device="meta"), "0.bias": torch.zeros(2)},
    "text": {"0.weight": "x", "0.bias": "y"},
}


def load(path: Path) -> str:
    return load_body_weights(nn.Sequential(nn.Linear(3, 2)), load_weights_file(path), "linear")


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_an_odd_pickle_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"^model\.weights") as caught:
        load(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_odd_content_is_one_sentence(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"^model\.weights") as caught:
        load(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_a_dictionary_that_is_in_itself_a_million_times_is_searched_once(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2)}
    inner["itself"] = inner
    content = inner
    for _ in range(3):
        content = {str(i): content for i in range(100)}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=2)
    assert "2 tensors of the body loaded (dictionary 0.0.0)" in load(tmp_path / "a.pth")
