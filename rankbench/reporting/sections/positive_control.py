"""The positive control: whether the study sees what is known to be there."""

from __future__ import annotations

from collections.abc import Iterator

from rankbench.analysis.labels import arm_title
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Section
from rankbench.reporting.table import Cell, Table, interval_cell
from rankbench.statistics.estimates import Estimate


def make(report_data: ReportData) -> Section | None:
    """Return the section, None without a positive control."""
    table = control_table(report_data)
    return Section("control", "Positive control", list(sentences(report_data)), [table]) if table else None


def sentences(report_data: ReportData) -> Iterator[str]:
    """Whether the positive control won everywhere; if not, that nothing is judged."""
    control = report_data.report.positive_control
    if control is None:
        return
    lost = [test for test in report_data.control_tests if test.why]
    if lost:
        where = "; ".join(f"{test.condition}: {test.why}" for test in lost)
        yield f"The positive control {arm_title(control.arm)} is not shown to win ({where}): every verdict is withheld."
    else:
        places = ", ".join(f"{test.condition} {_gain(test.gain).text}" for test in report_data.control_tests)
        yield f"The positive control {arm_title(control.arm)} won, in smallest effects of interest: {places}."


def control_table(report_data: ReportData) -> Table | None:
    """A row for each condition under which the positive control has to win; None without one."""
    control = report_data.report.positive_control
    if control is None:
        return None
    rows = [
        [
            Cell(test.condition),
            Cell(str(test.panels), test.panels),
            _gain(test.gain),
            Cell(test.why or "won", kind="withheld" if test.why else "works"),
        ]
        for test in report_data.control_tests
    ]
    arm, reference = arm_title(control.arm), arm_title(report_data.report.reference)
    note = (
        f"Mean gain of {arm} over {reference} on these panels, in units of their smallest effects of interest, with "
        f"its {report_data.report.level * 100:g} % interval over seeds. It has to lie above 0 in every row."
    )
    columns = ["where", "panels", "gain", "won?"]
    return Table("positive-control", f"Positive control: {arm}", columns, rows, [note])


def _gain(gain: Estimate | None) -> Cell:
    return Cell() if gain is None else interval_cell(gain.value, gain.low, gain.high, "+.2f")
