"""A run in the store: done when its records are there, published when its manifest is."""

import json
from pathlib import Path

import pytest
from a_run import model_folder, publish_run

from pcam_model.core.errors import ConfigError, ModelError, StoreError
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import parse_manifest, read_manifest, sha256_hex
from pcam_model.registry.pruning import prune_candidates
from pcam_model.registry.runs import RunStore, list_runs


class Counting:
    """A store that remembers what was sent."""

    def __init__(self, store: Store) -> None:
        self.inner, self.sent = store, list[str]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def upload(self, key: str, path: Path) -> str:
        self.sent.append(key)
        return self.inner.upload(key, path)


def test_a_step_is_done_when_its_record_and_files_are_there(store: Store, tmp_path: Path) -> None:
    run, folder = RunStore(store, "a"), model_folder(tmp_path / "model")
    assert run.step_record("model") is None
    run.commit("model", folder, {"accuracy": 0.5, "shape": (1, 2)})
    assert run.step_record("model") == {"accuracy": 0.5, "shape": [1, 2]}
    store.write("runs/a/model/model.json", b"cut")
    assert run.step_record("model") is None
    run.commit("model", folder, {"accuracy": 0.5})
    store.delete("runs/a/model/model.safetensors")
    assert run.step_record("model") is None


def test_what_is_fetched_is_what_was_committed(store: Store, tmp_path: Path) -> None:
    run, folder = RunStore(store, "a"), model_folder(tmp_path / "model" / "deep").parent
    (folder / ".hidden.part").write_bytes(b"half")
    run.commit("lr/frozen", folder, {"x": 1})
    assert run.steps() == ["lr/frozen"]
    assert run.fetch("lr/frozen", tmp_path / "back") == {"x": 1}
    names = sorted(p.relative_to(tmp_path / "back").as_posix() for p in (tmp_path / "back").rglob("*") if p.is_file())
    assert names == [".lock", "deep/model.json", "deep/model.safetensors"]
    (tmp_path / "back/deep/model.json").write_bytes(b"changed here")
    run.fetch("lr/frozen", tmp_path / "back")
    assert (tmp_path / "back/deep/model.json").read_bytes() == (folder / "deep/model.json").read_bytes()
    with pytest.raises(NotFound, match="is not finished"):
        run.fetch("finetune", tmp_path / "none")


def test_a_damaged_file_is_found_when_fetched_and_not_left(store: Store, tmp_path: Path) -> None:
    run, folder = RunStore(store, "a"), model_folder(tmp_path / "model")
    run.commit("model", folder, {})
    content = bytearray((folder / "model.json").read_bytes())
    content[3] ^= 1
    store.write("runs/a/model/model.json", bytes(content))
    with pytest.raises(ModelError, match=r"runs/a/model/model\.json: size or SHA-256"):
        run.fetch("model", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.json*"))
    assert not list((tmp_path / "back").glob(".*json*"))


def test_nothing_is_sent_twice(store: Store, tmp_path: Path) -> None:
    counting = Counting(store)
    run, folder = RunStore(counting, "a"), model_folder(tmp_path / "model")  # type: ignore[arg-type]
    run.commit("model", folder, {"x": 1})
    assert sorted(counting.sent) == ["runs/a/model/model.json", "runs/a/model/model.safetensors"]
    counting.sent.clear()
    store.delete("runs/a/model/step.json")  # as if the first try had been killed before its last write
    run.commit("model", folder, {"x": 1})
    run.commit("model", folder, {"x": 1})
    first = run.publish()
    assert run.publish() == first
    assert counting.sent == []


def test_the_manifest_names_every_file_with_its_digest(store: Store, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b"{}\n")
    run = RunStore(store, "a")
    run.reserve_run({"seed": 1})
    run.commit("model", model_folder(tmp_path / "model"), {})
    published = run.publish({"metrics.jsonl": metrics})
    manifest, same = read_manifest(store, "a")
    assert same == published
    assert published.uri == f"{store.uri}/runs/a"
    assert published.digest == sha256_hex(store.read("runs/a/manifest.json"))
    there = {entry.key.removeprefix("runs/a/") for entry in store.entries("runs/a/")} - {"manifest.json"}
    assert set(manifest.files) == there
    for name, file in manifest.files.items():
        content = store.read(f"runs/a/{name}")
        assert (len(content), sha256_hex(content)) == (file.size, file.sha256)


def test_a_published_run_does_not_change(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path)
    run, before = RunStore(store, "a"), store.read("runs/a/model/model.json")
    with pytest.raises(StoreError, match=r"published and does not change .*choose another run name"):
        run.commit("model", model_folder(tmp_path / "a", b"others"), {"made": "a"})
    with pytest.raises(StoreError, match="published and does not change"):
        run.commit("more", model_folder(tmp_path / "a"), {})
    extra = tmp_path / "extra.json"
    extra.write_text("{}")
    with pytest.raises(StoreError, match=r"extra\.json would change"):
        run.publish({"extra.json": extra})
    assert store.read("runs/a/model/model.json") == before
    assert store.stat("runs/a/extra.json") is None


def test_what_is_not_whole_is_not_published(store: Store, tmp_path: Path) -> None:
    run = RunStore(store, "a")
    with pytest.raises(StoreError, match="unfinished"):
        run.publish()
    run.commit("model", model_folder(tmp_path / "model"), {})
    with pytest.raises(StoreError, match="unfinished: report"):
        run.publish(steps=["model", "report"])
    store.delete("runs/a/model/model.json")
    with pytest.raises(StoreError, match="unfinished: model"):
        run.publish()
    assert run.find_published() is None


def test_another_plan_under_the_same_name_is_refused_by_its_keys(store: Store) -> None:
    run = RunStore(store, "a")
    run.reserve_run({"seed": 2, "finetune": {"epochs": 3, "rates": (1, 2)}}, {"python": "3.11"})
    run.reserve_run({"seed": 2, "finetune": {"epochs": 3, "rates": [1, 2]}}, {"python": "3.12"})
    with pytest.raises(ConfigError, match=r"finetune\.epochs was 3, is now 4; choose another run name"):
        run.reserve_run({"seed": 2, "finetune": {"epochs": 4, "rates": [1, 2]}})
    assert json.loads(store.read("runs/a/config.json"))["environment"] == {"python": "3.11"}


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a/b", "a b", "../a", "a" * 101, "ä", "a\n"])
def test_a_name_that_is_none_is_refused(name: str, folder_store: Store) -> None:
    with pytest.raises(ConfigError, match="is no name for a run"):
        RunStore(folder_store, name)


def test_the_list_tells_published_runs_from_others(store: Store, tmp_path: Path) -> None:
    assert list(list_runs(store)) == []
    published = publish_run(store, tmp_path, "b")
    RunStore(store, "a").reserve_run({})
    found = list(list_runs(store))
    assert [(run.name, run.steps, run.digest) for run in found] == [("a", (), ""), ("b", ("model",), published.digest)]
    assert found[1].published_at.endswith("+00:00")


@pytest.mark.parametrize("damage", [b"", b"garbage", b"[]", b'{"run": "c"}', b"\xff\x00"])
def test_a_damaged_manifest_is_listed_as_such_and_hides_no_other_run(
    store: Store, tmp_path: Path, damage: bytes
) -> None:
    digests = [publish_run(store, tmp_path / name, name).digest for name in ("a", "b", "c")]
    store.write("runs/b/manifest.json", damage)
    a, b, c = list_runs(store)
    assert [a.digest, c.digest] == [digests[0], digests[2]]
    assert (a.damaged, c.damaged, b.published_at) == ("", "", "")
    assert "runs/b/manifest.json is malformed" in b.damaged
    assert [each.name for each in prune_candidates(store, days=0, keep=2)] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"../up": {"size": 1, "sha256": "0" * 64}}}, "is no key of the store"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": "0" * 64}}}, "is no key of the store"),
        ({"files": {"a": {"size": -1, "sha256": "0" * 64}}}, "greater than or equal to 0"),
        ({"files": {"a": {"size": 1, "sha256": "xyz"}}}, "pattern"),
        ({"run": "b"}, "is of run 'b', not of 'a'"),
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(change: dict[str, object], message: str) -> None:
    good = {"format": 1, "run": "a", "published_at": "2026-01-01", "files": {}}
    assert parse_manifest(json.dumps(good).encode(), "place", "a").run == "a"
    with pytest.raises(ModelError, match=message):
        parse_manifest(json.dumps(good | change).encode(), "place", "a")
    with pytest.raises(ModelError, match="is malformed"):
        parse_manifest(b"{ half", "place", "a")
