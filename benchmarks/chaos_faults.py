"""The faults of a campaign by their names: each breaks a command at a moment that a seed draws."""

from benchmarks.chaos_download import DOWNLOAD_FAULTS
from benchmarks.chaos_fault import Fault
from benchmarks.chaos_files import FILE_FAULTS
from benchmarks.chaos_processes import PROCESS_FAULTS
from benchmarks.chaos_scoring import SCORING_FAULTS
from benchmarks.chaos_store import STORE_FAULTS
from benchmarks.chaos_worker import WORKER_FAULTS

FAULTS: dict[str, Fault] = (
    PROCESS_FAULTS | WORKER_FAULTS | FILE_FAULTS | STORE_FAULTS | DOWNLOAD_FAULTS | SCORING_FAULTS
)
