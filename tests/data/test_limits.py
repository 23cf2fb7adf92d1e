"""Hostile sources end in a sentence before memory, disk or minutes are spent, and read no other file."""

import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from official_files import official_folder

from pcam_model.config_reader import read_config
from pcam_model.core.errors import ConfigError, DiskFullError, SourceError
from pcam_model.data.hdf5_inputs import Hdf5Images
from pcam_model.data.hdf5_names import PREFIX
from pcam_model.data.http_download import download
from pcam_model.data.layouts import open_patches

X = f"{PREFIX}_train_x.h5"
SECRET = np.full((12, 96, 96, 3), 7, np.uint8)


def soft_link(folder: Path, secret: Path) -> None:
    with h5py.File(folder / X, "a") as file:
        file.move("x", "other")
        file["x"] = h5py.SoftLink("/other")


def external_link(folder: Path, secret: Path) -> None:
    with h5py.File(folder / X, "a") as file:
        del file["x"]
        file["x"] = h5py.ExternalLink(str(secret), "x")


def virtual_dataset(folder: Path, secret: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "x", SECRET.shape)
    with h5py.File(folder / X, "a") as file:
        del file["x"]
        file.create_virtual_dataset("x", layout)


def external_storage(folder: Path, secret: Path) -> None:
    with h5py.File(folder / X, "a") as file:
        del file["x"]
        file.create_dataset("x", SECRET.shape, np.uint8, external=[(str(secret), 0, SECRET.nbytes)])


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (soft_link, "is a soft link"),
        (external_link, "is an external link"),
        (virtual_dataset, "is a virtual dataset"),
        (external_storage, "has external storage"),
    ],
)
def test_values_of_other_files_are_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path, Path], None], kind: str
) -> None:
    folder, secret = official_folder(tmp_path / "official", packed=False), tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = SECRET
    spoil(folder, secret)
    with pytest.raises(SourceError, match=f"dataset x {kind}"):
        open_patches(folder, tmp_path, verify_md5=False)
    with pytest.raises(SourceError, match=f"dataset x {kind}"):
        Hdf5Images(folder / X, X, tmp_path)


def test_labels_of_thousands_of_millions_of_rows_are_refused_unread(tmp_path: Path) -> None:
    folder = official_folder(tmp_path / "official", packed=False)
    with h5py.File(folder / f"{PREFIX}_train_y.h5", "w") as file:
        file.create_dataset("y", (4 << 30,), np.uint8, chunks=(1 << 20,))
    with pytest.raises(SourceError, match=r"y is uint8 \(4294967296,\); expected one number a patch"):
        open_patches(folder, tmp_path, verify_md5=False)


@pytest.mark.parametrize("table", [b"id,label" + b"," * 3_000_000, b"id,label\na,0\nb," + b"1" * 70_000])
def test_absurd_tables_are_refused_at_once(tmp_path: Path, table: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_labels.csv", table)
        archive.writestr("train/a.png", b"")
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"its line \d has [\d,]+ characters and [\d,]+ columns; expected 65,536"):
        open_patches(tmp_path / "bomb.zip", tmp_path)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", r"the alias \*a, which is not read; write the value itself"),
        ("[" * 50_000, "nested too deeply"),
        ("run: " + "x" * 300_000, "more than 262,144 characters"),
        ("run: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_yaml_bombs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "bomb.yaml")


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a server that sends without end, or announces 2**40 bytes below /declared."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if "declared" in self.path:
                self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endless_body_ends_at_the_limit_and_leaves_nothing(tmp_path: Path, endless: str) -> None:
    with pytest.raises(SourceError, match=r"sends more than 1,000,000 bytes without end, expected 1,000,000 at most"):
        download(f"{endless}/x", tmp_path / "x", max_bytes=1_000_000)
    with pytest.raises(SourceError, match=r"announces 1,099,511,627,776 bytes"):
        download(f"{endless}/declared", tmp_path / "x", max_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_declared_length_is_compared_with_the_disk_first(tmp_path: Path, endless: str) -> None:
    with pytest.raises(DiskFullError, match=r"the download takes 1,099,511\.6 MB"):
        download(f"{endless}/declared", tmp_path / "x", max_bytes=1 << 50)
    assert list(tmp_path.iterdir()) == []
