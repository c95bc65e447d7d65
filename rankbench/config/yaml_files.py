"""The YAML files of conf/: where they are, and their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]  # omegaconf's own reader
from omegaconf import DictConfig, OmegaConf, flag_override

from rankbench.config.registry import conf_folders
from rankbench.config.schema import ConfigError

PACKAGED = Path(__file__).resolve().parents[1] / "conf"  # in a wheel; a checkout has conf/ beside the package
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CONF_DIR = PACKAGED if (PACKAGED / "config.yaml").is_file() else PACKAGED.parent.parent / "conf"


def defaults(group: str, name: str) -> dict[str, Any]:
    """The settings in the YAML of an option, here or in an installed package; {} if there is none."""
    files = [folder / group / f"{name}.yaml" for folder in (CONF_DIR, *conf_folders())]
    file = next((file for file in files if file.is_file()), None)
    return without_display(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))) if file else {}


DISPLAY = "display"  # key of a method's file: how reports show the method


def without_display(section: dict[str, Any]) -> dict[str, Any]:
    """A method's settings: what its file says but for DISPLAY, which is in no configuration, run_id or record."""
    return {key: value for key, value in section.items() if key != DISPLAY}


def strip_display(composed: DictConfig) -> DictConfig:
    """Take DISPLAY out of the method's section of a composed configuration, in place, and return the configuration."""
    section = composed.get("method")
    if isinstance(section, DictConfig) and DISPLAY in section:
        with flag_override(section, ["struct", "readonly"], False):
            del section[DISPLAY]
    return composed


def displays() -> dict[str, dict[str, Any]]:
    """Method -> what the files here and in installed packages say under DISPLAY; {} where one says nothing."""
    files = {file.stem: file for folder in (CONF_DIR, *conf_folders()) for file in (folder / "method").glob("*.yaml")}
    texts = {name: yaml.load(file.read_bytes(), Loader=LOADER) for name, file in files.items()}
    return {name: shown for name, text in texts.items() for shown in [text.get(DISPLAY)] if isinstance(shown, dict)}


def display_names() -> dict[str, dict[str, Any]]:
    """Group ("tasks", "settings") -> names as display.yaml has them; a file of an installed package adds its own."""
    names: dict[str, dict[str, Any]] = {}
    for file in (folder / "display.yaml" for folder in (CONF_DIR, *conf_folders())):
        for group, of_group in yaml.load(file.read_bytes(), Loader=LOADER).items() if file.is_file() else ():
            names[group] = {**of_group, **names.get(group, {})}
    return names


def content(file: Path) -> dict[str, Any]:
    """The content of a YAML file, read as Hydra reads it.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
    except yaml.YAMLError as error:
        raise ConfigError(
            [f"{file}: not YAML ({' '.join(str(error).split())}); quote a text with ': ' in it"]
        ) from error
