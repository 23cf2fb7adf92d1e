"""What is pulled is what was published, whole, or nothing."""

import json
import pickle
from pathlib import Path

import pytest
from a_run import model_folder, publish_run, safetensors

from pcam_model.core.errors import ModelError, StoreError
from pcam_model.registry.backends.base import Store, StoreUnavailable
from pcam_model.registry.channels import promote
from pcam_model.registry.pull import pull, verify_folder
from pcam_model.registry.resolve import find_model
from pcam_model.registry.runs import RunStore


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_pulled_folder_holds_the_run(store: Store, tmp_path: Path) -> None:
    published = publish_run(store, tmp_path)
    promote(store, "a")
    for name in ("a", "champion"):
        folder = tmp_path / "pulled" / name
        assert pull(store, name, folder) == published
        assert names(folder) == ["manifest.json", "model/model.json", "model/model.safetensors", "model/step.json"]
        assert (folder / "model/model.safetensors").read_bytes() == (tmp_path / "a/model.safetensors").read_bytes()
        assert verify_folder(folder).run == "a"
        assert pull(store, name, folder) == published
    assert sorted(path.name for path in (tmp_path / "pulled").iterdir()) == ["a", "champion"]


def test_a_folder_with_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(StoreError, match="has other content"):
        pull(store, "a", tmp_path / "mine")
    assert names(tmp_path / "mine") == ["thesis.txt"]
    with pytest.raises(ModelError, match="'b' is not published"):
        pull(store, "b", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/model.json", "model/step.json"])
def test_a_flipped_byte_is_found_and_nothing_appears(store: Store, tmp_path: Path, name: str) -> None:
    publish_run(store, tmp_path)
    content = bytearray(store.read(f"runs/a/{name}"))
    content[len(content) // 2] ^= 0x10
    store.write(f"runs/a/{name}", bytes(content))
    with pytest.raises(ModelError, match="SHA-256 is not the recorded one"):
        pull(store, "a", tmp_path / "pulled")
    assert not [path for path in tmp_path.iterdir() if "pulled" in path.name]


class Breaking:
    """A store whose large object breaks off once."""

    def __init__(self, store: Store, after: int) -> None:
        self.inner, self.after, self.starts = store, after, list[int]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def blocks(self, key: str, start: int = 0) -> object:
        if not key.endswith(".safetensors"):
            return self.inner.blocks(key, start)
        self.starts.append(start)
        return self._break(key, start) if len(self.starts) == 1 else self.inner.blocks(key, start)

    def _break(self, key: str, start: int) -> object:
        yield b"".join(self.inner.blocks(key, start))[: self.after]
        raise StoreUnavailable("the server went away")


def test_a_pull_that_broke_off_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    published = publish_run(store, tmp_path, payload=b"x" * 5000)
    breaking = Breaking(store, 3000)
    with pytest.raises(StoreUnavailable):
        pull(breaking, "a", tmp_path / "pulled")  # type: ignore[arg-type]
    assert not (tmp_path / "pulled").exists()
    assert pull(breaking, "a", tmp_path / "pulled") == published  # type: ignore[arg-type]
    assert breaking.starts == [0, 3000]
    verify_folder(tmp_path / "pulled")


def test_a_part_that_went_bad_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path, payload=b"x" * 5000)
    with pytest.raises(StoreUnavailable):
        pull(Breaking(store, 3000), "a", tmp_path / "pulled")  # type: ignore[arg-type]
    part = next(tmp_path.glob(".pulled*/model/.model.safetensors*.part"))
    part.write_bytes(b"rubbish" * 10)
    pull(store, "a", tmp_path / "pulled")
    verify_folder(tmp_path / "pulled")


@pytest.mark.parametrize("path", ["../up.json", "/tmp/up.json", "model/../../up.json"])
def test_a_manifest_that_points_outside_is_refused(store: Store, tmp_path: Path, path: str) -> None:
    publish_run(store, tmp_path)
    manifest = json.loads(store.read("runs/a/manifest.json"))
    manifest["files"][path] = manifest["files"]["model/model.json"]
    store.write("runs/a/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ModelError, match="is malformed"):
        pull(store, "a", tmp_path / "deep" / "pulled")
    assert not (tmp_path / "deep").exists()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.pt", b"PK\x03\x04zip"),
        ("model.pkl", pickle.dumps(Bomb())),
        ("model.safetensors", pickle.dumps(Bomb())),
        ("model.safetensors", b"PK\x03\x04" + b"\x00" * 30),
        ("model.json", pickle.dumps(Bomb())),
        ("model.npy", pickle.dumps(Bomb())),
    ],
)
def test_a_pickle_is_refused_unread(folder_store: Store, tmp_path: Path, name: str, content: bytes) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / name).write_bytes(content)
    run = RunStore(folder_store, "a")
    run.commit("model", folder, {})
    run.publish()
    with pytest.raises(ModelError, match=r"of a format that may run code|may hold a pickle"):
        pull(folder_store, "a", tmp_path / "pulled")
    assert not [path for path in tmp_path.iterdir() if "pulled" in path.name]


def test_a_safetensors_file_whose_length_looks_like_a_pickle_is_taken(folder_store: Store, tmp_path: Path) -> None:
    content = safetensors(b"x")
    header = content[8:-1].ljust(0x0280)
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    run = RunStore(folder_store, "a")
    run.commit("model", folder, {})
    run.publish()
    pull(folder_store, "a", tmp_path / "pulled")


def test_a_model_is_found_by_folder_channel_run_and_address(store: Store, tmp_path: Path) -> None:
    published = publish_run(store, tmp_path)
    promote(store, "a")
    cache = tmp_path / "cache"
    found = {find_model(name, store.uri, cache) for name in ("a", "champion", published.uri, f"{published.uri}/model")}
    assert found == {cache / "models" / published.digest / "model"}
    folder = found.pop()
    assert find_model(str(folder), "", cache) == folder
    assert find_model(str(folder.parent), "", cache) == folder
    for name in ("b", "no/such/folder"):
        with pytest.raises(ModelError):
            find_model(name, store.uri, cache)


def test_a_pulled_model_serves_while_the_store_is_away(
    moto_settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pcam_model.registry.factory import open_store

    publish_run(open_store(moto_settings), tmp_path)
    promote(open_store(moto_settings), "a")
    folder = find_model("champion", moto_settings, tmp_path / "cache")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert find_model("champion", moto_settings, tmp_path / "cache") == folder
    assert "Using the cached run of 'champion': a" in caplog.text
    with pytest.raises(StoreUnavailable, match="does not answer"):
        find_model("a", moto_settings, tmp_path / "cache")
