"""New patches, scored shard by shard with a published model: what is done is known by its content, and done once."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pcam_model.core.errors import ConfigError, ModelError, SourceError
from pcam_model.core.paths import cache_dir
from pcam_model.core.predictions_csv import Counts, Rows, joined
from pcam_model.core.schema import Record
from pcam_model.data.image_inputs import Images
from pcam_model.inference.predictor import Predictor, load
from pcam_model.inference.streaming import predict_rows
from pcam_model.registry.backends.base import Store, open_store
from pcam_model.registry.manifest import Published, digest_of, encoded
from pcam_model.registry.pull import resolve_run
from pcam_model.registry.resolve import parse_run_address
from pcam_model.registry.score_tables import publish_scores, read_shard, write_shard

VERSION = 1


class ScoringJob(Record):
    """What is scored, and with what."""

    source: str
    """A zip, a folder, a pack or an image file, which every worker has to reach."""
    listing: str
    """Digest of which images there are."""
    store: str
    """Where shards and scores go."""
    model: str
    """The run's address."""
    digest: str
    """SHA-256 of the run's manifest."""
    tta: bool
    shard: int
    """Patches a shard."""
    count: int
    """Patches in all."""

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-self.count // self.shard))


class Shard(Record):
    """A shard that is done."""

    digest: str
    patches: int
    again: bool
    """It was done before."""


class ScoringResult(Record):
    """The table of all shards, in the store."""

    published: Published
    model: str
    counts: Counts


def plan_scoring(source: str, model: str, store: str, shard: int, tta: bool | None) -> ScoringJob:
    """Which run the model's name means now, and which patches there are.

    Raises:
        SourceError: there is no image.
        ModelError: there is no such model.
    """
    if not source:
        raise ConfigError("source is empty; name a zip, a folder, a pack or an image file with the patches to score")
    if shard < 1:
        raise ConfigError(f"shard is {shard}, expected at least 1 patch")
    place = parse_run_address(model, store)
    found = resolve_run(open_store(place.store), place.name)
    path = str(Path(source).expanduser().resolve())
    images, predictor = Images([Path(path)], cache_dir() / "scratch"), _predictor(found.published.uri, tta)
    return ScoringJob(
        source=path, listing=_listing(path, images), store=store, model=found.published.uri,
        digest=found.published.digest, tta=predictor.tta, shard=shard, count=len(images),
    )  # fmt: skip


def score_shard(scoring: ScoringJob, number: int) -> Shard:
    """Predict the patches of a shard and keep the result in the store, unless that was done before.

    Raises:
        SourceError: the source is not what it was when the scoring was planned.
    """
    images, store = _images(scoring.source, scoring.listing), open_store(scoring.store)
    rows = range(number * scoring.shard, min((number + 1) * scoring.shard, scoring.count))
    digest = _digest(scoring, images, rows)
    again = read_shard(store, digest) is not None
    if not again:
        predictor = _predictor(scoring.model, scoring.tta)
        write_shard(store, digest, joined(list(predict_rows(predictor, images, rows))))
    return Shard(digest=digest, patches=len(rows), again=again)


def gather(scoring: ScoringJob, shards: Sequence[Shard], name: str = "") -> ScoringResult:
    """Publish the table of all shards; a name that is not given is made of the run and of what was scored."""
    store, run = open_store(scoring.store), scoring.model.rpartition("/")[2]
    about = {"model": run, "manifest": scoring.digest, "tta": scoring.tta, "source": Path(scoring.source).name}
    name = name or f"{run[:80]}-{digest_of(encoded([about, [shard.digest for shard in shards]]))[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        published, counts = publish_scores(store, name, about, _whole(store, shards), Path(folder))
    return ScoringResult(published=published, model=run, counts=counts)


def _whole(store: Store, shards: Sequence[Shard]) -> Iterator[Rows]:
    for shard in shards:
        rows = read_shard(store, shard.digest)
        if rows is None:
            raise ModelError(f"{store.uri}: shard {shard.digest[:12]} is gone or damaged; run the scoring again")
        yield rows


def _digest(scoring: ScoringJob, images: Images, rows: range) -> str:
    """Of all that the shard's predictions depend on."""
    total = hashlib.sha256(f"{VERSION} {scoring.digest} {scoring.tta}\n".encode())
    for row in rows:
        name, file = images.named(row)
        total.update(f"{name}\0{file}\0{hashlib.sha256(images.content(row)).hexdigest()}\n".encode())
    return total.hexdigest()


def _listing(source: str, images: Images) -> str:
    """Of which images there are, and when the source was last changed."""
    total = hashlib.sha256(str(Path(source).stat().st_mtime_ns).encode())
    for row in range(len(images)):
        total.update("\0".join(images.named(row)).encode())
    return total.hexdigest()


@lru_cache(maxsize=2)
def _images(source: str, listing: str) -> Images:
    images = Images([Path(source)], cache_dir() / "scratch")
    if _listing(source, images) != listing:
        raise SourceError(f"{source} has changed since its scoring began; leave it alone meanwhile, and run again")
    return images


@lru_cache(maxsize=1)
def _predictor(model: str, tta: bool | None) -> Predictor:
    return load(model, tta=tta)
