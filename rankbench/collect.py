"""Records -> one tidy frame, and the table of single runs: `python -m rankbench.collect RESULTS_DIR [--save FILE]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.record import CONTENT, RecordError, RunRecord

KEYS = ("model", "task", "method", "budget", "seed")


def records(source: Path) -> tuple[list[RunRecord], list[str]]:
    """Records of a results folder, or of a JSON-lines file made by `save`; and what could not be read, by name."""
    found, problems = [], []
    if source.is_file():
        texts = [(f"{source}:{number}", line) for number, line in enumerate(source.read_text().splitlines(), 1)]
    else:
        texts = [(str(file), file.read_text()) for file in sorted((source / "runs").glob("*/record.json"))]
    for name, text in texts:
        try:
            found.append(RunRecord.from_json(text, name))
        except RecordError as error:
            problems.append(str(error))
    return sorted(found, key=lambda record: [getattr(record, key) for key in KEYS]), problems


def save(found: Iterable[RunRecord], file: Path) -> None:
    """Records in compact form, one line each, without the folders of the machine they were made on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(portable(asdict(record)), sort_keys=True) + "\n" for record in found))


def portable(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with the paths in its config cut to their last part; what lay there is hashed in the provenance."""
    for path in ("results_dir", *CONTENT):
        *parents, leaf = path.split(".")
        section = content["config"]
        for parent in parents:
            section = section.get(parent, {})
        if section.get(leaf) is not None:
            section[leaf] = Path(section[leaf]).name
    return content


def frame(found: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per run: keys, status, metrics as "test/loss", ledger as "final/params", cost as "training/seconds"."""
    return pd.DataFrame([_row(record) for record in found])


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {key: getattr(record, key) for key in ("run_id", *KEYS, "status")}
    ledger, cost = record.ledger or {}, dict(record.cost or {})
    row |= {"unit": ledger.get("unit"), "target": ledger.get("target"), "head_params": ledger.get("head_params")}
    row["peak_memory_bytes"] = cost.pop("peak_memory_bytes", None)
    figures = {when: ledger.get(when) for when in ("start", "peak", "final")}
    for group in (record.metrics or {}, figures, cost):
        row |= {f"{name}/{key}": value for name, values in group.items() for key, value in (values or {}).items()}
    return row


def table(found: Sequence[RunRecord], metrics: Sequence[str]) -> str:
    """Markdown, one row per run: metrics before and after, budget asked and got, seconds, peak memory, record.

    Args:
        found: records.
        metrics: columns of `frame` to show, such as "before/loss" and "test/accuracy".
    """
    data = frame(found)
    shown = pd.DataFrame(
        {
            **{key: data[key] for key in ("method", "seed", "status")},
            **{name: data[name].map("{:.4f}".format) for name in metrics if name in data},
            "asked": data["target"].map("{:,}".format),
            "got": data["final/params"].map("{:,.0f}".format),
            "peak": data["peak/params"].map("{:,.0f}".format),
            "train s": data["training/seconds"].map("{:.0f}".format),
            "method's own s": data["allocation/seconds"].map("{:.1f}".format),
            "eval s": data["evaluation/seconds"].map("{:.0f}".format),
            "peak MiB": (data["peak_memory_bytes"] / 2**20).map("{:,.0f}".format),
            "run": data["run_id"],
        }
    )
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.astype(str).replace("nan", "").values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print a table per model and task; name what could not be read."""
    parser = argparse.ArgumentParser(prog="python -m rankbench.collect", description=__doc__)
    parser.add_argument("source", type=Path, help="results folder, or a JSON-lines file of records")
    parser.add_argument("--save", type=Path, help="write the records in compact form")
    arguments = parser.parse_args()
    found, problems = records(arguments.source)
    for problem in problems:
        print(f"not counted: {problem}")
    if arguments.save:
        save(found, arguments.save)
    for group in sorted({(record.model, record.task, record.budget) for record in found}):
        rows = [record for record in found if (record.model, record.task, record.budget) == group]
        columns = [str(column) for column in frame(rows) if not str(column).endswith("/step")]
        metrics = [c for split in ("before", "validation", "test") for c in columns if c.startswith(f"{split}/")]
        print(f"\n{group[0]}, {group[1]}, budget {group[2]}: {len(rows)} runs\n\n{table(rows, metrics)}")


if __name__ == "__main__":
    main()
