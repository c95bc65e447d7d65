"""Tests use one thread each, and files with slow tests come first, so that two workers end at about the same time."""

import os
from collections.abc import Iterator

import pytest

from rankbench.config import registry

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two workers with two threads each only wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)  # stable: files stay whole


@pytest.fixture(autouse=True)
def registered_names() -> Iterator[None]:
    """A name that a test adds to the registry is gone when it ends, whatever the order of the tests."""
    before = {kind: set(classes) for kind, classes in registry._classes.items()}
    yield
    for kind, classes in registry._classes.items():
        built_in = {name for names in registry.BUILT_IN[kind].values() for name in names}
        for name in set(classes) - before[kind] - built_in:
            del classes[name]
