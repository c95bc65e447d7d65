"""The identity of the code behind a run's numbers: which changes affect it, and which do not."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
from support.harness import configure, faulty_installed, perform

from rankbench.config import registry
from rankbench.training import code_identity
from rankbench.training.code_identity import identity, numbers_code, own_sources, package_sources, shared_code

GLUE_AND_IGU = ["rankbench.methods.igu", "rankbench.tasks.glue"]


def identities(changed: str, modules: list[str]) -> tuple[str, str]:
    """Identity before and after a byte more in one module."""
    sources = {**own_sources(), "rankbench.reporting.page": "pages = 1\n", "rankbench.config.schema": "near = 1\n"}
    assert changed in sources
    return identity(sources, modules), identity({**sources, changed: sources[changed] + "#"}, modules)


@pytest.mark.parametrize(
    "module",
    [
        "rankbench.core.adapter_set",
        "rankbench.core.budget",
        "rankbench.training.trainer",
        "rankbench.training.assembly",
        "rankbench.models.loading",
        "rankbench.methods.igu",
        "rankbench.methods.base",
        "rankbench.methods.importance",  # igu imports it
        "rankbench.methods.pruning",
        "rankbench.tasks.glue",
        "rankbench.tasks.text_classification",  # glue imports it
        "rankbench.tasks.text.dataset_files",  # text_classification imports it
    ],
)
def test_a_byte_in_what_the_run_goes_through_changes_it(module):
    before, after = identities(module, GLUE_AND_IGU)
    assert before != after


@pytest.mark.parametrize(
    "module",
    [
        "rankbench.methods.adalora",
        "rankbench.methods.fixed_controls",
        "rankbench.tasks.planted",
        "rankbench.tasks.arithmetic",
        "rankbench.training.progress",
        "rankbench.training.provenance",
        "rankbench.training.code_identity",
        "rankbench.reporting.page",
        "rankbench.config.schema",
    ],
)
def test_a_byte_in_anything_else_does_not(module):
    before, after = identities(module, GLUE_AND_IGU)
    assert before == after


def test_imports_are_seen_however_they_are_written():
    """A name too many does no harm, one too few would."""
    for name, source in own_sources().items():
        seen = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                seen |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                seen |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        assert seen <= set(code_identity._imports(source)), name
    source = "import os, a.b\nif True:\n    from c import (\n        d,\n        e as f,\n    )\n    import g as h\n"
    assert {"os", "a.b", "c", "c.d", "c.e", "g"} <= set(code_identity._imports(source))


def test_line_endings_do_not_count(tmp_path):
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_bytes(f"a = 1{end}b = 2{end}".encode())
    unix, windows = (dict(code_identity._modules("package", tmp_path / name)) for name in ("unix", "windows"))
    assert unix == windows == {"package": "a = 1\nb = 2\n"}


def test_it_is_twelve_digits_and_the_record_has_it(tmp_path):
    code = numbers_code("lora", "planted")
    assert code is not None
    assert len(code) == 12
    assert int(code, 16) >= 0
    assert numbers_code("igu", "planted") != code != numbers_code("lora", "arithmetic")
    provenance = perform(configure(tmp_path, "train.steps=1"))["provenance"]
    assert provenance["numbers_code"] == code
    assert provenance["shared_code"] == shared_code("planted") != code


def test_what_all_methods_go_through_is_a_code_without_any_of_them():
    shared = ["rankbench.tasks.glue"]
    for module in ("rankbench.training.trainer", "rankbench.core.budget", "rankbench.tasks.text_classification"):
        before, after = identities(module, shared)
        assert before != after
    before, after = identities("rankbench.methods.igu", shared)
    assert before == after == shared_code("glue-rte")
    assert shared_code("planted") != before


def test_a_failed_run_has_it_too(tmp_path):
    record = perform(configure(tmp_path, "train.learning_rate=1e30", "train.max_grad_norm=1e30"))
    assert record["status"] == "nan"
    assert record["provenance"]["numbers_code"] == numbers_code("lora", "planted")


def test_a_package_of_its_own_counts_with_all_its_sources_and_what_it_imports(tmp_path, monkeypatch):
    with faulty_installed(tmp_path):
        code = numbers_code("faulty", "planted")
        sources = {**own_sources(), **package_sources("faulty")}
        modules = [*package_sources("faulty"), "rankbench.tasks.planted"]
    assert code == identity(sources, modules)
    assert code != identity({**sources, "faulty": sources["faulty"] + "#"}, modules)
    assert code != identity({**sources, "rankbench.methods.base": "#"}, modules)
    assert code == identity({**sources, "rankbench.methods.igu": "#"}, modules)


def test_a_class_without_a_source_has_none(monkeypatch):
    class Typed:
        Config = object

    monkeypatch.setattr(Typed, "__module__", "typed_into_a_notebook")
    monkeypatch.setitem(registry._classes["method"], "typed", Typed)
    assert numbers_code("typed", "planted") is None


def test_it_is_cheap():
    """Beside a run of a second it takes next to nothing, and nothing when asked again."""
    numbers_code("igu", "gsm8k")  # imports done
    numbers_code.cache_clear()
    own_sources.cache_clear()
    start = time.process_time()
    numbers_code("igu", "gsm8k")
    assert time.process_time() - start < 0.2  # 10 ms where nothing else runs


def test_the_packages_that_count_are_there():
    folder = Path(code_identity.__file__).parents[1]
    assert all((folder / name / "__init__.py").is_file() for name in code_identity.EVERY_RUN + code_identity.FOLLOWED)
    assert set(own_sources()) >= code_identity.NEUTRAL
