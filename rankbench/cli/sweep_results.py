"""What a sweep found, printed at its end: the table of each panel, what is decided, and the command that comes next.

pandas is imported here, and only after the last run: the launcher needs the memory for its runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench import RankbenchError
from rankbench.cli.arguments import RESULTS
from rankbench.cli.printed_tables import print_cells
from rankbench.studies import study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Sweep
from rankbench.terminal import console

if TYPE_CHECKING:
    from rankbench.reporting.report_data import ReportData

MOST_TABLES = 4  # of more panels the report is the place to read
OFFLINE = "wandb/offline-run-*"  # in the folder of a run


def show(sweep: Sweep, results_dir: Path) -> None:
    """Print the results of a sweep, which is a look at them; nothing where no run is ok."""
    out = console()
    loaded = study.study_of_sweep(sweep, results_dir, with_curves=False)
    if any(record is not None and record.status == "ok" for _, record in loaded.runs()):
        from rankbench.reporting.report_data import gather

        try:
            report_data = gather(loaded)
        except RankbenchError as error:
            out.print(f"no table: {error}", style="yellow", markup=False)
        else:
            manifest.look(sweep, results_dir)
            _print_tables(report_data)
    for sentence in _next_commands(sweep, results_dir):
        out.print(sentence, markup=False, soft_wrap=True)


def _print_tables(report_data: ReportData) -> None:
    from rankbench.reporting.comparison_table import make_table
    from rankbench.reporting.sections.verdict import decide

    compared = report_data.compared()
    out = console()
    for panel, comparison in compared[:MOST_TABLES]:
        out.print()
        print_cells(make_table(comparison, title=panel.title))
        for arm in report_data.report.controls:
            if (decision := decide(report_data, comparison, arm)) is not None:
                out.print(f"{arm}: {decision.outcome} ({decision.reason})", markup=False)
    out.print()
    if len(compared) > MOST_TABLES:
        out.print(f"{len(compared) - MOST_TABLES} more tables: the report has them", style="dim")


def _next_commands(sweep: Sweep, results_dir: Path) -> Iterator[str]:
    """The commands that make something of the sweep."""
    where = "" if results_dir == RESULTS else f" --results {results_dir}"
    named = f" experiment={sweep.name}" if sweep.experiment is not None else ""
    yield f"next: rankbench report{named}{where}"
    offline = {job.run_id for job in sweep.jobs if any((results_dir / "runs" / job.run_id).glob(OFFLINE))}
    if offline:
        yield f"W&B: {len(offline)} runs lie offline; to upload them: wandb sync {results_dir}/runs/*/{OFFLINE}"
