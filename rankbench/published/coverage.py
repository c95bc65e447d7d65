"""Which published numbers the experiments of conf/experiment run for, and why the others are left out.

`rankbench verify --published --coverage` prints the summary and the table, which stand in docs/coverage.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.analysis.metrics import metric_of
from rankbench.published import numbers
from rankbench.published.numbers import AVERAGE, SETS
from rankbench.published.verification import OURS, is_of_hardware, known_tasks
from rankbench.sweeps import experiment_files
from rankbench.sweeps.experiment import Experiment
from rankbench.sweeps.report_settings import Published

UNTRAINED = ("calibration", "allocation")  # how tasks begin of numbers that need no training
FEW = 4  # tasks of one family that are named one by one


@dataclass(frozen=True)
class CoveredTable:
    """One table of a paper, for one model.

    Attributes:
        file: stem of the file of numbers.
        paper, table, model: as in the file.
        tasks: in the order of the file.
        experiments: that name the table.
        covered, total: numbers with an arm, a task, a model and a metric here; all numbers.
        left_out: why -> what, for the others.
    """

    file: str
    paper: str
    table: str
    model: str
    tasks: list[str]
    experiments: list[str]
    covered: int
    total: int
    left_out: dict[str, list[str]]


def coverage() -> list[CoveredTable]:
    """Every table of every file of published numbers, in the order of the files."""
    experiments = [experiment_files.load(name) for name in sorted(experiment_files.names())]
    tables = []
    for file in sorted(numbers.folder().glob("*.csv")):
        data = numbers.load(file.stem, file.parent)
        for (paper, table, model), rows in data.groupby(["paper", "table", "model"], sort=False):
            named = [
                (experiment, entry)
                for experiment in experiments
                for entry in experiment.report.published
                if (entry.file, entry.table) == (file.stem, table) and entry.model in (None, model)
            ]
            reasons = [_reason(row, named) for row in rows.to_dict("records")]
            left_out: dict[str, dict[str, None]] = defaultdict(dict)
            for why, what in filter(None, reasons):
                left_out[why].update(dict.fromkeys(what))
            tables.append(
                CoveredTable(
                    *(file.stem, str(paper), str(table), str(model)),
                    list(dict.fromkeys(rows["task"])),
                    list(dict.fromkeys(experiment.name for experiment, _ in named)),
                    *(reasons.count(None), len(rows)),
                    {why: list(what) for why, what in left_out.items()},
                )
            )
    return tables


def _reason(row: Mapping[Any, Any], named: Sequence[tuple[Experiment, Published]]) -> tuple[str, list[str]] | None:
    """Why a number is left out, and what that is about; None if an experiment runs for it."""
    tasks = SETS.get(row["task"], (row["task"],))
    trained = [task for task in tasks if not task.startswith(UNTRAINED)]
    if strange := [task for task in trained if task not in known_tasks()]:
        return "no such task here", strange
    if not row["our_method"]:
        return "no such method here", [row["method"]]
    if not named:
        return "no experiment", []
    with_arm = [(experiment, entry) for experiment, entry in named if row["method"] in entry.arms.values()]
    if not with_arm:
        return "no arm", [row["method"]]
    fitting = [experiment for experiment, entry in with_arm if _is_at_budget(entry, row)]
    if not fitting:
        return "another budget is run", [row["rank_or_budget"]]
    if not any(row["model"].lower() in _values(experiment, "model") for experiment in fitting):
        return "another model is run", []
    if not any(set(trained) <= set(_values(experiment, "task")) for experiment in fitting):
        return "another task is run", [row["task"]]
    if is_of_hardware(row["metric"]):
        return "measured on other hardware", [row["metric"]]
    if row["metric"] != AVERAGE and any(metric_of(name) is None for name in OURS.get(row["metric"], (row["metric"],))):
        return "in figures alone", [row["metric"].partition(",")[0]]
    return None


def _is_at_budget(entry: Published, row: Mapping[Any, Any]) -> bool:
    words = [word for several in entry.budgets.values() for word in several]
    return not words or row["rank_or_budget"] in words


def _values(experiment: Experiment, key: str) -> list[str]:
    """Values of a group over the runs of an experiment."""
    return [*experiment.axes.get(key, []), *([experiment.settings[key]] if key in experiment.settings else [])]


def markdown(tables: Iterable[CoveredTable]) -> str:
    """One row per table of a paper: what it is about, which experiments run for it, what is left out and why."""
    head = ["numbers", "table", "model", "tasks", "experiments", "covered", "left out"]
    rows = [
        [
            f"`{table.file}`, {table.paper}",
            table.table.removeprefix("repository "),
            table.model,
            ", ".join(_families(table.tasks)),
            ", ".join(f"`{name}`" for name in table.experiments) or "none",
            f"{table.covered} of {table.total}",
            "; ".join(f"{why}: {_listed(what)}" if what else why for why, what in table.left_out.items()),
        ]
        for table in tables
    ]
    return _table(head, rows)


def summary(tables: Sequence[CoveredTable]) -> str:
    """One row per file of numbers: experiments, how many numbers they run for, and why the others are left out."""
    rows = []
    for file in dict.fromkeys(table.file for table in tables):
        own = [table for table in tables if table.file == file]
        experiments = dict.fromkeys(name for table in own for name in table.experiments)
        without = sum(not table.experiments for table in own)
        rows.append(
            [
                f"`{file}`",
                f"{len(own) - without} of {len(own)}",
                f"{sum(table.covered for table in own)} of {sum(table.total for table in own)}",
                ", ".join(f"`{name}`" for name in experiments),
            ]
        )
    return _table(["published numbers", "tables with an experiment", "numbers it runs for", "experiments"], rows)


def _families(tasks: Sequence[str]) -> list[str]:
    """Tasks, those of a family that are many as one entry: "glue (8 tasks)"."""
    family_of = {task: task.partition("-")[0] for task in tasks}
    sizes = Counter(family for task, family in family_of.items() if family != task)
    many = {family: f"{family} ({size} tasks)" for family, size in sizes.items() if size > FEW}
    return list(dict.fromkeys(many.get(family, task) for task, family in family_of.items()))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' if "," in name else name for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
