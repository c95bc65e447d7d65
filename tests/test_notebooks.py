"""The notebooks run from top to bottom on what the repository ships, and are stored without their outputs."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLACES = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")

each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def code(notebook):
    """The code of each cell, without magics."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))


def test_they_are_there():
    assert [file.stem for file in NOTEBOOKS] == ["01_read_records", "02_rank_maps", "03_write_a_method"]


@each
def test_outputs_are_stripped(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    for number, cell in enumerate(notebook.cells):
        assert not cell.metadata, f"cell {number}"
        if cell.cell_type == "code":
            assert not cell.outputs, f"cell {number}"
            assert cell.execution_count is None, f"cell {number}"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@each
def test_what_they_define_is_the_method_that_the_third_is_about(file):
    notebook = nbformat.read(file, as_version=4)
    defined = [
        node.name
        for cell in code(notebook)
        for node in ast.walk(ast.parse(cell))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert defined == (["Config", "Reach", "initial_ranks"] if file.stem == "03_write_a_method" else [])


@each
def test_they_begin_by_saying_what_they_are(file):
    first = nbformat.read(file, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "place"),
    [(NOTEBOOKS[0], "."), *((file, "notebooks") for file in NOTEBOOKS)],
    ids=lambda value: Path(value).stem,
)
def test_they_run_wherever_they_are_started(file, place, tmp_path, monkeypatch):
    for name in PLACES:
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(ROOT / place)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    pictures = sum("image/png" in output.get("data", {}) for output in shown)
    assert pictures == (3 if file.stem == "02_rank_maps" else 0)
