"""What is said where an optional package is missing."""

import importlib

import pytest

from pcam_model.core.errors import Interrupted, MissingPackageError, PcamError, require_package


@pytest.mark.parametrize(
    ("extra", "install"), [("", "pip install absent_package"), ("onnx", r"pip install 'pcam\[onnx\]'")]
)
def test_a_missing_package_is_named_with_how_to_install_it(extra: str, install: str) -> None:
    expected = f"^a pack needs absent_package, which is not installed; {install}$"
    with pytest.raises(MissingPackageError, match=expected), require_package("a pack", extra):
        importlib.import_module("absent_package.part")


def test_a_missing_module_of_pcam_itself_is_a_bug_and_no_users_mistake() -> None:
    with pytest.raises(ModuleNotFoundError), require_package("a pack"):
        importlib.import_module("pcam_model.absent")


def test_an_interruption_is_exit_code_75_and_no_exception_that_code_may_swallow() -> None:
    interrupted = Interrupted("interrupted by SIGTERM")
    assert interrupted.code == 75
    assert str(interrupted) == "interrupted by SIGTERM"
    assert not isinstance(interrupted, Exception)
    assert not issubclass(Interrupted, PcamError)
