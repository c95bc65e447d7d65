"""Where the YAML files are, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]  # omegaconf's own reader
from omegaconf import OmegaConf

from rankbench.config.registry import conf_folders
from rankbench.config.schema import ConfigError

PACKAGED = Path(__file__).resolve().parents[1] / "conf"  # in a wheel; a checkout has conf/ beside the package
CONF_DIR = PACKAGED if (PACKAGED / "config.yaml").is_file() else PACKAGED.parent.parent / "conf"


def defaults(group: str, name: str) -> dict[str, Any]:
    """What the YAML of an option says, here or in an installed package; {} if there is none."""
    files = [folder / group / f"{name}.yaml" for folder in (CONF_DIR, *conf_folders())]
    found = next((file for file in files if file.is_file()), None)
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(found))) if found else {}


def content(file: Path) -> dict[str, Any]:
    """What a YAML file says, read as Hydra reads it.

    Raises:
        ConfigError: it is none.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
    except yaml.YAMLError as error:
        raise ConfigError(
            [f"{file}: not YAML ({' '.join(str(error).split())}); quote a text with ': ' in it"]
        ) from error
