"""The wheel is complete: built and installed elsewhere, it executes a run with its own conf/."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "rankbench", "conf", "results/published")

pytestmark = pytest.mark.slow


def succeed(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(target)]
    succeed(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=source)
    return next(target.glob("rankbench-*.whl"))


def test_the_wheel_carries_every_module_and_every_file_they_read(wheel: Path) -> None:
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "rankbench").rglob("*.py")}
    settings = {f"rankbench/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    maps = {f"rankbench/{file.relative_to(ROOT)}" for file in (ROOT / "conf" / "maps").rglob("*.json")}
    numbers = {f"rankbench/published/data/{file.name}" for file in (ROOT / "results" / "published").glob("*.csv")}
    weights = {str(file.relative_to(ROOT)) for file in (ROOT / "rankbench" / "models" / "pocket").iterdir()}
    templates = {str(file.relative_to(ROOT)) for file in (ROOT / "rankbench" / "reporting" / "templates").iterdir()}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert numbers
    assert maps
    assert inside == modules | settings | maps | numbers | weights | {"rankbench/py.typed", *templates}


def test_an_installed_wheel_runs_a_job_with_its_own_conf(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(site)]
    succeed(sys.executable, "-m", "pip", "install", *options, str(wheel), cwd=work)
    where = "from rankbench.config.yaml_files import CONF_DIR; print(CONF_DIR)"
    assert succeed(sys.executable, "-c", where, cwd=work, PYTHONPATH=str(site)).strip() == str(site / "rankbench/conf")
    where = "from rankbench.published.numbers import folder; print(folder())"
    numbers = succeed(sys.executable, "-c", where, cwd=work, PYTHONPATH=str(site)).strip()
    assert numbers == str(site / "rankbench/published/data")
    job = ["method=lora", "model=tiny", "task=planted", "train=smoke", "train.threads=1", "results_dir=out"]
    succeed(sys.executable, "-m", "rankbench", *job, cwd=work, PYTHONPATH=str(site))
    (record,) = (work / "out" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["status"] == "ok"
