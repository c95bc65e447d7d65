"""Runs of a study done again, each by its own command line, and what came out beside what its record says."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.studies.study import Study
from rankbench.sweeps.manifest import Job

LINES = 3  # of the output of a run, the last


@dataclass(frozen=True)
class Repetition:
    """A run that was done again.

    Attributes:
        job: the run.
        stored: its record in the study.
        record: the record that it left now; None where it left none.
        output: the last lines that it printed.
    """

    job: Job
    stored: RunRecord
    record: RunRecord | None
    output: str

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Metric or site -> stored and new value, where they are not the same to the last bit."""
        before, after = (_numbers(record) if record else {} for record in (self.stored, self.record))
        keys = dict.fromkeys([*before, *after])
        return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}

    @property
    def largest(self) -> float | None:
        """Largest relative difference of a number; None where one of the two has it alone, or it is a rank."""
        both = [
            (one, other)
            for one, other in self.differences.values()
            if isinstance(one, float) and isinstance(other, float)
        ]
        if len(both) < len(self.differences):
            return None
        return max((abs(other - one) / max(abs(one), abs(other)) for one, other in both), default=0.0)


def _numbers(record: RunRecord) -> dict[str, Any]:
    metrics = {
        f"{split}/{name}": value
        for split, values in (record.metrics or {}).items()
        for name, value in (values or {}).items()
    }
    return {"status": record.status, **metrics, **(record.ranks or {})}


def repeat(study: Study, count: int, seed: int) -> Iterator[Repetition]:
    """Do some reported runs again, one after the other, in a folder that is removed afterwards.

    The ranks or the budget of another run are those of its record in the study.

    Args:
        count: how many runs, drawn at random; all where there are fewer.
        seed: of the draw.
    """
    finished = [(job, record) for job, record in study.runs() if record is not None and record.status == "ok"]
    runs = list({job.run_id: (job, record) for job, record in finished}.values())  # cells may share a run
    for job, record in random.Random(seed).sample(runs, min(count, len(runs))):
        with tempfile.TemporaryDirectory() as folder:
            yield _repeat(job, record, study.records, Path(folder))


def _repeat(job: Job, stored: RunRecord, records: Mapping[str, RunRecord], results_dir: Path) -> Repetition:
    values = (override.partition("=")[2] for override in job.overrides)
    for run_id in filter(records.__contains__, values):
        source = RunFolder(results_dir, run_id)
        source.path.mkdir(parents=True)
        source.write_record(records[run_id])
    command = [sys.executable, "-m", "rankbench", *job.overrides, f"results_dir={results_dir}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LINES:])
    return Repetition(job, stored, RunFolder(results_dir, job.run_id).record(), output)
