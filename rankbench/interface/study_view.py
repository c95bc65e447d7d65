"""A study from Python: what `rankbench.load` and `rankbench.sweep` return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rankbench.analysis.comparison import Comparison, compare
from rankbench.analysis.frame import SelectionError, frame, split
from rankbench.analysis.labels import panel_title, with_titles
from rankbench.analysis.selection import refuse_doubt
from rankbench.interface.comparison_frame import compared_on, comparison_frame
from rankbench.interface.run_result import ResultError, RunResult
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.studies.panels import Panel, panels
from rankbench.studies.study import Study
from rankbench.studies.study_question import question_of
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import SweepError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rankbench.reporting.headline import Headline
    from rankbench.reporting.plotting import ReportFigure
    from rankbench.reporting.report_data import ReportData

SHOWN_PANELS = 3  # whose tables a notebook shows


@dataclass(frozen=True, repr=False)
class StudyView:
    """A sweep with its records: tables as pandas frames, figures as matplotlib's.

    A notebook shows its headline and its table. Tuning trials are no part of the tables.

    Attributes:
        study: the sweep and its records.
        allow_mixed: names ("code", "torch", "train.steps") of what may differ between the runs of one table.
    """

    study: Study
    allow_mixed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the experiment; without one, of the sweep or of the folder."""
        sweep = self.study.sweep
        return sweep.name if sweep.experiment is not None else sweep.sweep_id

    @property
    def question(self) -> str:
        """What the experiment asks; without one, what is compared with what."""
        return question_of(self.study, self._panels)

    @property
    def records(self) -> list[RunRecord]:
        """Records of the runs that are reported."""
        return [record for _, record in self.study.runs() if record is not None]

    @property
    def panels(self) -> list[str]:
        """Titles of the panels: what may be compared, one model, task, budget and point of other axes each."""
        return [panel.title for panel in self._panels]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run: panel, label (its arm), seed, status, metrics ("test/kl"), ledger, cost.

        Columns are described in rankbench.analysis.frame. A run that left no record has the status "missing".
        """
        return pd.concat([panel.data.assign(panel=panel.title) for panel in self._panels], ignore_index=True)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per tuning trial that left a record, as in `runs`; empty where nothing was tuned."""
        done = [(panel, run) for panel in self._panels for run in panel.trials if run.record is not None]
        if not done:
            return pd.DataFrame()
        data = frame([run.record for _, run in done if run.record], names=[run.arm for _, run in done])
        return data.assign(panel=[panel.title for panel, _ in done])

    def result(self, run_id: str) -> RunResult:
        """One run of the study.

        Args:
            run_id: its name, as in the column of `runs`.

        Raises:
            ResultError: the study has no record of this name.
        """
        if run_id not in self.study.records:
            raise ResultError(f"{run_id}: no record of the study {self.name} has this run_id; study.runs lists them")
        folder = RunFolder(self.study.results_dir, run_id).path if self.study.results_dir else None
        return RunResult(self.study.records[run_id], folder)

    def table(self, metric: str | None = None, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Arms beside the reference, paired by seed: a row per panel and arm, the reference first.

        n, mean and sd of the metric; difference to the reference with the interval (low, high) that holds together with
        those of all other arms; unit of the difference ("%" where logarithms are compared); finding, where there is a
        smallest effect of interest to judge by; detectable, the smallest true difference that these pairs would have
        told from 0 with 80 % probability; spent, the share of the budget.

        Args:
            metric: column of `runs` ("test/loss"); None: the one that the study is about. Of another one nothing is
                judged: the finding is left out.
            by: settings ("task.map") to group the runs by, beside model, task and budget, in place of the panels.

        Raises:
            SelectionError: no run has the metric or setting, or the runs may not stand in one table, as where several
                runs of an arm have one seed.
        """
        compared = dict(self._compared(metric, [by] if isinstance(by, str) else by))
        if not compared:
            raise SelectionError(f"{self.name}: no run has measured what its table shows; study.runs has all columns")
        return comparison_frame(compared)

    def ranks(self, arm: str | None = None, panel: str | None = None) -> pd.DataFrame:
        """Final ranks: a row per run and site.

        Columns: panel, label, seed, site, layer (NaN outside the layers), kind, rank.

        Args:
            arm, panel: of one arm or panel alone.

        Raises:
            SelectionError: there is no such arm or panel, or no run that is ok has ranks.
        """
        from rankbench.reporting.figures.rank_maps import rank_maps  # matplotlib takes a moment to import

        chosen = [self._panel(panel)] if panel is not None else self._panels
        pairs = {
            each.title: [pair for pair in zip(each.records, each.names, strict=True) if arm in (None, pair[1])]
            for each in chosen
        }
        if not any(pairs.values()):
            raise SelectionError(f"no run of {arm!r}; there are {', '.join(self._arms)}")
        maps = {title: rank_maps(*map(list, zip(*each, strict=True))) for title, each in pairs.items() if each}
        return pd.concat(maps, names=["panel"]).reset_index("panel").reset_index(drop=True)

    def forest(self, panel: str | None = None) -> Figure:
        """The forest plot: each arm's difference to the reference with its interval, from the best to the worst.

        Args:
            panel: one panel alone; None: all of them, those that are declared to be taken together as one.

        Raises:
            SelectionError: there is no such panel, or nothing is compared.
        """
        from rankbench.reporting.figures.forest import draw_forest  # matplotlib takes a moment to import

        return self._drawn(draw_forest, panel)

    def rank_maps(self, panel: str | None = None) -> Figure:
        """Rank maps of the arms, means over seeds; where each seed has a true map: true ranks, ranks found, difference.

        Args:
            panel: one panel; None: the first one.

        Raises:
            SelectionError: there is no such panel, or no run that is ok has ranks.
        """
        from rankbench.reporting.figures.mean_maps import draw_rank_maps  # matplotlib takes a moment to import

        chosen = self._panel(panel or self.panels[0])
        return self._drawn(partial(draw_rank_maps, chosen.title, [chosen]), None)

    def found_against_gain(self, panel: str | None = None) -> Figure:
        """How much of the true map each arm found, against its gain over the reference.

        Args:
            panel: one panel alone; None: all of them.

        Raises:
            SelectionError: there is no such panel, or no run has a true map.
        """
        from rankbench.reporting.figures.found_maps import draw_found_against_gain  # matplotlib takes a moment

        return self._drawn(draw_found_against_gain, panel)

    def _drawn(self, draw: Callable[[ReportData], ReportFigure | None], panel: str | None) -> Figure:
        from rankbench.reporting.plotting import drawn

        data = self._data
        if panel is not None:
            data = replace(data, panels=[each for each in data.panels if each.name == self._panel(panel).name])
        picture = drawn(partial(draw, data))
        if picture is None:
            raise SelectionError(f"{self.name}: nothing to draw: no run has measured what the figure shows")
        return picture.figure

    @property
    def headline(self) -> str:
        """The sentence that answers the question, as the page says it first.

        Raises:
            SelectionError: the runs may not stand in one table.
        """
        return self._headline.sentence

    @property
    def badges(self) -> dict[str, dict[str, str]]:
        """Kind of finding ("better", "open", ...) -> arms -> in how many of how many panels; "" for a single one."""
        return {str(kind): arms for kind, arms in self._headline.badges.items()}

    @cached_property
    def verdict(self) -> list[str]:
        """The headline, what it rests on, and sentences on what is decided, what is open and what could have been seen.

        Raises:
            SelectionError: the runs may not stand in one table.
        """
        from rankbench.reporting.sections import verdict

        sentences = (with_titles(sentence, self._data.styles) for sentence in verdict.sentences(self._data))
        return [self.headline, *self._headline.certainty, *sentences]

    def report(self, folder: str | Path | None = None) -> Path:
        """Write tables, figures and the page, and return the path of the page.

        Args:
            folder: folder to write to; None: RESULTS/NAME, RESULTS the results folder that holds the runs.

        Raises:
            SelectionError: the runs may not stand in one table.
            SweepError: no folder is given, and no results folder holds the runs.
        """
        from rankbench.reporting.report import build  # matplotlib takes a moment to import

        study = self.study
        if folder is None and study.results_dir is None:
            raise SweepError(f"{self.name}: say where to write its report: study.report(FOLDER)")
        out = Path(folder) if folder is not None else Path(study.results_dir or ".") / self.name
        if study.source is None and study.results_dir is not None and self.records:
            manifest.look(study.sweep, study.results_dir)
        build(study, out, self.allow_mixed)
        return out / "index.html"

    @cached_property
    def _panels(self) -> list[Panel]:
        return panels(self.study)

    @cached_property
    def _data(self) -> ReportData:
        from rankbench.reporting.report_data import gather  # matplotlib takes a moment to import

        return gather(self.study, self.allow_mixed)

    @cached_property
    def _headline(self) -> Headline:
        from rankbench.reporting.headline import make_headline

        return make_headline(self._data)

    @property
    def _arms(self) -> list[str]:
        return list(dict.fromkeys(arm for panel in self._panels for arm in panel.arms))

    def _panel(self, title: str) -> Panel:
        named = [panel for panel in self._panels if title in (panel.title, panel.short, panel.name)]
        if not named:
            raise SelectionError(f"no panel {title!r}; there are {'; '.join(self.panels)}")
        return named[0]

    def _compared(self, metric: str | None, by: Sequence[str] | None) -> Iterator[tuple[str, Comparison]]:
        """Title and comparison of each table."""
        if by is not None:
            yield from self._grouped(metric, by)
            return
        for panel, comparison in self._data.compared():
            same = metric in (None, comparison.metrics[0])
            yield panel.title, comparison if same else compared_on(str(metric), comparison)

    def _grouped(self, metric: str | None, by: Sequence[str]) -> Iterator[tuple[str, Comparison]]:
        arm_of = {run.job.run_id: run.arm for panel in self._panels for run in panel.runs if run.arm in self._data.arms}
        reference = self._data.report.reference
        for title, group in split([record for record in self.records if record.run_id in arm_of], by):
            data = frame(group, names=[arm_of[record.run_id] for record in group])
            refuse_doubt(title, data)
            present = reference if reference in set(data["label"]) else None
            yield title, compare(data, [metric or self._data.report.metric_of(group[0].task)], present)

    def __repr__(self) -> str:
        done = sum(record.status == "ok" for record in self.records)
        return (
            f"<study {self.name}: {len(self.study.runs())} runs, {done} ok; {len(self._arms)} arms, "
            f"{len(self._panels)} panel{'s' * (len(self._panels) > 1)}>"
        )

    def _repr_html_(self) -> str:
        """Question, headline, badges and table, for notebooks; where its runs may not stand in one table, why not."""
        from rankbench.interface.notebook_html import badges_html, paragraph, table_html
        from rankbench.reporting.comparison_table import make_table

        try:
            compared = self._data.compared()
            shown = [paragraph(self.headline, strong=True), badges_html(self.badges)]
            for panel, comparison in compared[:SHOWN_PANELS]:
                shown += [paragraph(panel_title(panel.title)), table_html(make_table(comparison))]
            if len(compared) > SHOWN_PANELS:
                shown.append(
                    paragraph(
                        f"not shown here, {len(compared) - SHOWN_PANELS} of {len(compared)} panels: study.table()"
                    )
                )
        except SelectionError as error:
            shown = [paragraph(str(error))]
        return "\n".join([paragraph(self.question), *shown, paragraph(repr(self)[1:-1])])
