"""`rankbench export RUN [--uniform-r] [--out DIR] [--results DIR]`: the adapter of a finished run, written again.

It is a stock PEFT LoRA adapter. With --uniform-r all sites have one rank and one alpha, for servers that read neither
rank_pattern nor alpha_pattern: zero components are appended, and the scale of each site is folded into its factors. The
adapted model computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankbench import RankbenchError
from rankbench.cli.arguments import add_results, results_of
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RECORD, RunFolder, places
from rankbench.terminal import console

ADAPTER = "adapter"  # the folder in a run's folder


class ExportError(RankbenchError, ValueError):
    """A run that has no adapter, or a folder that cannot take one; the message says why, and what to give."""


def find(run: str, results_dir: Path) -> tuple[RunRecord, Path]:
    """The record and the adapter's folder of a run, named by its folder or by its run_id.

    Raises:
        ExportError: no such run, or one without an adapter.
        RecordError: its record cannot be read.
    """
    candidates = places(run, results_dir)
    folder = next((path for path in candidates if (path / RECORD).is_file()), None)
    record = None if folder is None else RunFolder.from_path(folder).record()
    if folder is None or record is None:
        raise ExportError(
            f"no run {run!r}: neither {candidates[0]} nor {candidates[1]} has a {RECORD}; give a run's folder, or "
            "its run_id and --results DIR"
        )
    if not (folder / ADAPTER).is_dir():
        reason = f" ({record.reason})" if record.reason else ""
        raise ExportError(
            f"{folder} has no adapter: method {record.method}, status {record.status}{reason}; give a run that trained "
            "one to its end"
        )
    return record, folder / ADAPTER


def export(source: Path, target: Path, uniform: bool) -> str:
    """Write the adapter that lies in `source` into `target`; what was written, in words."""
    from rankbench.core.peft_export import pad, read, write  # torch takes seconds to import

    state, content = read(source)
    if uniform:
        state, content = pad(state, content)
    write(state, content, target)
    ranks = sorted(set(content["rank_pattern"].values())) or [content["r"]]
    sites = sum(".lora_A." in name for name in state)
    size = sum(tensor.nbytes for tensor in state.values()) / 2**20
    span = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f"{span} at {sites} sites, {size:,.1f} MiB"


def main(words: Sequence[str]) -> int:
    """Write the adapter of a run.

    Raises:
        ExportError: no such run, one without an adapter, or a target that holds files.
    """
    parser = command_parser("export", __doc__ or "")
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or its run_id")
    parser.add_argument("--uniform-r", action="store_true", help="one rank and one alpha for all sites")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder (default: adapters/RUN_ID)")
    add_results(parser)
    arguments = parser.parse_args(words)
    record, source = find(arguments.run, results_of(arguments))
    target = arguments.out or Path("adapters") / record.run_id
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"--out {target} holds something already; name a new folder, or remove that one")
    console().print(f"written: {target}: {export(source, target, arguments.uniform_r)}", markup=False, soft_wrap=True)
    return OK
