"""The record of a run: its identity, its schema, and JSON both ways."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rankbench import RankbenchError
from rankbench.files import expanded, fingerprint

SCHEMA_VERSION = 1
STATUSES = ("ok", "oom", "nan", "timeout", "killed", "error", "inert", "over_budget")

# Of runs that were stopped from outside: they go on from their checkpoint when they are asked for again. All others but
# "ok" would fail again, and are done again only on request.
STOPPED = ("killed",)

# What cannot change a number. `threads` is left in: summation order follows it.
# A source run is a path; the rank map that was read from it stands beside it.
# Of a run that another one is matched to, what was read from it counts: budget.target, train.steps.
NOT_IDENTITY = (
    *("results_dir", "tracking", "train.checkpoint_every", "method.source_run", "task.kind", "tuned"),
    *("budget.peak_of", "train.passes_of"),
)
# Left out where they are off: older configurations have none of them, and are the same run.
OFF_BY_DEFAULT = (
    *("trial", "model.exclude", "model.quantization", "model.attention"),
    *("train.gradient_checkpointing", "train.head_learning_rate", "task.test_from_train", "budget.target"),
)
# Left out where they are 1, for the same reason.
ONE_BY_DEFAULT = ("budget.factor",)
# Methods that older configurations have under another name: the run is the same one.
RENAMED = {"shuffled": "permuted"}
# Settings of methods that older configurations have not, and the value at which a run is the same without them.
LATER: dict[str, dict[str, Any]] = {
    "adalora": {"cut": "refill"},
    "igu": {"cut": "refill", "stage2_orthogonality": None},
    "igu_code": {"cut": "refill", "stage2_orthogonality": None},
    "sora": {"step": "printed", "loss_l1": 0.0},
    "gora": {"direction": "down", "width": "root"},
    "eva": {"search": "peft"},
    **{name: {"map_number": None} for name in ("permuted", "reversed", "by_type", "by_depth")},
}
# Paths name files; their content is what counts.
CONTENT = ("model.path", "task.data_dir")
# What readers take for granted of a record that others may have written.
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "status", "method", "model", "task", "budget"), str),
    **dict.fromkeys(("config", "provenance"), dict),
    **dict.fromkeys(("ledger", "ranks", "metrics", "cost"), (dict, type(None))),
    "notes": list,
}
# Settings that name places on one machine.
PLACES = ("results_dir", "method.source_run", "budget.peak_of", "train.passes_of", *CONTENT)


class RecordError(RankbenchError, ValueError):
    """A file that is not a record this version can read."""


def run_id(config: Mapping[str, Any]) -> str:
    """Name of a run: hash of the resolved config without what cannot change a number; 12 hexadecimal digits.

    Args:
        config: plain nested dictionaries, everything resolved.
    """
    identity = _identity(config)
    for path in CONTENT:
        location = _pop(identity, path)
        if location is not None:  # what is not there keeps its path: a typo is not the run without one
            file = expanded(location)
            identity[path] = fingerprint(file) if file.exists() else str(location)
    return _digest(identity)


def group_id(config: Mapping[str, Any]) -> str:
    """Name of a run without its seed: the same for runs that differ in nothing else; 12 hexadecimal digits.

    A record that was saved for others has the group of its run, so a folder counts by its name. A rank map that a
    control was given does not count: it is drawn with the seed, and `labels` do not tell it apart either.

    Args:
        config: resolved configuration of a run or record.
    """
    identity = portable({"config": _identity(config)})["config"]
    for path in ("seed", "method.ranks"):
        _pop(identity, path)
    return _digest(identity)


def budget_name(budget: Mapping[str, Any]) -> str:
    """The name of a budget among others: "r8", and "r8x0.5" with a factor of its own.

    Args:
        budget: section of a resolved config.
    """
    factor = budget.get("factor", 1)
    return str(budget["name"]) if factor == 1 else f"{budget['name']}x{factor:g}"


def portable(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with the paths in its config cut to their last part; what lay there is hashed in the provenance."""
    copy = {**content, "config": dict(content["config"])}
    for path in PLACES:
        *parents, leaf = path.split(".")
        section = copy["config"]
        for parent in parents:
            if isinstance(section.get(parent), dict):
                section[parent] = dict(section[parent])  # the record keeps its own
            section = section.get(parent) or {}
        if section.get(leaf) is not None:
            section[leaf] = Path(section[leaf]).name
    return copy


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what cannot change a number."""
    identity: dict[str, Any] = json.loads(json.dumps(config))
    for path in NOT_IDENTITY:
        _pop(identity, path)
    for path in OFF_BY_DEFAULT:
        section, leaf = _section(identity, path)
        if not section.get(leaf):
            section.pop(leaf, None)
    for path in ONE_BY_DEFAULT:
        section, leaf = _section(identity, path)
        if section.get(leaf) == 1:
            del section[leaf]
    method = identity.get("method") or {}
    for section, name in ((method, method.get("name")), (method.get("settings") or {}, method.get("source"))):
        for key, value in LATER.get(str(name), {}).items():
            if key in section and section[key] == value:
                del section[key]
    if method.get("name") in RENAMED.values():
        method["name"] = next(old for old, name in RENAMED.items() if name == method["name"])
    return identity


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of this or an older version, with all settings of its method and of a control's source."""
    method = config.get("method") or {}
    name = str(method.get("name"))
    method = {**LATER.get(RENAMED.get(name, name), {}), **method}
    if name in RENAMED:
        method["name"] = RENAMED[name]
    if method.get("settings"):
        method["settings"] = {**LATER.get(str(method.get("source")), {}), **method["settings"]}
    return {**config, "method": method}


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _section(tree: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The section that a dotted path leads to, and the key in it."""
    *parents, leaf = path.split(".")
    for parent in parents:
        tree = tree.get(parent, {})
    return tree, leaf


def _pop(tree: dict[str, Any], path: str) -> Any:
    section, leaf = _section(tree, path)
    return section.pop(leaf, None)


@dataclass
class RunRecord:
    """Record of one run: everything a table may say about it. What was not measured is None, never 0.

    Attributes:
        status: one of STATUSES; `reason` says why it is not "ok".
        budget: name of the budget choice, with its factor ("r8", "r8x0.5"); `ledger` has its figures.
        config: resolved config.
        provenance: git commit, `numbers_code` (training/code_identity; records made before it have none), versions,
            device, revisions and hashes of model, data and prompt.
        ledger: {unit, target, grain, start, peak, final: {ranks, params}, head_params, gate_params}.
        ranks: site -> rank, sites by their plain module name in the base model.
        history_events: number of rank changes; ranks.jsonl has each.
        metrics: {before, validation, test}: {"step": ..., name: value}; "before" is the validation split before the
            first step (of a method that starts at the base model: that model's, which is evaluated after the last one).
        cost: phase -> {seconds, forward_passes, backward_passes, tokens}, and peak_memory_bytes.
        budget_kind: how the method relates to the budget: "exact", "at_most", or "implicit", which is never an equal
            one; None in older records.
        notes: sentences on what a reader of the numbers should know: what of the model is not adapted, what was changed
            when it was loaded, an uneven allocation.
    """

    run_id: str
    status: str
    reason: str | None
    method: str
    model: str
    task: str
    budget: str
    seed: int
    config: dict[str, Any]
    provenance: dict[str, Any]
    ledger: dict[str, Any] | None = None
    ranks: dict[str, int] | None = None
    history_events: int | None = None
    metrics: dict[str, dict[str, float | None] | None] | None = None
    cost: dict[str, Any] | None = None
    budget_kind: str | None = None
    notes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        run_id: str,
        status: str,
        reason: str | None,
        provenance: dict[str, Any],
        **results: Any,
    ) -> RunRecord:
        """The record of a run with this resolved config, which also says method, model, task, budget and seed.

        Args:
            config: plain nested dictionaries.
            run_id: name of the run.
            status: one of STATUSES.
            reason: why it is not "ok".
            provenance: {} where the run ended before it could say.
            results: the other attributes, as far as the run got.
        """
        names = {group: config[group]["name"] for group in ("method", "model", "task")}
        names["budget"] = budget_name(config["budget"])
        return cls(
            run_id, status, reason, **names, seed=config["seed"], config=config, provenance=provenance, **results
        )

    def to_json(self) -> str:
        """Readable JSON, keys in the order of `ordered`; NaN and infinity become null."""
        return json.dumps(ordered(_finite(asdict(self))), indent=2, allow_nan=False) + "\n"

    def is_final(self, redo: str | None = None) -> bool:
        """Whether a sweep leaves this run as it is: it is done, or failed in a way that would come again.

        Args:
            redo: digest of the failed record that is to be replaced; the record of another attempt is final.
        """
        return self.status == "ok" or (self.status not in STOPPED and self.digest() != redo)

    def digest(self) -> str:
        """Tells one attempt's record from another's; 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> RunRecord:
        """Inverse of `to_json`.

        Args:
            text: content of the file.
            source: named in errors.

        Raises:
            RecordError: not JSON, not a record, or of another schema version.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecordError(f"{source}: not JSON ({error})") from error
        keys = {attribute.name for attribute in fields(cls)}
        if isinstance(content, dict):
            content = {**{"budget_kind": None, "notes": []}, **content}  # older records have neither
        if not isinstance(content, dict) or set(content) != keys:
            odd = sorted(set(content) ^ keys) if isinstance(content, dict) else type(content).__name__
            raise RecordError(f"{source}: not a run record (keys missing or unknown: {odd})")
        if content["schema_version"] != SCHEMA_VERSION:
            raise RecordError(f"{source}: schema {content['schema_version']}, this version reads {SCHEMA_VERSION}")
        wrong = [key for key, kinds in KINDS.items() if not isinstance(content[key], kinds)]
        if wrong or content["status"] not in STATUSES:
            raise RecordError(f"{source}: not a run record (values of another kind: {wrong or ['status']})")
        return cls(**content)


AS_MEASURED = ("metrics", "ranks")  # parts that keep their order: a run that is shown again looks as it did


def ordered(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a record with sorted keys, but for metrics and sites, which stay in the order of the run."""
    return {key: content[key] if key in AS_MEASURED else _sorted(content[key]) for key in sorted(content)}


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


PHASES = ("calibration", "training", "allocation", "evaluation")
