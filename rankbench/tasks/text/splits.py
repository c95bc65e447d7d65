"""Which rows are train, validation and test, for data sets of which some have no split but train."""

from __future__ import annotations

from collections.abc import Mapping

from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_config import FolderConfig
from rankbench.tasks.text.dataset_files import Table, carve, choose

Part = tuple[Table, list[int]]  # a table and the numbers of its rows


def divide(tables: Mapping[str, Table], config: FolderConfig) -> dict[str, Part]:
    """Rows of train, validation and test: what has no official split is carved out of train, the same for every seed.

    Of an official split the first rows of a fixed permutation are taken, as many as the sizes say.

    Args:
        tables: official splits, "train" at least.
        config: sizes of the splits.

    Raises:
        DataError: a split has fewer rows than asked for, or there is no test split and no size for one.
    """
    train = tables["train"]
    sizes = {"test": config.test_size, "validation": config.validation_size}
    if "test" not in tables and config.test_size is None:
        raise DataError(
            f"{train.place}: the data set has no test split; say with task.test_size=N how many rows of train become it"
        )
    carved = {split: size for split, size in sizes.items() if split not in tables and size is not None}
    taken = sum(carved.values())
    if taken + (config.train_size or 1) > len(train.rows):
        asked = {**({} if config.train_size is None else {"train": config.train_size}), **carved}
        sizes_asked = ", ".join(f"task.{split}_size={size}" for split, size in asked.items())
        raise DataError(f"{train.place} has {len(train.rows)} rows, too few for {sizes_asked}; make them smaller")
    parts: dict[str, Part] = {}
    if "test" in tables:
        parts["test"] = (tables["test"], choose(tables["test"], config))
    if "validation" in tables:
        parts["validation"] = (tables["validation"], choose(tables["validation"], config, "validation_size"))
    if not carved:
        return {"train": (train, choose(train, config, "train_size")), **parts}
    learned, rest = carve(train, config.replace(validation_size=taken))
    for split, size in carved.items():
        parts[split], rest = (train, rest[:size]), rest[size:]
    return {"train": (train, learned), **parts}
