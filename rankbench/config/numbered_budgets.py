"""budget=rN for any whole N: what conf/budget/r8.yaml says, at uniform rank N; a file of this name goes before it."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from rankbench.config.yaml_files import CONF_DIR, content

GROUP, MODEL = "budget", "r8"
SCHEME = "rankbench-budgets"
NAME = re.compile(r"r([1-9]\d*)")


def is_numbered(group: str, option: str) -> bool:
    """Whether an option of a group is a budget of a uniform rank, whatever the rank."""
    return group == GROUP and NAME.fullmatch(option) is not None


def section(option: str) -> dict[str, Any]:
    """The budget section of rN.

    Args:
        option: a name such as "r3".

    Raises:
        ConfigLoadError: it is no such name.
    """
    number = NAME.fullmatch(option)
    if number is None:
        raise ConfigLoadError(f"budget {option}: not r and a rank")
    return {**content(CONF_DIR / GROUP / f"{MODEL}.yaml"), "name": option, "reference_rank": int(number[1])}


class NumberedBudgets(ConfigSource):
    """A place in Hydra's search path that has a file for each budget."""

    @staticmethod
    def scheme() -> str:
        """What a path of this kind begins with."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """The file of a budget."""
        config = OmegaConf.create(section(_option(config_path)))
        return ConfigResult(provider=self.provider, path=self.full_path(), config=config, header={"package": None})

    def available(self) -> bool:
        """It needs nothing."""
        return True

    def is_group(self, config_path: str) -> bool:
        """It has one group."""
        return config_path == GROUP

    def is_config(self, config_path: str) -> bool:
        """Whether a path is that of a budget."""
        group, _, name = config_path.partition("/")
        return is_numbered(group, _option(name))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: there is no last one."""
        return []


def _option(config_path: str) -> str:
    return config_path.removeprefix(f"{GROUP}/").removesuffix(".yaml")
