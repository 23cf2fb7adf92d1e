"""Slides' results in a store: `slides/<name>/<slide>/`, each predicted once, and a table of all of them."""

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_value
from pcam_model.core.schema import Record
from pcam_model.inference.predictor import Predictor, load
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import resolve_run
from pcam_model.registry.resolve import parse_run_address
from pcam_model.registry.runs import RunStore
from pcam_model.slides.batch import SUMMARY_FILE, slide_key, summary_csv, try_slide
from pcam_model.slides.listing import SlideFile, find_slides
from pcam_model.slides.prediction import SlideModel
from pcam_model.slides.records import SlideBatch, SlideFailure, SlideOptions, SlideResult
from pcam_model.slides.slides_page import PAGE_FILE, render_slides_page

NAMESPACE = "slides"


class SlideJob(Record):
    """Which slides are predicted, and with which model."""

    files: tuple[SlideFile, ...]
    """Paths, which every worker has to reach."""
    store: str
    """Address of the store for the results."""
    name: str
    """The results are under `slides/<name>/`."""
    model: str
    """Address of the run."""
    tta: bool | None
    """None: as the model was calibrated."""
    options: SlideOptions

    @property
    def run_store(self) -> RunStore:
        """The results in the store."""
        return RunStore(open_store(self.store), self.name, NAMESPACE)


class SlideOutcome(Record):
    """The result of one slide, or the reason why there is none."""

    result: SlideResult | None = None
    failure: SlideFailure | None = None
    cached: bool = False
    """Whether the result was in the store already."""


class SlideSummary(Record):
    """The results of a job."""

    uri: str
    """The address of the table of all slides."""
    slides: int
    """How many have a result."""
    cached: int
    """How many of these were in the store already."""
    failures: tuple[SlideFailure, ...]


def plan_slides(
    source: str, model: str, store: str, name: str, options: SlideOptions, tta: bool | None = None
) -> SlideJob:
    """Resolve the model's name to a run, and list the slides.

    Args:
        source: a slide, or a folder of slides.
        model: a channel, a run, or the address of one or of a store.
        store: the address of the store.
        name: of the results in the store; empty: the run's name.
        options: how the slides are predicted.
        tta: whether logits are means over 8 views; None: as the model was calibrated.

    Raises:
        ConfigError: the source is empty, or the name cannot be one.
        SourceError: there is no slide.
        ModelError: there is no such model.
    """
    if not source:
        raise ConfigError("source is empty; name a slide, or a folder of slides")
    address = parse_run_address(model, store)
    uri = resolve_run(open_store(address.store_uri), address.name).published.uri
    job = SlideJob(
        files=tuple(find_slides([Path(source).expanduser().absolute()])),
        store=store,
        name=name or uri.rpartition("/")[2],
        model=uri,
        tta=tta,
        options=options,
    )
    assert job.run_store.name == job.name  # a name that cannot be one is refused here
    return job


def predict_into_store(job: SlideJob, file: SlideFile) -> SlideOutcome:
    """Predict a slide into the store unless it is there; what cannot be predicted has its reason."""
    model = SlideModel(_predictor(job.model, job.tta), job.options)
    stored = _stored_result(job, file)
    if stored and stored.key == slide_key(file, model):
        return SlideOutcome(result=stored, cached=True)
    with tempfile.TemporaryDirectory(prefix="pcam-slides-") as folder:
        outcome = try_slide(file, model, Path(folder) / file.name)
        if isinstance(outcome, SlideFailure):
            return SlideOutcome(failure=outcome)
        result, _ = outcome
        job.run_store.commit(file.name, Path(folder) / file.name, result.model_dump(mode="json"))
    return SlideOutcome(result=result)


def write_stored_summary(job: SlideJob, outcomes: Sequence[SlideOutcome]) -> SlideSummary:
    """Write `slides.csv` and `slides.html` of the job's slides, with scores or reasons, under `slides/<name>/`."""
    batch = SlideBatch(
        results=tuple(outcome.result for outcome in outcomes if outcome.result),
        failures=tuple(outcome.failure for outcome in outcomes if outcome.failure),
        cached=sum(outcome.cached for outcome in outcomes),
    )
    run_store = job.run_store
    for name, content in ((SUMMARY_FILE, summary_csv(batch)), (PAGE_FILE, render_slides_page(batch))):
        run_store.store.write(f"{NAMESPACE}/{job.name}/{name}", content)
    return SlideSummary(
        uri=f"{run_store.uri}/{SUMMARY_FILE}", slides=len(batch.results), cached=batch.cached, failures=batch.failures
    )


def _stored_result(job: SlideJob, file: SlideFile) -> SlideResult | None:
    """The slide's result in the store; None where there is none, or a damaged one, which is replaced."""
    try:
        record = job.run_store.step_record(file.name)
        address = f"{job.run_store.uri}/{file.name}/step.json"
        return parse_value(SlideResult, record, address, remedy="the slide is predicted again") if record else None
    except ModelError as error:
        log.warning("%s", error)
        return None


@lru_cache(maxsize=1)
def _predictor(model: str, tta: bool | None) -> Predictor:
    return load(model, tta=tta, backend="auto")
