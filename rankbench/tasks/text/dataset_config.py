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
        max_length: tokens per example; what is longer is shortened.
    """

    data_dir: str | None
    subset: str
    train_size: int | None = Field(ge=1)
    validation_size: int = Field(ge=1)
    test_size: int | None = Field(ge=1)
    max_length: int = Field(ge=8)


class HubConfig(FolderConfig):
    """Settings of a task that reads the hub where data_dir is null.

    Attributes:
        hub: data set on the Hugging Face hub.
        revision: its commit; null is the newest.
    """

    hub: str
    revision: str | None
