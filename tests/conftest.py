"""Tests use one thread each, and files with slow tests come first, so that two workers end at about the same time."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two workers with two threads each only wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)  # stable: files stay whole
