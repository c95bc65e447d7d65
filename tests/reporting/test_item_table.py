"""New seeds and new items: the table of a study, and of its folder once the runs are gone."""

from dataclasses import replace

import numpy as np
import pytest
from support.studies import declared, study

from rankbench.records.run_folder import RunFolder
from rankbench.reporting.report_data import gather
from rankbench.reporting.sections.item_gains import item_table
from rankbench.studies.study import save, study_in_folder


@pytest.fixture(scope="module")
def made():
    return study(declared(seeds=range(3), vary={}, grid={}), lost=0, failed=0)


def test_a_study_without_items_has_no_table(made, tmp_path):
    assert item_table(gather(replace(made, results_dir=tmp_path))) is None


def test_the_table_is_kept_in_the_folder_of_the_report(made, tmp_path):
    generator = np.random.default_rng(0)
    for job, _ in made.runs():
        folder = RunFolder(tmp_path, job.run_id)
        folder.path.mkdir(parents=True)
        if job.arm != "fim":
            folder.write_lines("items.jsonl", [{"id": n, "gold": "a", "loss": generator.random()} for n in range(4)])
    data = gather(replace(made, results_dir=tmp_path))
    table = item_table(data)
    arms = {row[0].arm for row in table.rows}
    assert arms == {"igu", "adalora"}  # fim has no items, l1ra is not at the budget, the others are controls
    assert list(table.columns) == ["arm", "seeds", "items", "gain", "new seeds, these items", "new seeds, new items"]
    assert [cell.text for cell in table.rows[0][1:3]] == ["3", "4"]
    save(replace(made, item_gains=data.item_gains), tmp_path / "report")
    assert item_table(gather(study_in_folder(tmp_path / "report"))) == table
