"""What Hydra finds: the conf/ folders of installed packages, and our launcher."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from rankbench.packages import conf_folders

# Hydra 1.3 takes launchers from modules named hydra_plugins.* alone; it looks for them once, when it is first asked.
sys.path.append(str(Path(__file__).resolve().parent / "_plugins"))


class Packages(SearchPathPlugin):
    """Adds them behind our own conf/, so that no package replaces a file of ours."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra whenever it makes a search path."""
        for folder, package in conf_folders().items():
            search_path.append(package, f"file://{folder}")


def extend() -> None:
    """Make Hydra ask `Packages`, from now on in this process."""
    Plugins.instance().register(Packages)
