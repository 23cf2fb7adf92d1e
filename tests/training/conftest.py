import logging
from collections.abc import Iterator

import pytest
import torch
from stages import SIZE

from pcam_model.training.network import ModelConfig, PatchNetwork, build_network


@pytest.fixture
def network() -> PatchNetwork:
    return build_network(ModelConfig(arch="resnet18", weights="none", image_size=SIZE), seed=1, quiet=True)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the library logs, as `messages.text`."""
    caplog.set_level(logging.INFO, logger="pcam_model")
    return caplog


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small compute faster with one thread, above all where several tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
