"""The package of examples/task can be built, installed, listed and run, and its README is about its files."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "task"
SHORT = [
    "train.steps=2",
    "train.batch_size=4",
    "train.evaluate_before=false",
    "task.test_size=8",
    "task.validation_size=8",
]


@pytest.fixture(scope="module")
def readme():
    return (PACKAGE / "README.md").read_text()


def test_the_readme_names_every_file_of_the_package(readme):
    files = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*") if file.suffix in (".py", ".yaml", ".toml")}
    assert set(re.findall(r"^\| `(.*?)`", readme, re.M)) == files


@pytest.mark.slow
def test_the_package_is_listed_and_run(readme, tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PACKAGE, source)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def python(*arguments):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    options = ["--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    install, listing, job = (shlex.split(line) for line in re.search(r"```\n(.*?)```", readme, re.S)[1].splitlines())
    assert install == ["pip", "install", "--no-deps", "./examples/task"]
    assert python("pip", "install", "--no-deps", *options, str(source)) == (0, "")
    assert "digits: 5" in python(*listing)[1]
    code, out = python(*job, *SHORT)
    assert code == 0, out
    (file,) = tmp_path.glob("results/runs/*/record.json")
    record = json.loads(file.read_text())
    assert (record["status"], record["task"]) == ("ok", "sorting")
    assert set(record["metrics"]["test"]) == {"loss", "exact_match", "step"}
    items = [json.loads(line) for line in (file.parent / "items.jsonl").read_text().splitlines()]
    assert [item["gold"] for item in items if not re.fullmatch(r"\d( \d){4}", item["gold"])] == []
    code, out = python(*job, "task.digits=2")
    assert code == 2
    assert "task.digits=2: makes 100 rows of digits, 2300 are asked for; take more" in out
