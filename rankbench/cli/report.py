"""Write the report of a study."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path

from rankbench.analysis.frame import SelectionError
from rankbench.cli.records import ALLOW_MIXED, names
from rankbench.config.yaml_files import defaults
from rankbench.reporting.report import build
from rankbench.reporting.wandb_sweep import FOLDER, mirror, request_of, show
from rankbench.studies import study
from rankbench.studies.study import Study
from rankbench.sweeps.manifest import SweepError


def main() -> None:
    """Write the report; print where it is and what it says first."""
    parser = argparse.ArgumentParser(prog="rankbench report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="experiment=X, results_dir=DIR, more words of its sweep; or the folder of a report",
    )
    parser.add_argument("--out", type=Path, help="folder to write to; by default results_dir/X, or the folder given")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    arguments = parser.parse_args()
    gc.disable()  # nothing that is read is let go before the end; looking for it would take a third of the time
    try:
        found = study.load(arguments.words)
        place = arguments.out or _folder(arguments.words, found)
        said = build(found, place, arguments.allow_mixed)
    except (SweepError, SelectionError) as error:
        parser.exit(2, f"{error}\n")
    print(f"{place}/index.html")
    for sentence in said:
        print(sentence)


def _folder(words: Sequence[str], found: Study) -> Path:
    if len(words) == 1 and "=" not in words[0]:
        return Path(words[0])
    name = found.sweep.name if found.sweep.experiment is not None else found.sweep.sweep_id
    return study.results_dir_of(words) / name


def mirror_main() -> int:
    """Mirror, and say what came of it; 2 if there is nothing to mirror, 1 if a run could not be."""
    parser = argparse.ArgumentParser(prog="rankbench report --wandb", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="experiment=X results_dir=DIR; a report's folder; a file of records")
    parser.add_argument("--project", help="of Weights & Biases; default as conf/tracking/wandb.yaml has it")
    parser.add_argument("--mode", choices=("auto", "online", "offline"), help="as tracking.mode; default auto")
    arguments = parser.parse_args()
    given = {key: value for key in ("project", "mode") if (value := getattr(arguments, key))}
    settings = {**defaults("tracking", "wandb"), **given}
    results_dir = study.results_dir_of(arguments.words)
    try:
        wanted = request_of(arguments.words)
    except SweepError as error:
        parser.exit(2, f"rankbench.reporting.wandb_sweep: {error}\n")
    done = mirror(wanted.records, results_dir, settings, (wanted.title,), wanted.curves)
    for problem in wanted.problems:
        print(f"not mirrored: {problem}")
    stepless = f"; {done.stepless} of them without steps" if done.stepless else ""
    print(f"{wanted.title}: {done.online} runs online, {done.offline} offline, {len(done.failed)} failed{stepless}")
    if done.offline:
        print(f"to upload them: wandb sync {results_dir / FOLDER}/offline-run-*")
    print(show(wanted, done, settings["project"], results_dir))
    return 1 if done.failed else 0
