"""The notebooks run from top to bottom on what the repository ships, and are stored with what they show.

`python tests/test_notebooks.py` executes them and stores their outputs; the tests fail where those are out of date.
"""

import ast
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
READING = ("01_read_a_study", "02_rank_maps")  # of committed records alone: what they print is the same everywhere
PLACES = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
PICTURES = {"01_read_a_study": 1, "02_rank_maps": 2}
LARGEST = 300_000  # bytes of a notebook
MACHINE = re.compile(r"(?<![\w.:/])/(?:[\w.-]+/)+|[A-Z]:\\|\d (?:s|ms|seconds)\b|\bseconds\b")  # paths and durations

each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: Path) -> NotebookNode:
    return nbformat.read(file, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(file: Path) -> NotebookNode:
    """The notebook after a run from top to bottom, where Jupyter starts it: in its own folder."""
    importlib.import_module("matplotlib.font_manager")  # builds its cache where there is none, which a kernel would say
    notebook = read(file)
    resources = {"metadata": {"path": str(file.parent)}}
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # by tqdm, where ipywidgets is not installed
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False, resources=resources)
    client.execute()
    return notebook


def texts(notebook: NotebookNode) -> Iterator[str]:
    """What the cells print and show, but for pictures."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            shown = output.get("data", {}) if output.output_type != "stream" else {"text/plain": output.text}
            yield from (text for kind, text in sorted(shown.items()) if kind.startswith("text/"))


def test_they_are_there() -> None:
    assert [file.stem for file in NOTEBOOKS] == [*READING, "03_write_a_method", "04_sweep"]


@each
def test_they_are_stored_with_what_they_show_and_nothing_of_the_machine_that_ran_them(file: Path) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES.get(file.stem, 0)
    assert not [found[0] for text in texts(notebook) if (found := MACHINE.search(text))]
    assert file.stat().st_size < LARGEST


@each
def test_what_they_define_is_the_method_that_the_third_is_about(file: Path) -> None:
    magics = re.compile(r"^%.*$", re.MULTILINE)
    trees = [ast.parse(magics.sub("", cell.source)) for cell in code_cells(read(file))]
    defined = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert defined == (["Config", "Pull"] if file.stem == "03_write_a_method" else [])


@each
def test_they_begin_by_saying_what_they_are(file: Path) -> None:
    first = read(file).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.slow
@each
def test_they_show_what_is_stored(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    notebook = executed(file)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    before, now = list(texts(read(file))), list(texts(notebook))
    assert len(now) == len(before)
    if file.stem in READING:
        assert now == before, "renew them with python tests/test_notebooks.py"


def renew() -> None:
    """Execute all notebooks, or those that are named, and store their outputs."""
    os.environ["PYTHONPATH"] = str(ROOT)
    for file in NOTEBOOKS:
        if not sys.argv[1:] or file.stem in sys.argv[1:]:
            notebook = executed(file)
            notebook.metadata["language_info"] = {"name": "python"}
            nbformat.write(notebook, file)
            print(file.relative_to(ROOT), file.stat().st_size, "bytes")


if __name__ == "__main__":
    renew()
