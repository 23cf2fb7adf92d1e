"""The flow `pcam-slides`: predict whole slides with a published model."""

from prefect import flow, unmapped

from pcam_model.registry.config import StoreConfig
from pcam_model.slides.records import SlideOptions
from pcam_model.slides.store import SlideSummary
from tasks import inference, process_setup
from tasks import slides as slide_tasks


@flow(name="pcam-slides", log_prints=True)
def slides(
    source: str = "",
    model: str = "champion",
    store: StoreConfig = StoreConfig(),
    name: str = "",
    options: SlideOptions = SlideOptions(),
    tta: bool | None = None,
    cluster: str = "",
) -> SlideSummary:
    """Predict whole slides with a published model, slide by slide; started again, predict only what is new.

    Args:
        source: a slide or a folder of slides, which the workers of a cluster have to reach too.
        model: a channel, a run, or the address of one or of a store.
        store: the store in which names of models are looked up, and in which the results are, under `slides/<name>/`.
        name: the name of the results in the store; empty: the run's name.
        options: how the slides are predicted.
        tta: whether outputs are averaged over 8 views; empty: as the model was published.
        cluster: tcp://host:8786 (Dask) or ray://host:10001 (Ray); empty: threads of this process.
    """
    process_setup.setup_process()
    job = slide_tasks.plan(source, model, store, name, options, tta)
    with inference.task_runner(cluster) as runner:
        futures = runner.map(slide_tasks.predict, {"job": unmapped(job), "file": list(job.files)})  # type: ignore[arg-type]
        outcomes = futures.result()
    return slide_tasks.write_table(job, outcomes)
