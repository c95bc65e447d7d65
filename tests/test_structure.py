"""The structure of the package: who imports whom, how large rooms and files are, what is loaded when.

The floors are contracts of import-linter in pyproject.toml; `pytest -s tests/test_structure.py` prints the plan.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from support.harness import python

import rankbench

PACKAGE = Path(rankbench.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
LINES = 330  # per file
MODULES = 16  # per folder
MORE_MODULES = {"methods": 24, "tasks": 24}  # one file per thing
TOP_MODULES = 3  # beside __init__ and __main__
READING = ("analysis", "published", "records", "reporting", "statistics", "studies", "sweeps", "tracking")
TENSORS = ("accelerate", "datasets", "peft", "torch", "transformers")
# Beside config and methods: --help, a mistyped command line, methods, `import rankbench as rb; rb.run`.
ANSWERING = ("cli", "cli.run", "cli.methods", "interface.run_result")
SLOW_TO_IMPORT = ("accelerate", "datasets", "matplotlib", "pandas", "peft", "transformers")

IMPORT_ONE_BY_ONE = """
import importlib, json, sys
modules, watched = json.loads(sys.argv[1])
loaded = {}
for module in modules:
    importlib.import_module(module)
    loaded |= {name: module for name in watched if name in sys.modules and name not in loaded}
print(json.dumps(loaded))
"""


def files_of(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.py")) if file.name not in ("__init__.py", "__main__.py")]


def lines_in(file: Path) -> int:
    return len(file.read_text().splitlines())


def modules_of(rooms: tuple[str, ...]) -> list[str]:
    """Dotted names of all modules of these rooms."""
    files = [file for room in rooms for file in sorted((PACKAGE / room).rglob("*.py"))]
    parts = [file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files]
    return [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]


@pytest.fixture(scope="module")
def floors() -> dict[str, int]:
    """Room -> its floor: 1 if it imports nothing of ours, else one above the highest room that it imports."""
    graph = grimp.build_graph("rankbench", exclude_type_checking_imports=True, cache_dir=None)
    rooms = {name: name.split(".")[1] for name in graph.modules if "." in name}
    imported: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for name, room in rooms.items():
        targets = {rooms[target] for target in graph.find_modules_directly_imported_by(name) if target in rooms}
        imported[room] |= targets - {room}
    floor: dict[str, int] = {}
    for room in TopologicalSorter(imported).static_order():  # a circle is an error that names its rooms
        floor[room] = 1 + max((floor[lower] for lower in imported[room]), default=0)
    return floor


def test_the_plan_is_printed_and_has_no_circle(floors):
    print(f"\n{'floor':>5}  {'room':<12} {'modules':>7} {'lines':>6}  longest file")
    for room, floor in sorted(floors.items(), key=lambda item: (-item[1], item[0])):
        folder = PACKAGE / room
        files = [file for file in folder.rglob("*.py")] if folder.is_dir() else [PACKAGE / f"{room}.py"]
        longest = max(files, key=lines_in)
        modules = sum(file.name != "__init__.py" for file in files)
        total = sum(map(lines_in, files))
        print(f"{floor:>5}  {room:<12} {modules:>7} {total:>6}  {longest.relative_to(PACKAGE)} {lines_in(longest)}")
    assert min(floors.values()) == 1
    assert max(floors, key=floors.__getitem__) in ("__main__", "cli")


def test_imports_keep_the_contracts():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_no_file_is_longer_than_a_reader_can_hold():
    files = [file for folder in (PACKAGE, ROOT / "benchmarks") for file in folder.rglob("*.py")]
    assert len(files) > 100
    assert not {str(file.relative_to(ROOT)): lines_in(file) for file in files if lines_in(file) > LINES}


def test_no_folder_has_more_modules_than_a_reader_can_hold():
    folders = [folder for folder in PACKAGE.rglob("*") if folder.is_dir() and files_of(folder)]
    assert len(folders) > 15
    assert not {
        str(folder.relative_to(PACKAGE)): len(files_of(folder))
        for folder in folders
        if len(files_of(folder)) > MORE_MODULES.get(folder.name, MODULES)
    }
    assert len(files_of(PACKAGE)) <= TOP_MODULES


def test_the_variant_slot_of_peft_is_known_to_core_alone():
    """Its interface is marked as changing."""
    users = [file for file in PACKAGE.rglob("*.py") if re.search("lora_variant|LoraVariant", file.read_text())]
    assert {file.parent for file in users} == {PACKAGE / "core"}
    assert len(users) <= 2


def loaded_by(modules: list[str], watched: tuple[str, ...]) -> dict[str, str]:
    """Watched package -> the first of `modules` whose import loads it, in one fresh process."""
    done = python("-c", IMPORT_ONE_BY_ONE, json.dumps([modules, watched]))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_what_reads_records_loads_no_torch():
    modules = modules_of(READING)
    assert len(modules) > 40
    views = ["rankbench.reporting.report", "rankbench.interface.study_sources"]
    assert loaded_by([*modules, *views], (*TENSORS, "pandas")).keys() == {"pandas"}


@pytest.mark.slow
def test_what_answers_at_once_loads_nothing_slow():
    modules = [*(f"rankbench.{name}" for name in ANSWERING), *modules_of(("config", "methods"))]
    assert {"rankbench.config.validation", "rankbench.methods.igu"} <= set(modules)
    assert not loaded_by(modules, SLOW_TO_IMPORT)


def test_this_process_is_the_package_under_test():
    assert Path(sys.modules["rankbench"].__file__) == PACKAGE / "__init__.py"
    assert PACKAGE.parent == ROOT
