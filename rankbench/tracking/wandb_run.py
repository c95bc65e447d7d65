"""Weights & Biases logging: a write-only copy of the record; its failure never fails a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.tracking.series import maps_over_time, names, rank_rows, record_figures, step_figures

# It neither prints nor asks for a key, and does not report its errors, which would wait for an absent server.
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
# A mirror shows no more than the record: not the machine, its load, or what was printed.
NOTHING_ELSE: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "label_disable": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class Tracker(Protocol):
    """What a run tells its mirror."""

    def step(self, row: dict[str, Any]) -> None:
        """A row of steps.jsonl."""

    def finish(self, record: RunRecord) -> None:
        """The record; nothing follows."""


class NoMirror:
    """No mirror."""

    def step(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, record: RunRecord) -> None:
        """Nothing."""


class Wandb:
    """One W&B run per run, with the same id; grouped by everything but the seed.

    Args:
        settings: the `tracking` section.
        folder: wandb/ is made in it.
        tags: tags of the run.
        goes_on: whether the run continues one that was logged before; else it replaces a run with this id.
        run_folder: folder of the run itself, for its rank changes; None: `folder`.
        best: names of figures -> "min" or "max", where it is known what is better.
    """

    def __init__(
        self,
        settings: Any,
        run_id: str,
        config: dict[str, Any],
        folder: Path,
        tags: tuple[str, ...] = (),
        goes_on: bool = False,
        run_folder: RunFolder | None = None,
        best: Mapping[str, Literal["min", "max"]] = MappingProxyType({}),
    ) -> None:
        self._run_folder = run_folder or RunFolder.from_path(folder)
        facts = {"project": settings.project, "config": config, "dir": str(folder), "tags": tags}
        facts["resume"] = "allow" if goes_on else None
        self.run = _open(settings.mode, settings.timeout, {**names(run_id, config), **facts})
        for name, end in best.items():
            self.run.define_metric(name, summary=end)

    def step(self, row: dict[str, Any]) -> None:
        """Log a training step, unless W&B has it: after a checkpoint, a run says again what it said before it broke."""
        if row["step"] >= self.run.starting_step:
            self.run.log(step_figures(row), step=row["step"])

    def finish(self, record: RunRecord, more: bool = False) -> None:
        """Log the record's figures, its rank map and itself, and close: what needs an answer of the service last.

        Args:
            record: record of the run.
            more: other runs follow, so W&B's own process stays; else everything is on disk when this returns.
        """
        self.run.summary.update(record_figures(record))
        try:
            if record.ranks:
                self._show(record.ranks)
                self._keep("rank_map", "rank_map.json", json.dumps(record.ranks, indent=2, sort_keys=True) + "\n")
            self._keep("record", "record.json", record.to_json())
        finally:
            self.run.finish(exit_code=0 if record.status == "ok" else 1)
            if not more:
                leave()
        if self.run.offline and not more:
            print(
                f"W&B: the run lies offline; to upload it: wandb sync {_shown(Path(self.run.dir).parent)}", flush=True
            )

    def _show(self, ranks: dict[str, int]) -> None:
        """The rank map as a picture and as a table, and as pictures of how it came about where it changed."""
        import wandb

        from rankbench.tracking.rank_map_image import draw  # runs without a mirror need no Pillow

        picture = wandb.Image(draw(ranks, f"{self.run.name}: {sum(ranks.values())} ranks"))
        self.run.log({"ranks/map": picture}, commit=False)
        maps = maps_over_time(ranks, self._run_folder.lines("ranks.jsonl"))
        if len(maps) > 1:
            highest = max(rank for _, at_step in maps for rank in at_step.values())
            titles = [f"step {step}: {sum(at_step.values())} ranks" for step, at_step in maps]
            pictures = [
                wandb.Image(draw(at_step, title, highest), caption=title)
                for (_, at_step), title in zip(maps, titles, strict=True)
            ]
            self.run.log({"ranks/over_time": pictures}, commit=False)
        rows: list[Any] = [list(row) for row in rank_rows(ranks)]
        self.run.log({"ranks/table": wandb.Table(columns=["site", "layer", "kind", "rank"], data=rows)})

    def _keep(self, kind: str, name: str, text: str) -> None:
        """Log an artifact of one file, which stays in the run's own folder until it is uploaded."""
        import wandb

        file = Path(self.run.dir).parent / "artifacts" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        artifact = wandb.Artifact(f"{kind}-{self.run.id}", type=kind)
        artifact.add_file(str(file), policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact)


class GuardedMirror:
    """A mirror whose first failure is reported and ends the mirroring, not the run."""

    def __init__(self, start: Callable[[], Tracker]) -> None:
        self._mirror: Tracker = NoMirror()
        self._try(lambda: setattr(self, "_mirror", start()))

    def step(self, row: dict[str, Any]) -> None:
        """A row of steps.jsonl."""
        self._try(lambda: self._mirror.step(row))

    def finish(self, record: RunRecord) -> None:
        """The record; nothing follows."""
        self._try(lambda: self._mirror.finish(record))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever it is: a mirror is not worth a run
            self._mirror = NoMirror()
            warn(f"{first_line(error)}. The run goes on without its mirror; rankbench report --wandb makes it later")


def _open(mode: str, timeout: float, facts: dict[str, Any]) -> Any:
    """Open a W&B run, online if wanted and possible; else offline, with a warning unless only a key is missing."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    import wandb

    limits: Any = {"init_timeout": timeout, "finish_timeout": timeout, "finish_timeout_raises": True}
    facts["settings"] = wandb.Settings(**NOTHING_ELSE, **limits)
    reason = None
    try:
        if mode != "offline" and wandb.login(prompt=False, verify=False):
            return wandb.init(**facts, mode="online")
        if mode == "online":
            reason = "tracking.mode=online, and no key is set up (wandb login, or WANDB_API_KEY)"
    except Exception as error:  # the service is away, or refuses the key
        reason = first_line(error)
        leave()  # it keeps the id of a run that it could not open
    run = wandb.init(**facts, mode="offline")
    if reason:
        warn(f"{reason}. The run is mirrored offline")
    return run


def _shown(place: Path) -> Path:
    """A path as it is typed here: relative where it lies below the folder that is current."""
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place


def leave() -> None:
    """End W&B's own process, once it has written everything."""
    import wandb

    wandb.teardown()


def warn(sentence: str) -> None:
    """Print a sentence on stderr."""
    print(f"rankbench: W&B: {sentence}", file=sys.stderr)


def first_line(error: Exception) -> str:
    """The first line of an error, for a sentence."""
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__


def tracker(settings: Any, run_id: str, config: dict[str, Any], folder: Path) -> Tracker:
    """The mirror the `tracking` section asks for.

    Args:
        folder: folder of the run; with a checkpoint in it, the run goes on.
    """
    if settings.name != "wandb":
        return NoMirror()
    goes_on = RunFolder.from_path(folder).checkpoint_file().exists()
    return GuardedMirror(lambda: Wandb(settings, run_id, config, folder, goes_on=goes_on))
