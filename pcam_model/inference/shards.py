"""Scoring of new patches in shards: a shard is identified by its content, so that none is computed twice."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pcam_model.core.errors import ConfigError, ModelError, SourceError
from pcam_model.core.model_metadata import ModelMetadata, read_metadata
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.predictions_csv import PredictionCounts, PredictionRows, concat_rows
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import temporary_dir
from pcam_model.data.image_inputs import Images
from pcam_model.evaluation.drift import DriftResult
from pcam_model.inference.drift import measure_drift
from pcam_model.inference.predictor import Predictor, load
from pcam_model.inference.streaming import predict_rows
from pcam_model.registry.backends.base import Store
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import PublishedRun, json_bytes, sha256_hex
from pcam_model.registry.pull import resolve_run
from pcam_model.registry.resolve import find_model, parse_run_address
from pcam_model.registry.score_tables import publish_scores, read_shard, write_shard

SHARD_VERSION = 1


class ScoringJob(Record):
    """Which images are scored, and with which model."""

    source: str
    """Path of a zip, a folder, a pack or an image file, which every worker has to reach."""
    listing_digest: str
    """Digest of the names of the images, and of when the source was last changed."""
    store: str
    """Address of the store for shards and scores."""
    model: str
    """Address of the run."""
    manifest_digest: str
    """SHA-256 of the run's manifest."""
    tta: bool
    shard_size: int
    """Patches in a shard."""
    patches: int
    """Patches in all."""

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-self.patches // self.shard_size))


class Shard(Record):
    """A finished shard."""

    digest: str
    patches: int
    cached: bool
    """Whether its predictions were in the store already."""


class ScoringResult(Record):
    """The published table of all shards."""

    published: PublishedRun
    model: str
    """The run's name."""
    counts: PredictionCounts


def plan_scoring(source: str, model: str, store: str, shard_size: int, tta: bool | None) -> ScoringJob:
    """Resolve the model's name to a run, and list the source's images.

    Raises:
        ConfigError: the source is empty, or the shard size is not positive.
        SourceError: there is no image.
        ModelError: there is no such model.
    """
    if not source:
        raise ConfigError("source is empty; name a zip, a folder, a pack or an image file with the patches to score")
    if shard_size < 1:
        raise ConfigError(f"shard_size is {shard_size}, expected at least 1 patch")
    address = parse_run_address(model, store)
    run = resolve_run(open_store(address.store_uri), address.name)
    path = str(Path(source).expanduser().resolve())
    images, predictor = _open_images(path), _predictor(run.published.uri, tta)
    return ScoringJob(
        source=path,
        listing_digest=_listing_digest(path, images),
        store=store,
        model=run.published.uri,
        manifest_digest=run.published.digest,
        tta=predictor.tta,
        shard_size=shard_size,
        patches=len(images),
    )


def score_shard(job: ScoringJob, number: int) -> Shard:
    """Predict the patches of a shard into the store, unless it is there already.

    Raises:
        SourceError: the source has changed since the job was planned.
    """
    images, store = _images(job.source, job.listing_digest), open_store(job.store)
    indices = range(number * job.shard_size, min((number + 1) * job.shard_size, job.patches))
    digest = _shard_digest(job, images, indices)
    cached = read_shard(store, digest) is not None
    if not cached:
        predictor = _predictor(job.model, job.tta)
        write_shard(store, digest, concat_rows(list(predict_rows(predictor, images, indices))))
    return Shard(digest=digest, patches=len(indices), cached=cached)


def gather(job: ScoringJob, shards: Sequence[Shard], name: str = "") -> ScoringResult:
    """Publish the table of all shards; an empty name is generated from the run and the shards."""
    store, run = open_store(job.store), job.model.rpartition("/")[2]
    metadata = {"model": run, "manifest": job.manifest_digest, "tta": job.tta, "source": Path(job.source).name}
    name = name or f"{run[:80]}-{sha256_hex(json_bytes([metadata, [shard.digest for shard in shards]]))[:12]}"
    with temporary_dir("scores") as folder:
        conformal = model_metadata(job.model).conformal
        published, counts = publish_scores(store, name, metadata, _read_shards(store, shards), folder, conformal)
    return ScoringResult(published=published, model=run, counts=counts)


def model_metadata(model: str) -> ModelMetadata:
    """The metadata of the run of an address, from the cache where it was pulled before."""
    return read_metadata(call_with_cache(lambda cache: find_model(model, "", cache)))


def job_drift(job: ScoringJob) -> DriftResult:
    """The drift of a job's images from what its model was evaluated on; see `measure_drift`."""
    folder = call_with_cache(lambda cache: find_model(job.model, "", cache))
    return measure_drift(folder, _images(job.source, job.listing_digest))


def _read_shards(store: Store, shards: Sequence[Shard]) -> Iterator[PredictionRows]:
    for shard in shards:
        rows = read_shard(store, shard.digest)
        if rows is None:
            raise ModelError(f"{store.uri}: shard {shard.digest[:12]} is gone or damaged; run the scoring again")
        yield rows


def _shard_digest(job: ScoringJob, images: Images, indices: range) -> str:
    """SHA-256 of everything that the shard's predictions depend on."""
    digest = hashlib.sha256(f"{SHARD_VERSION} {job.manifest_digest} {job.tta}\n".encode())
    for index in indices:
        name, file = images.name(index)
        digest.update(f"{name}\0{file}\0{hashlib.sha256(images.content(index)).hexdigest()}\n".encode())
    return digest.hexdigest()


def _listing_digest(source: str, images: Images) -> str:
    """SHA-256 of the images' names and of when the source was last changed."""
    digest = hashlib.sha256(str(Path(source).stat().st_mtime_ns).encode())
    for index in range(len(images)):
        digest.update("\0".join(images.name(index)).encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _images(source: str, listing_digest: str) -> Images:
    images = _open_images(source)
    if _listing_digest(source, images) != listing_digest:
        raise SourceError(f"{source} has changed since its scoring began; leave it alone meanwhile, and run again")
    return images


def _open_images(source: str) -> Images:
    return call_with_cache(lambda cache: Images([Path(source)], cache / "scratch"))


@lru_cache(maxsize=1)
def _predictor(model: str, tta: bool | None) -> Predictor:
    return load(model, tta=tta)
