"""Tasks that predict whole slides with a published model: plan, predict a slide, write the table."""

from pcam_model.core.log import log
from pcam_model.core.paths import resolve_store_uri
from pcam_model.registry.config import StoreConfig
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.records import SlideOptions
from pcam_model.slides.store import (
    SlideJob,
    SlideOutcome,
    SlideSummary,
    plan_slides,
    predict_into_store,
    write_stored_summary,
)
from tasks.policy import step
from tasks.process_setup import setup_process


@step("plan", hours=6)
def plan(source: str, model: str, store: StoreConfig, name: str, options: SlideOptions, tta: bool | None) -> SlideJob:
    """Pull the model and list the slides."""
    job = plan_slides(source, model, resolve_store_uri(store.uri), name, options, tta)
    log.info("%s slides, model %s", f"{len(job.files):,}", job.model)
    return job


@step("slide", hours=24, run_name="slide {file.name}")
def predict(job: SlideJob, file: SlideFile) -> SlideOutcome:
    """Predict a slide into the store, unless the store has its result."""
    setup_process()  # on a cluster's worker the flow has not done it
    outcome = predict_into_store(job, file)
    if outcome.failure:
        log.warning("%s", outcome.failure.reason)
    if outcome.result:
        log.info("%s: %s patches, largest probability %.4f%s", file.name, f"{outcome.result.patches:,}",
                 outcome.result.scores.maximum, ", predicted before" if outcome.cached else "")  # fmt: skip
    return outcome


@step("table", hours=1)
def write_table(job: SlideJob, outcomes: list[SlideOutcome]) -> SlideSummary:
    """Write the table of all slides to the store."""
    summary = write_stored_summary(job, outcomes)
    log.info("Slides: %s, %s slides, %s of them predicted before", summary.uri, f"{summary.slides:,}",
             f"{summary.cached:,}")  # fmt: skip
    if summary.failures:
        log.warning("%s slides could not be predicted: the table says which and why", f"{len(summary.failures):,}")
    return summary
