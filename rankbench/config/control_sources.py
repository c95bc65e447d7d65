"""Fills in what a control takes from elsewhere: the settings of another method, or the rank map of a finished run.

Both go into the configuration itself before it is frozen, so that a run's identity and its record hold them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankbench.config import registry, schema
from rankbench.config.schema import Mistake
from rankbench.config.yaml_files import CONF_DIR
from rankbench.records.run_folder import RECORD, places

ARM = re.compile(r"\{(.+)\}")  # stands for that arm's run, where an experiment names a source run
CONFIG = "adapter_config.json"  # PEFT's
PROVENANCE = "provenance.json"  # what a map of `rankbench maps` was made of, beside its CONFIG
ANNOUNCED = ("at the start", "before training")  # methods whose ranks are there before the first step


def complete(
    section: Mapping[str, Any], results_dir: Path, defaults: Callable[[str], Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Mistake]]:
    """A control's section with the settings of its source, or with the map of its source run, filled in.

    Args:
        section: plain values with the keys of rankbench.methods.rank_source.SourceConfig.
        results_dir: folder in which a source run is looked for by its run_id.
        defaults: method name -> what its YAML says.

    Returns:
        The section, and every mistake in what it names.
    """
    if source_arm(section) is not None:
        return dict(section), []  # filled in once that run has finished
    if section.get("source_run") not in (None, schema.MISSING):
        try:
            return {**section, **rank_map(str(section["source_run"]), results_dir)}, []
        except (OSError, ValueError) as error:
            return dict(section), [Mistake("method.source_run", f"method.source_run={section['source_run']}: {error}")]
    if section.get("source") is None:
        return dict(section), []  # the class says what is missing
    return _with_settings(section, defaults)


def source_arm(section: Mapping[str, Any]) -> str | None:
    """The arm whose run a control's section waits for; None if it waits for none."""
    match = ARM.fullmatch(str(section.get("source_run")))
    return match[1] if match else None


def _with_settings(
    section: Mapping[str, Any], defaults: Callable[[str], Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Mistake]]:
    name = schema.show(section["source"])
    try:
        cls = registry.get("method", name)
    except registry.UnknownName as error:
        return dict(section), [Mistake("method.source", f"method.source={name}: {error}")]
    if cls.trains != "adapter":
        return dict(section), [
            Mistake("method.source", f"method.source={name}: it is a reference arm and allocates nothing")
        ]
    if cls.decides not in ANNOUNCED or cls.needs & {"source", "truth"}:
        why = "is a control itself" if cls.needs & {"source", "truth"} else f"decides {cls.decides}"
        sentence = f"method.source={name}: {why}; give method.source_run=<a finished run of it>"
        return dict(section), [Mistake("method.source", sentence)]
    values = {**defaults(name), **(section.get("settings") or {})}
    settings, mistakes = schema.conform(cls.Config, values, "method.settings")
    if settings is None:
        return {**section, "settings": values}, mistakes
    wrong = [Mistake("method.settings", problem) for problem in cls.check(settings)]
    return {**section, "settings": settings.plain()}, wrong


def rank_map(place: str, results_dir: Path) -> dict[str, Any]:
    """The rank map that lies at a place, as the keys `origin`, `ranks`, `rank` and `targets` of a control's section.

    Args:
        place: a run's folder, its record.json or its run_id under results_dir; or PEFT's adapter_config.json, its
            folder, or a JSON file with a rank_pattern alone; relative to the working directory or to conf/.
        results_dir: folder of all results.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file has no rank map.
    """
    paths = [*places(place, results_dir), CONF_DIR / place]
    names = (RECORD, CONFIG)
    files = [file for path in paths for file in (*(path / name for name in names), path) if file.is_file()]
    if not files:
        raise FileNotFoundError(f"no run and no file there (looked for {paths[0]}, {paths[1]} and {paths[2]})")
    content = json.loads(files[0].read_text())
    if "schema_version" in content:
        if content["status"] not in ("ok", "inert"):
            raise ValueError(f"{files[0]}: the run ended with status {content['status']}; finish it first")
        if not content["ranks"]:
            reason = content.get("reason") or f"method {content['method']} trains no adapter"
            raise ValueError(f"{files[0]}: the run has no rank map ({reason})")
        return {"origin": content["method"], "ranks": content["ranks"], "rank": None, "targets": None}
    if "peft_type" in content:
        targets = content["target_modules"]
        ranks = {"ranks": content.get("rank_pattern") or {}, "rank": content["r"]}
        beside = files[0].with_name(PROVENANCE)
        method = json.loads(beside.read_text()).get("method") if beside.is_file() else None
        origin = f"consensus of {method}" if method else "peft"
        return {"origin": origin, **ranks, "targets": [targets] if isinstance(targets, str) else targets}
    if all(type(rank) is int for rank in content.values()):
        return {"origin": "pattern", "ranks": content, "rank": None, "targets": None}
    raise ValueError(f"{files[0]}: neither a record, nor PEFT's adapter_config.json, nor a rank_pattern")
