"""Settings of tasks that read a data set: from a folder, or from the hub."""

from __future__ import annotations

from pydantic import Field

from rankbench.config.schema import Settings


class FolderConfig(Settings):
    """Settings of a task whose official splits are files in a folder.

    Attributes:
        data_dir: folder with the official splits as files (train.jsonl, or .json, .parquet, .csv); null where there is
            another place.
        subset: part of the data set: its configuration on the hub, or its folder in a repository.
        train_size: training examples; null takes all that validation leaves.
        validation_size: examples carved out of the official train split.
        test_size: fixed subset of the split that is the test; null takes all of it.
        test_from_train: examples of the official train split that are the test instead of an official split, where that
            is too small to tell methods apart; the same for every seed, and in neither train nor validation. Null: the
            official split.
        max_length: tokens per example; what is longer is shortened.
    """

    data_dir: str | None
    subset: str
    train_size: int | None = Field(ge=1)
    validation_size: int = Field(ge=1)
    test_size: int | None = Field(ge=1)
    test_from_train: int | None = Field(default=None, ge=1)  # configurations of older versions have none
    max_length: int = Field(ge=8)


def refuse_test_from_train(config: FolderConfig) -> list[str]:
    """What is wrong with the settings of a task that does not know test_from_train, if that is set."""
    if config.test_from_train is None:
        return []
    return [
        f"task.test_from_train={config.test_from_train}: task={config.name} cannot; choose its test by task.test_size"
    ]


class HubConfig(FolderConfig):
    """Settings of a task that reads the hub where data_dir is null.

    Attributes:
        hub: data set on the Hugging Face hub.
        revision: its commit; null is the newest.
    """

    hub: str
    revision: str | None
