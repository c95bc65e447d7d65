"""Imports point one way: what trains needs no pandas, what reads records needs no torch."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest
from support.harness import python

import rankbench

ROOT = Path(rankbench.__file__).parent
TRAINING = [("config", "seeding", "budget"), ("adapter",), ("allocators",), ("trainer",), ("run",)]
READING = [
    ("record", "store", "sites"),
    ("labels", "rates", "mirror", "heatmap"),
    ("collect", "tracking"),
    ("selection", "stats", "published"),
    ("aggregates", "items", "verdict", "pairing", "sheet", "latex", "comparison", "workers"),
    ("tables", "figures", "compare", "reproduction", "counterparts", "verify", "workspace", "dashboard", "panels"),
    ("drawing", "ablations"),
    ("evidence", "markup"),
    ("verdicts", "holes", "overview", "quotes", "costs", "frontier", "curves", "trials", "design"),
    ("maps", "page"),
    ("report",),
]
# config asks the classes of a section for its schema and its checks, inside functions: what it is made of stays light.
LAZY_UPWARDS = {"config": {"rankbench.models", "rankbench.tasks.base"}}

Imports = dict[str, set[str]]


def place(file: Path) -> str:
    parts = ("rankbench", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {place(file): file for file in sorted(ROOT.rglob("*.py"))}


def names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        inner = {f"{node.module}.{alias.name}" for alias in node.names}
        return {node.module} | {name for name in inner if name in FILES}
    return set()


@cache
def imports(module: str, lazy: bool) -> frozenset[str]:
    """What a module of ours imports at its top; with `lazy` inside functions and for type checkers, too."""
    tree = ast.parse(FILES[module].read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    return frozenset(name for node in nodes for name in names(node))


def ours(module: str, lazy: bool) -> set[str]:
    return {name for name in imports(module, lazy) if name in FILES and name != "rankbench"} - (
        LAZY_UPWARDS.get(module.removeprefix("rankbench."), set()) if lazy else set()
    )


def reached(module: str, lazy: bool) -> set[str]:
    """All modules of ours behind a module, itself among them."""
    found, open_ = set(), [module]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += ours(name, lazy)
    return found


def modules(names_: tuple[str, ...]) -> list[str]:
    """The modules of a step of a chain; a package stands for all in it. Those that are not written yet are left out."""
    wanted = [f"rankbench.{name}" for name in names_]
    return [module for module in FILES if any(module == name or module.startswith(f"{name}.") for name in wanted)]


@pytest.mark.parametrize("chain", [TRAINING, READING], ids=["training", "reading"])
def test_nothing_imports_what_stands_above_it(chain):
    for lower, higher in combinations(chain, 2):
        for module in modules(lower):
            upwards = reached(module, lazy=True) & set(modules(higher))
            assert not upwards, f"{module} reaches up to {sorted(upwards)}"


def test_the_chains_are_there_and_hang_together():
    """What the other tests of this file look at exists: an empty chain would pass them all."""
    assert all(modules(step) for step in TRAINING)
    assert modules(READING[0]) == ["rankbench.records.record", "rankbench.core.sites", "rankbench.records.run_folder"]
    assert all(modules(step) for step in READING[:-1])
    run = reached("rankbench.training.run", lazy=False)
    for step in TRAINING[1:-1]:
        assert run & set(modules(step))


def test_there_are_no_cycles():
    TopologicalSorter({module: ours(module, lazy=False) for module in FILES}).prepare()


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_what_trains_imports_no_tables(package):
    for module in reached("rankbench.training.run", lazy=True):
        assert not {name for name in imports(module, True) if name.split(".")[0] == package}, module


def test_one_module_knows_wandb_and_one_its_workspaces():
    users = {package: [] for package in ("wandb", "wandb_workspaces")}
    for module in FILES:
        for package in {name.split(".")[0] for name in imports(module, True)} & set(users):
            users[package].append(module)
    assert users == {"wandb": ["rankbench.tracking"], "wandb_workspaces": ["rankbench.reporting.wandb_sweep"]}


def test_in_a_run_only_the_adapter_and_eva_know_peft_and_only_the_layer_its_variant_slot():
    run = reached("rankbench.training.run", lazy=True)
    users = {module for module in run if any(name.split(".")[0] == "peft" for name in imports(module, True))}
    assert users == {"rankbench.core.adapter_set", "rankbench.core.site_adapter", "rankbench.core.peft_export"}
    methods = [module for module in FILES if module.startswith("rankbench.methods.")]
    assert [m for m in methods if any(n.split(".")[0] == "peft" for n in imports(m, True))] == ["rankbench.methods.eva"]
    assert {module for module in FILES if "lora_variant" in FILES[module].read_text()} == {
        "rankbench.core.site_adapter"
    }


def test_allocators_see_adapter_and_budget_and_nothing_else_of_a_run():
    allowed = {"adapter", "layer", "stacks", "budget", "allocators", "registry", "schema"}
    for module in modules(("allocators",)):
        assert {name.split(".")[1] for name in ours(module, lazy=True)} <= allowed, module


@pytest.mark.parametrize("module", [name for step in READING for name in modules(step)])
def test_what_reads_records_loads_no_torch(module):
    done = python("-c", f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "rankbench" in loaded
    assert not loaded & {"torch", "transformers", "peft", "accelerate", "datasets"}


def test_this_process_is_the_package_under_test():
    assert Path(sys.modules["rankbench"].__file__) == ROOT / "__init__.py"
