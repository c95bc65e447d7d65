"""One run from Python: `rankbench.run("method=igu", "model=tiny", "task=planted")` and what it returns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench import RankbenchError
from rankbench.core.sites import rank_grid
from rankbench.records.record import PHASES, RunRecord, run_id
from rankbench.records.run_folder import LOG, RunFolder, StoreError

if TYPE_CHECKING:  # pandas takes a moment to import: when a table is asked for
    import pandas as pd

    from rankbench.config.sections import Config

SPLITS = ("before", "validation", "test")
STEPS, RANK_CHANGES, ADAPTER = "steps.jsonl", "ranks.jsonl", "adapter"


class ResultError(RankbenchError, ValueError):
    """Something that a run did not leave; the message says why not."""


@dataclass(frozen=True, repr=False)
class RunResult:
    """A run: its record, and what else lies in its folder.

    A notebook shows it as a table. A failed run is a result, too: `status` and `reason` say what became of it.

    Attributes:
        record: everything a table may say about the run.
        folder: folder of the run; None where the record alone was kept, as in the folder of a report.
    """

    record: RunRecord
    folder: Path | None = None

    @classmethod
    def from_folder(cls, folder: str | Path) -> RunResult:
        """The result in the folder of a finished run.

        Args:
            folder: a run folder, `results/runs/<run_id>` or a copy of one.

        Raises:
            ResultError: it holds no record.
        """
        path = Path(folder)
        record = RunFolder.from_path(path).record()
        if record is None:
            raise ResultError(f"{path} holds no record.json: no run folder, or its run has not ended")
        return cls(record, path)

    @property
    def status(self) -> str:
        """One of rankbench.records.record.STATUSES: "ok", "nan", "oom", ..."""
        return self.record.status

    @property
    def reason(self) -> str | None:
        """Why the status is not "ok"; None where it is."""
        return self.record.reason

    @property
    def metrics(self) -> pd.Series[float]:
        """Split and metric -> value: `run.metrics["test/kl"]`; NaN where it was not measured."""
        import pandas as pd

        measured = {split: (self.record.metrics or {}).get(split) or {} for split in SPLITS}
        flat = {
            f"{split}/{name}": value
            for split, values in measured.items()
            for name, value in values.items()
            if name != "step"
        }
        return pd.Series(flat, dtype=float, name=self.record.run_id)

    @property
    def ranks(self) -> pd.DataFrame:
        """Final ranks, kinds of sites x layers; <NA> where a layer has no such site. Empty for a run without ranks.

        Sites outside the layers stand in the last column, <NA>.
        """
        import pandas as pd

        grid = rank_grid(self.record.ranks or {})
        rows = [[grid.cells.get((layer, kind)) for layer in grid.layers] for kind in grid.kinds]
        layers = pd.Index(grid.layers, dtype="Int64", name="layer")
        return pd.DataFrame(rows, pd.Index(grid.kinds, name="rank"), layers, dtype="Int64")

    @property
    def cost(self) -> pd.DataFrame:
        """Phases of the run x seconds, forward_passes, backward_passes and tokens; NaN where it did not get there."""
        import pandas as pd

        spent = {phase: (self.record.cost or {}).get(phase) or {} for phase in PHASES}
        columns = ["seconds", "forward_passes", "backward_passes", "tokens"]
        return pd.DataFrame.from_dict(spent, orient="index", columns=columns)

    @property
    def steps(self) -> pd.DataFrame:
        """A row per training step: loss, penalty, learning rate, ranks in all, and what the method logs.

        Raises:
            ResultError: the run has no folder.
        """
        return self._lines(STEPS)

    @property
    def history(self) -> pd.DataFrame:
        """A row per rank change: step, site, rank before and after, reason; empty for a method that changes none.

        Raises:
            ResultError: the run has no folder.
        """
        return self._lines(RANK_CHANGES)

    @property
    def adapter(self) -> Path | None:
        """Folder of the stock LoRA adapter for `PeftModel.from_pretrained`; None where the run left none."""
        path = self.folder / ADAPTER if self.folder else None
        return path if path is not None and path.is_dir() else None

    def _lines(self, name: str) -> pd.DataFrame:
        import pandas as pd

        if self.folder is None:
            raise ResultError(f"{name} of {self.record.run_id}: its record alone was kept, not the folder of the run")
        return pd.DataFrame(RunFolder.from_path(self.folder).lines(name))

    @property
    def title(self) -> str:
        """Method, model, task, budget and seed."""
        record = self.record
        return f"{record.method} on {record.model}, {record.task}, budget {record.budget}, seed {record.seed}"

    def __repr__(self) -> str:
        metrics = self.metrics
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.filter(like="test/").items())
        outcome = self.status + (f": {self.reason}" if self.reason else "")
        return f"<{self.title}: {', '.join(filter(None, [outcome, shown]))}>"

    def _repr_html_(self) -> str:
        """Outcome, metrics by split, budget and rank map, for notebooks."""
        from rankbench.interface.notebook_html import paragraph

        tables = [self._metrics_by_split(), self.ranks]
        shown = (table.to_html(na_rep="", float_format="{:.4g}".format) for table in tables if len(table))
        sentences = map(paragraph, filter(None, [self.reason, self._budget()]))
        return "\n".join([paragraph(f"{self.title}: {self.status}", strong=True), *sentences, *shown])

    def _metrics_by_split(self) -> pd.DataFrame:
        import pandas as pd

        measured = {split: values for split in SPLITS if (values := (self.record.metrics or {}).get(split))}
        return pd.DataFrame(measured, dtype=float).drop(index="step", errors="ignore")

    def _budget(self) -> str:
        ledger = self.record.ledger or {}
        final = (ledger.get("final") or {}).get(ledger.get("unit"))
        return "" if final is None else f"Budget: {ledger['target']:,} {ledger['unit']}, spent {final:,}."


def run(*overrides: str | Sequence[str], config_dir: str | Path | None = None, show: bool = False) -> RunResult:
    """Do one run, or find it done: `rankbench.run("method=igu", "model=tiny", "task=planted")`.

    A finished run is returned at once; an interrupted one goes on from its last checkpoint.

    Args:
        overrides: words of the command line, one by one or as lists.
        config_dir: a folder with more configuration files (--config-dir).
        show: whether to print what the command prints; else it goes to log.txt in the folder of the run.

    Returns:
        The result, whatever its status.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
        StoreError: the run's folder cannot be used, so that it left no record.
    """
    from rankbench.config.overrides import one_run

    config = one_run(words_of(overrides), Path(config_dir) if config_dir else None).config
    folder = folder_of(config)
    record = finished_record(folder)
    if record is None:
        with nullcontext() if show else _printing_to(folder.path / LOG):
            record = _execute(config, folder)
    return RunResult(record, folder.path)


def words_of(overrides: Sequence[str | Sequence[str]]) -> list[str]:
    """The words of a command line that were given one by one or as lists."""
    return [word for each in overrides for word in ([each] if isinstance(each, str) else each)]


def folder_of(config: Config) -> RunFolder:
    """The folder of the run that a configuration describes."""
    return RunFolder(Path(config.results_dir), run_id(config.plain()))


def finished_record(folder: RunFolder) -> RunRecord | None:
    """The record of a run with status ok; None where there is none, or several processes have to agree on it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    record = folder.readable_record()
    return record if record is not None and record.status == "ok" else None


def _execute(config: Config, folder: RunFolder) -> RunRecord:
    from rankbench.training.run import execute  # torch, transformers and PEFT take seconds to import

    execute(config)
    record = folder.record()
    if record is None:
        raise StoreError(f"{folder.path}: the run left no record; what it printed says why")
    return record


@contextmanager
def _printing_to(file: Path) -> Iterator[Any]:
    """Let what is printed go to a file until the block ends.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        log = file.open("a", buffering=1)
    except OSError as error:
        raise StoreError(f"results_dir cannot be written: {file}: {error.strerror or error}") from error
    with log, redirect_stdout(log):
        yield
