"""Short titles of the runs of a sweep: the arm, and the settings in which runs of one arm differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from rankbench.sweeps.manifest import Job, Sweep

GROUPS = ("model", "task", "budget", "train")  # a choice of these is told by its name alone
ASIDE = ("seed", "method", "trial", "results_dir")  # said apart, or the same in every row
RATE = "train.learning_rate"


class RunTitles:
    """Titles that name no more than what tells the runs of a sweep apart.

    Args:
        jobs: the runs; tuning trials among them only where there is nothing else.
        aside: more keys that no title names, since they follow from others.
    """

    def __init__(self, jobs: Iterable[Job], aside: Collection[str] = ()) -> None:
        values: dict[tuple[str, str], set[str]] = defaultdict(set)
        for job in jobs:
            for key, value in settings_of(job).items():
                values[arm_of(job), key].add(value)
        varied = {key for (_, key), several in values.items() if len(several) > 1} - {*ASIDE, *aside}
        self._keys = sorted(varied, key=lambda key: (GROUPS.index(key) if key in GROUPS else len(GROUPS), key))

    @classmethod
    def of(cls, sweep: Sweep) -> RunTitles:
        """The titles of the jobs of a sweep; rates that trials have chosen are in none."""
        jobs = [job for job in sweep.jobs if not job.trial] or sweep.jobs
        tuned = any(job.trial for job in sweep.jobs)
        return cls(jobs, (RATE,) if tuned else ())

    def row(self, job: Job) -> str:
        """The arm and its point of the axes: "igu, gsm8k, r4"; trials apart: "igu, gsm8k, r4 (trials)"."""
        settings = settings_of(job)
        named = [_short(key, settings[key]) for key in self._keys if key in settings]
        kind = job.row.removeprefix(arm_of(job))
        return ", ".join([arm_of(job), *named]) + kind

    def run(self, job: Job) -> str:
        """The row, and the seed: "igu, gsm8k, r4, seed 3"; of a trial the rate, too."""
        settings = settings_of(job)
        rate = [f"rate {settings[RATE]}"] if job.trial and RATE in settings else []
        seed = [f"seed {settings['seed']}"] if "seed" in settings else []
        return ", ".join([self.row(job).replace(" (trials)", " (trial)"), *rate, *seed])


def arm_of(job: Job) -> str:
    """Label of the arm of a job; without an experiment its method."""
    return job.arm or job.method


def settings_of(job: Job) -> dict[str, str]:
    """Key -> value of the overrides of a job."""
    return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in job.overrides)}


def _short(key: str, value: str) -> str:
    return value if key in GROUPS else f"{key.rpartition('.')[2].replace('_', ' ')} {value}"
