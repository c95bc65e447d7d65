"""Budgets of any rank (rankbench.config.budget_names) in Hydra's search path."""

from __future__ import annotations

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from rankbench.config.budget_names import GROUP, is_numbered, section

SCHEME = "rankbench-budgets"


class NumberedBudgets(ConfigSource):
    """A place in Hydra's search path that has a file for each budget."""

    @staticmethod
    def scheme() -> str:
        """What a path of this kind begins with."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """The file of a budget."""
        if not self.is_config(config_path):
            raise ConfigLoadError(f"{config_path}: not budget/r and a rank")
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
