"""Methods from installed packages: found by name, together with their YAML, and the messages if one is faulty."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from rankbench.cli import main
from rankbench.cli.help import text_on
from rankbench.config import registry
from rankbench.config.overrides import compose, mistakes
from rankbench.config.registry import RegistryError, get
from rankbench.sweeps.composition import lay_out, words

MODULE = """
from rankbench.methods.lora import Uniform

class Config(Uniform.Config):
    pass

class Mine(Uniform):
    pass
"""
RUN = ["model=tiny", "task=planted", "train=smoke"]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts a package on the path as pip would: module, YAML, metadata. Returns its folder."""
    registry.import_all("method")  # what is imported for the first time until the test ends would go with it
    monkeypatch.setitem(registry._classes, "method", dict(registry._classes["method"]))

    def add(name: str, method: str = "mine", value: str | None = None, yaml: bool = True) -> Path:
        site = tmp_path / f"site-{name}"
        folder = site / name.replace("-", "_")
        (folder / "conf" / "method").mkdir(parents=True)
        (folder / "__init__.py").write_text(MODULE)
        if yaml:
            (folder / "conf" / "method" / f"{method}.yaml").write_text(f"# Mine is best.\nname: {method}\n")
        info = site / f"{name.replace('-', '_')}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        value = value or f"{folder.name}:Mine"
        (info / "entry_points.txt").write_text(f"[rankbench.methods]\n{method} = {value}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, folder.name, raising=False)
        return folder

    return add


def test_a_package_needs_no_flag(install):
    folder = install("my-method")
    assert registry.conf_folders() == {folder / "conf": "my-method"}
    assert mistakes(["method=mine", *RUN]) == []
    assert compose(["method=mine", *RUN]).method.name == "mine"
    assert get("method", "mine").__module__ == "my_method"


def test_its_yaml_is_found_without_importing_it(install):
    install("my-method")
    assert registry.conf_folders()
    assert registry.missing_yaml("method", "mine")
    assert "my_method" not in sys.modules


def test_runs_find_it(install, monkeypatch, tmp_path):
    install("my-method")
    ran = []
    fake = ModuleType("rankbench.training.run")
    fake.execute = lambda config: ran.append((config.method.name, config.seed)) or 0
    monkeypatch.setitem(sys.modules, "rankbench.training.run", fake)
    monkeypatch.chdir(tmp_path)
    assert main(["method=mine", *RUN, "seed=1", "results_dir=out"]) == 0
    assert ran == [("mine", 1)]


def test_sweeps_find_it(install):
    """Their jobs, too: tests/launching/test_local_pool.py runs a method of another package."""
    install("my-method")
    cells = lay_out(words(["method=mine,lora", *RUN, "seed=0,1"])).cells
    assert [(frozen.config["method"]["name"], frozen.config["seed"]) for frozen in cells] == [
        ("mine", 0),
        ("mine", 1),
        ("lora", 0),
        ("lora", 1),
    ]


def test_help_lists_it_with_its_package(install):
    install("my-method")
    assert "    mine          [my-method] Mine is best." in text_on("method")


def test_a_missing_yaml_is_named_with_its_place(install):
    folder = install("my-method", yaml=False)
    (found,) = mistakes(["method=mine", *RUN])
    assert found == (
        "method=mine: package my-method names this method and brings no conf/method/mine.yaml for it; "
        f"expected at {folder}/conf/method/mine.yaml"
    )


def test_a_module_without_a_folder_cannot_bring_a_yaml(install):
    folder = install("my-method", value="single:Mine", yaml=False)
    (folder.parent / "single.py").write_text(MODULE)
    (found,) = mistakes(["method=mine", *RUN])
    assert found.endswith("; single is no package with a folder")


def test_two_packages_cannot_share_a_name(install):
    install("my-method")
    install("your-method")
    with pytest.raises(RegistryError, match="method 'mine' comes from my-method and from your-method: uninstall one"):
        get("method", "mine")
    assert any("comes from my-method and from your-method" in found for found in mistakes(["method=mine", *RUN]))


def test_a_package_cannot_take_a_name_of_ours(install):
    install("my-method", method="lora")
    registry._classes["method"].pop("lora", None)
    sys.modules.pop("rankbench.methods.lora", None)
    with pytest.raises(RegistryError, match="method 'lora' comes from rankbench and from my-method"):
        get("method", "lora")


def test_a_class_that_is_not_there_is_named_with_its_package(install):
    install("my-method", value="my_method:Yours")
    (found,) = mistakes(["method=mine", *RUN])
    assert "my_method:Yours of package my-method cannot be loaded: module 'my_method' has no attribute 'Yours'" in found


OLD_IMPORT = "from rankbench.config.schema import number\n"
OLD_SETTINGS = """
import dataclasses
from rankbench.methods.lora import Uniform

class Mine(Uniform):
    Config = dataclasses.make_dataclass("Config", ["name"])
"""


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OLD_IMPORT, "cannot be loaded: number is gone: settings are pydantic models; write class Config(Settings)"),
        (OLD_SETTINGS, "Mine has no Config that is a rankbench.plugin.Settings; write class Config(Settings)"),
    ],
)
def test_settings_of_an_older_package_are_refused_with_what_to_write(install, module, message):
    (install("my-method") / "__init__.py").write_text(module)
    (found,) = mistakes(["method=mine", *RUN])
    assert message in found


def test_a_yaml_of_a_package_does_not_replace_one_of_ours(install):
    folder = install("my-method")
    (folder / "conf" / "method" / "random.yaml").write_text("name: random\nconcentration: 9.0\nleast_rank: 0\n")
    assert compose(["method=random", *RUN]).method.concentration == 1.0
