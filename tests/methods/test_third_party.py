"""The method of docs/add_method.md is examples/weight_norm; this package can be built, installed, checked and run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "weight_norm"
FILES = {
    "python": "weight_norm/__init__.py",
    "yaml": "weight_norm/conf/method/weight_norm.yaml",
    "toml": "pyproject.toml",
}
FIVE_STEPS = "## In five steps"


@pytest.fixture(scope="module")
def steps() -> str:
    """The section of the docs."""
    return (ROOT / "docs" / "add_method.md").read_text().partition(FIVE_STEPS)[2].partition("\n## ")[0]


@pytest.mark.parametrize("language", FILES)
def test_a_block_of_the_docs_is_the_file_it_names(steps, language):
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", steps, re.M | re.S)
    assert block == (PACKAGE / FILES[language]).read_text()
    assert f"`{FILES[language]}`" in steps


def test_the_docs_name_every_file_of_the_package():
    found = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*") if file.suffix in (".py", ".yaml", ".toml")}
    assert found == set(FILES.values())


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Builds and installs a copy of the package beside rankbench; runs modules of rankbench there."""
    source, site = tmp_path_factory.mktemp("source") / "weight_norm", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--target", str(site)]
    python("pip", "install", *options, str(source))
    return python


@pytest.mark.slow
def test_the_package_is_listed_examined_and_run(call, steps, tmp_path):
    assert " weight_norm " in call("rankbench", "--help", "method")
    assert "(weight-norm)" in call("rankbench", "methods", "weight_norm")
    check, job = re.findall(r"^(rankbench.*?)(?: {2,}#.*)?$", steps, re.M)
    out = call(*check.split())
    assert out.endswith("every check holds\n")
    short = ["train.steps=6", "train.threads=1", f"results_dir={tmp_path}"]
    call(*job.split(), *short)
    (file,) = tmp_path.glob("runs/*/record.json")
    record = json.loads(file.read_text())
    assert (record["status"], record["method"]) == ("ok", "weight_norm")
    assert len(set(record["ranks"].values())) > 1
