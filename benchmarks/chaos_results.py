"""The outcomes of a campaign, and their table."""

import json
from collections import Counter
from typing import NamedTuple

from benchmarks.chaos_faults import FAULTS
from benchmarks.chaos_runs import LIMIT_S
from benchmarks.machine import RESULTS, write_result

SAME, TOLD = "same", "told"
FAILURES = ("wrong", "lost", "hung", "leftover", "traceback", "unclear")


class Outcome(NamedTuple):
    """What became of one fault."""

    fault: str
    seed: int
    what: str
    outcome: str
    seconds: float
    code: str
    """The digest of the code that survived it."""
    detail: str = ""

    def line(self) -> str:
        """The outcome in a line."""
        return f"{self.fault}, seed {self.seed}: {self.what}: {self.outcome}, {self.seconds} s {self.detail}"


def earlier_outcomes() -> list[Outcome]:
    """What the result file holds."""
    path = RESULTS / "chaos.json"
    return [Outcome(**one) for one in json.loads(path.read_text())["outcomes"]] if path.exists() else []


def markdown_table(table: dict[str, dict[str, int]]) -> str:
    """The rows of docs/reliability.md."""
    rows = ["| fault | tried | same weights | told | failures |", "|---|---|---|---|---|"]
    for name, counts in table.items():
        failures = sum(counts.get(kind, 0) for kind in FAILURES)
        rows.append(f"| {name} | {sum(counts.values())} | {counts[SAME]} | {counts[TOLD]} | {failures} |")
    return "\n".join(rows)


def write_outcomes(outcomes: list[Outcome], earlier: list[Outcome]) -> None:
    """Write the result file: each outcome, and how often each fault ended how."""
    all_of_them = list({(one.fault, one.seed): one for one in [*earlier, *outcomes]}.values())
    counts = Counter((one.fault, one.outcome) for one in all_of_them)
    table = {name: {kind: counts[name, kind] for kind in (SAME, TOLD, *FAILURES)} for name in FAULTS}
    shown = {"faults": len(all_of_them), "limit_seconds": LIMIT_S, "table": table}
    print(markdown_table(table))
    outcomes_as_records = [one._asdict() for one in all_of_them]
    write_result("chaos", "python -m benchmarks.chaos", shown | {"outcomes": outcomes_as_records}, shown)
