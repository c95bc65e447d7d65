"""What a sweep would do, before anything is spent: `rankbench plan experiment=X [...] [--measure]`.

The words are those of `rankbench -m`. There is a row for each arm and point of the axes: runs, how many are done, the
budget and the adapter that a run starts with, in parameters, and the time that the others may take one after the other.
The time comes from finished runs of the same kind, or with --measure from a short run of each model and task made now.
With --memory there is the peak memory of a run as well, predicted without its weights (rankbench.training.memory).

Of an experiment it says what the runs will be able to tell, too: the smallest effect that is shown, the power at the
smallest effect of interest and the seeds for 80 %. A design that can tell nothing is refused, unless futile=allow.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.analysis.run_costs import from_records, kind
from rankbench.cli.arguments import add_results, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.config import registry
from rankbench.config.sections import Config
from rankbench.records import run_folder
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import PHASES, RunRecord
from rankbench.statistics.family import MOST, POWER
from rankbench.terminal import console, duration, loading, print_table, print_text

if TYPE_CHECKING:
    from rankbench.core.sites import Site
    from rankbench.sweeps.design import Design, Scatter
    from rankbench.sweeps.schedule import SweepSchedule

MEASURED_STEPS = 3
RATIOS = (0.5, 1.0, 2.0)  # of the deviation to the smallest effect
WHAT = ("arm", "model", "task", "budget")


@dataclass(frozen=True)
class Row:
    """Runs of one arm at one point of the axes.

    Attributes:
        what: arm, model, task and budget; the tuning trials of an arm have a row of their own.
        runs, done: how many runs, and how many of them have status ok.
        target: budget in parameters (or ranks, as its unit says); None where the model is not on this machine.
        start: parameters of the adapter that the method starts with; None likewise.
        seconds: time that the runs still to be done may take, those that failed not among them; None where nothing
            like them has finished here.
        memory: peak memory of a run in bytes; None where it is not asked for, or model or data are not on this machine.
    """

    what: tuple[str, str, str, str]
    runs: int
    done: int
    target: int | None
    start: int | None
    seconds: float | None
    memory: int | None = None


def rows(
    frozen_runs: Sequence[tuple[str, FrozenRun]],
    finished: Mapping[str, RunRecord],
    cost: Callable[[Mapping[str, Any]], float | None],
    memory: bool = False,
) -> Iterator[Row]:
    """A row for each arm, model, task and budget, in the order of the runs.

    Args:
        frozen_runs: label and frozen run; its run_id is "" while its learning rate or its ranks are not known.
        finished: run_id -> record.
        cost: configuration -> seconds of its run; None where nothing is known.
        memory: whether the peak memory of a run is predicted.
    """
    groups: dict[tuple[str, str, str, str], list[FrozenRun]] = {}
    for name, frozen in frozen_runs:
        config = frozen.config
        what = (name, *(str(config[section]["name"]) for section in ("model", "task", "budget")))
        groups.setdefault((what[0], what[1], what[2], what[3]), []).append(frozen)
    for what, members in groups.items():
        records = [finished.get(frozen.run_id) for frozen in members]
        done = sum(record is not None and record.status == "ok" for record in records)
        left = [
            frozen
            for frozen, record in zip(members, records, strict=True)
            if record is None or not record.is_final(frozen.redo)
        ]
        spent = [cost(frozen.config) for frozen in left]
        estimates = [seconds for seconds in spent if seconds is not None]
        beginning = _beginning(members[0].config)
        target, start = (beginning.target, beginning.start) if beginning else (None, None)
        peak = beginning.memory() if beginning and memory else None
        seconds = sum(estimates) if len(estimates) == len(spent) else None
        yield Row(what, len(members), done, target, start, seconds, peak)


@dataclass(frozen=True)
class Beginning:
    """What a run starts with.

    Attributes:
        config: of the run.
        sites: adapted matrices.
        target: budget.
        ranks: site -> rank; None where another run decides them.
        start: parameters of the adapter.
        gates: whether components have gates.
    """

    config: Config
    sites: list[Site]
    target: int
    ranks: Mapping[str, int] | None
    start: int
    gates: bool

    def memory(self) -> int | None:
        """Peak memory of the run in bytes; None where it cannot be told here.

        DoRA's passes keep more than the ones that are traced, so nothing is said of it.
        """
        from rankbench.models.errors import ModelError
        from rankbench.tasks.base import DataError
        from rankbench.training.memory import predict

        dora = registry.get("method", self.config.method.name).trains == "adapter and magnitudes"
        if self.ranks is None or dora:
            return None
        try:
            return predict(self.config, self.sites, self.ranks, self.gates).peak
        except (ModelError, DataError):
            return None


def _beginning(config: Mapping[str, Any]) -> Beginning | None:
    """The budget, and the adapter that the method starts with; None where not known here."""
    # torch and transformers take seconds to import
    from rankbench.core.apportionment import BudgetError
    from rankbench.core.budget import Budget
    from rankbench.core.seeding import Streams
    from rankbench.methods.base import RunContext
    from rankbench.models.errors import ModelError
    from rankbench.models.inferred_settings import resolve
    from rankbench.models.loading import sites_of

    frozen = Config.from_plain(config)
    streams = Streams(config["seed"])
    try:
        frozen = frozen.replace(model=resolve(frozen.model, download=False))
        sites = sites_of(frozen.model)
        truth = registry.get("task", config["task"]["name"])(frozen.task).truth(sites, streams)
        budget = Budget.of(frozen.budget, sites, truth)
    except (ModelError, BudgetError):
        return None
    if getattr(frozen.method, "source_run", None):
        return Beginning(frozen, sites, budget.target, None, budget.target, False)
    context = RunContext(sites, budget, config["train"]["steps"], streams.numpy("allocator", "start"), truth)
    allocator = registry.get("method", config["method"]["name"])(frozen.method, context)
    ranks = allocator.initial_ranks()
    return Beginning(frozen, sites, budget.target, ranks, budget.params(ranks), allocator.gate() is not None)


def from_short_runs(
    first: Callable[[Mapping[str, Any]], float | None],
) -> Callable[[Mapping[str, Any]], float | None]:
    """Seconds of a run where `first` knows none: measured on MEASURED_STEPS steps of a run of its kind.

    The first method of a kind stands for all.
    """
    measured: dict[tuple[Any, ...], float | None] = {}

    def cost(config: Mapping[str, Any]) -> float | None:
        seconds = first(config)
        if seconds is not None:
            return seconds
        if kind(config) not in measured:
            console().print(f"a short run of {config['model']['name']}, {config['task']['name']} ...", style="dim")
            measured[kind(config)] = _measure(config)
        return measured[kind(config)]

    return cost


def _measure(config: Mapping[str, Any]) -> float | None:
    from rankbench.training.run import execute

    steps = config["train"]["steps"]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        short = Config.from_plain(
            {**config, "results_dir": folder, "train": {**config["train"], "steps": MEASURED_STEPS}}
        )
        execute(short)
        records, _ = run_folder.records(Path(folder))
    if not records or records[0].cost is None:
        return None
    spent = [records[0].cost[phase]["seconds"] for phase in PHASES]
    return float(spent[0] + spent[3] + (spent[1] + spent[2]) / MEASURED_STEPS * steps)


def show(lines: Sequence[Row]) -> None:
    """Print the rows, and their sum; what all rows have in common stands above them."""
    varied = [index for index in range(1, 4) if len({row.what[index] for row in lines}) > 1]
    common = [lines[0].what[index] for index in range(1, 4) if index not in varied] if lines else []
    memory = any(row.memory is not None for row in lines)
    titles = ["arm", *(WHAT[index] for index in varied), "runs", "done", "target", "start"]
    titles += [*(["peak memory"] if memory else []), "time left"]
    cells = []
    for row in lines:
        figures = [*map(_figure, (row.target, row.start)), *([_bytes(row.memory)] if memory else [])]
        cells.append([*(row.what[index] for index in (0, *varied)), str(row.runs), str(row.done), *figures, _time(row)])
    counts = [str(sum(row.runs for row in lines)), str(sum(row.done for row in lines))]
    cells.append(["all", *[""] * len(varied), *counts, "", "", *[""] * memory, _whole_time(lines)])
    print_table(titles, cells, ", ".join(common), ("start", "target"), last="bold")


def _whole_time(lines: Sequence[Row]) -> str:
    """Time that all rows may take, one run after the other; what is known of it where some is not."""
    seconds = [row.seconds for row in lines if row.runs > row.done]
    estimates = [each for each in seconds if each is not None]
    if len(estimates) == len(seconds):
        return duration(sum(estimates))
    return f"> {duration(sum(estimates))}" if estimates else "not known"


def _figure(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    return "not known" if value is None else f"{value / 2**20:,.0f} MiB"


def _time(row: Row) -> str:
    if row.runs == row.done:
        return ""
    return "not known" if row.seconds is None else duration(row.seconds)


def show_power(design: Design, scatters: Sequence[Scatter]) -> None:
    """Print the power at the smallest effect, and the seeds for POWER: for some ratios of s to it, then as seen.

    Args:
        design: numbers of the experiment.
        scatters: of panels with finished runs.
    """
    against = {f"over {design.reference}": 1, f"over {design.controls} controls": design.controls}
    shown = list(against)[: 2 if design.controls > 1 else 1]
    rows = [(f"{ratio:g} smallest effects", ratio) for ratio in RATIOS]
    rows += [(f"{each.deviation:.2g} in finished runs: {each.title}", each.deviation) for each in scatters]
    cells = []
    for title, ratio in rows:
        line = [title]
        for controls in (against[name] for name in shown):
            enough = design.seeds(ratio, controls)
            line += [f"{design.power(ratio, controls) * 100:.0f} %", f"> {MOST}" if enough is None else str(enough)]
        cells.append(line)
    print_table(
        ["deviation of differences", *(part for name in shown for part in (name, design.unit))],
        cells,
        f"power at the smallest effect of interest, and {design.unit} for {POWER * 100:g} %",
    )


def main(words: Sequence[str]) -> int:
    """Print the plan; nothing is written.

    Raises:
        ConfigError: every mistake in the words; or the design is futile.
    """
    arguments = _arguments(words)
    loading("torch, and the configuration of every run")
    from rankbench.sweeps import composition
    from rankbench.sweeps.design import designs_of, refuse_futile, scatter_of
    from rankbench.sweeps.schedule import SweepSchedule

    typed = with_results(arguments.words, arguments)
    sweep = composition.words(typed)
    layout = composition.lay_out(sweep, arguments.config_dir)
    results_dir = composition.results_dir_of(layout)
    header = composition.describe(sweep, layout, typed, results_dir)
    schedule = SweepSchedule(layout, header, results_dir, sweep.retry == "failed")
    while schedule.advance():
        pass  # what finished trials choose is laid out, too
    finished = {record.run_id: record for record in run_folder.records(results_dir)[0]}
    _show_runs(schedule, finished, arguments)
    designs = designs_of(layout)
    scatters = scatter_of(header, finished)
    for design in designs:
        print_text(f"\n{design.summary}")
        show_power(design, [each for each in scatters if each.cell == design.cell])
    refuse_futile(designs, sweep.futile)
    return OK


def _arguments(words: Sequence[str]) -> Namespace:
    parser = command_parser("plan", __doc__ or "")
    parser.add_argument("words", nargs="*", metavar="WORD", help="as after rankbench -m")
    add_results(parser)
    parser.add_argument("--measure", action="store_true", help="time a short run of each model and task first")
    parser.add_argument("--memory", action="store_true", help="predict the peak memory of a run, too; seconds each")
    parser.add_argument("--config-dir", type=Path, help="a folder with more configuration files")
    return parser.parse_intermixed_args(words)


def _show_runs(schedule: SweepSchedule, finished: Mapping[str, RunRecord], arguments: Namespace) -> None:
    """Print a row for each arm and point, and what the sweep waits for."""
    waiting = schedule.left()
    frozen_runs = [
        *((job.row, schedule.frozen_run(job)) for job in schedule.sweep.jobs),
        *((str(cell.arm or cell.config["method"]["name"]), FrozenRun("", cell.config, "")) for cell in waiting),
    ]
    known = from_records(list(finished.values()))
    lines = list(rows(frozen_runs, finished, from_short_runs(known) if arguments.measure else known, arguments.memory))
    show(lines)
    if any(row.seconds is None for row in lines) and not arguments.measure:
        print_text("no run like some of these has finished here: --measure times a short one of each", "dim")
    if waiting:
        print_text(f"{len(waiting)} of them wait for a learning rate, a ladder or the ranks of another run", "dim")
    if trials := schedule.trials_of_ladders():
        print_text(f"{trials} trials of ladders, or more, come before the reported runs", "dim")
    for sentence in schedule.sweep.kept_back:
        print_text(sentence, "yellow")
