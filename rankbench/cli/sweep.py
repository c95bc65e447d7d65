"""`rankbench -m ...` or `rankbench sweep ...`: a run for each combination of values, or those of an experiment.

pandas is imported after the last run alone: the memory is for the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench import RankbenchError
from rankbench.cli.arguments import RESULTS
from rankbench.cli.exit_codes import OK
from rankbench.cli.run import SWEEP_WORDS, config_dir_of, hydra_run, inspects, parse, say
from rankbench.config.schema import ConfigError
from rankbench.studies import study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Sweep
from rankbench.terminal import print_text

if TYPE_CHECKING:
    from rankbench.reporting.report_data import ReportData

MOST_TABLES = 4  # of more panels the report is the place to read
OFFLINE = "wandb/offline-run-*"  # in the folder of a run


def main(words: Sequence[str]) -> int:
    """Do every run of the sweep that is not done.

    Returns:
        0 if every run ended with status ok, else 1.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    flags = parse(words)
    if inspects(flags):
        if several := [word for word in flags.overrides if _means_several_runs(word)]:
            advice = "--cfg, --info and the like show one run; take rankbench plan for a sweep"
            raise ConfigError([f"{word}: {advice}" for word in several])
        flags.multirun = False  # Hydra shows the one run
        return hydra_run(flags, lambda composed: OK)
    say("loading the configuration of every run ...")
    from rankbench.launching.driver import start

    return start(flags.overrides, config_dir_of(flags), flags.config_name or "config", show_results)


def _means_several_runs(word: str) -> bool:
    """Whether only a sweep reads the word, or it is an override with several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if word.partition("=")[0].partition(".")[0] in SWEEP_WORDS:
        return True
    return bool(OverridesParser.create().parse_override(word).is_sweep_override())


def show_results(sweep: Sweep, results_dir: Path) -> None:
    """Print the results of a sweep, which is a look at them.

    Of some cells of an experiment, or while reported runs are missing, only how many are done: differences that are
    read before the rest has run would cost a look, and might decide whether it runs.
    """
    loaded = study.study_of_sweep(sweep, results_dir, with_curves=False)
    statuses = [record and record.status for _, record in loaded.runs()]
    if sweep.waiting or None in statuses or any(word.startswith("cells=") for word in sweep.words):
        done = sum(status is not None for status in statuses)
        print_text(f"{done:,} of {len(statuses):,} runs are done; the report of the whole shows the numbers")
    elif "ok" in statuses:
        from rankbench.reporting.report_data import gather

        try:
            report_data = gather(loaded)
        except RankbenchError as error:
            print_text(f"no table: {error}", "yellow")
        else:
            manifest.look(sweep, results_dir)
            _print_tables(report_data)
    for sentence in _next_commands(sweep, results_dir):
        print_text(sentence)


def _print_tables(report_data: ReportData) -> None:
    """Print the table of each panel, the decisions on arms with controls, and the answer in one sentence."""
    from rankbench.analysis.labels import arm_title, panel_title, with_titles
    from rankbench.reporting.comparison_table import make_table
    from rankbench.reporting.headline import make_headline
    from rankbench.reporting.record_tables import print_cells
    from rankbench.reporting.sections.over_panels import pooled_tables

    alone = report_data.alone()
    decided = [(panel.name, arm, decision) for panel, _, arm, decision in report_data.judged]
    for table in pooled_tables(report_data):
        print_text("")
        print_cells(table)
    for panel, comparison in alone[:MOST_TABLES]:
        print_text("")
        print_cells(make_table(comparison, title=panel_title(panel.title)))
        for arm, decision in ((arm, decision) for name, arm, decision in decided if name == panel.name):
            print_text(f"{arm_title(arm)}: {decision.outcome} ({with_titles(decision.reason, report_data.styles)})")
    if len(alone) > MOST_TABLES:
        print_text(f"\n{len(alone) - MOST_TABLES} more tables: the report has them", "dim")
    print_text(f"\n{make_headline(report_data).sentence}\n", "bold")


def _next_commands(sweep: Sweep, results_dir: Path) -> Iterator[str]:
    """The commands that make something of the sweep."""
    where = "" if results_dir == RESULTS else f" --results {results_dir}"
    named = f" experiment={sweep.name}" if sweep.experiment is not None else ""
    yield f"next: rankbench report{named}{where}"
    offline = {job.run_id for job in sweep.jobs if any((results_dir / "runs" / job.run_id).glob(OFFLINE))}
    if offline:
        runs = "1 run lies" if len(offline) == 1 else f"{len(offline)} runs lie"
        yield f"W&B: {runs} offline; to upload: wandb sync {results_dir}/runs/*/{OFFLINE}"
