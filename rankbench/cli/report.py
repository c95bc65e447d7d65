"""`rankbench report [experiment=X] [--results DIR]`: tables, figures and the page of a study; `--wandb` mirrors it.

`--index` renews the index of all studies instead.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rankbench import RankbenchError
from rankbench.cli.arguments import ALLOW_MIXED, RESULTS, add_results, names, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.records.run_folder import without_garbage_collection
from rankbench.terminal import loading, print_text

VENUES = ("neurips", "icml")  # keys of paper_tables.WIDTHS, which is not imported for a help text
WORDS = "experiment=X, more words of its sweep; or a folder of a report, a file of records or a results folder"


def main(words: Sequence[str]) -> int:
    """Write the report and print where its page is, or mirror the runs."""
    return _mirror([word for word in words if word != "--wandb"]) if "--wandb" in words else _write(words)


def _write(words: Sequence[str]) -> int:
    parser = command_parser("report", "Writes the tables, the figures and the page of a study.")
    parser.add_argument("words", nargs="*", metavar="WORD", help=WORDS)
    add_results(parser)
    parser.add_argument("--out", type=Path, help="folder to write to; by default RESULTS/X, or the folder given")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    width = "set the LaTeX tables for a column of this venue (%(default)s)"
    parser.add_argument("--width", choices=VENUES, default=VENUES[0], help=width)
    reference = "arm that the others are compared with, where no experiment declares one (default: lora)"
    parser.add_argument("--reference", metavar="ARM", help=reference)
    wandb = "mirror the runs to Weights & Biases instead; rankbench report --wandb --help says more"
    parser.add_argument("--wandb", action="store_true", help=wandb)
    index = "write no report; renew index.html of the results folder, and the list of studies in its README.md"
    parser.add_argument("--index", action="store_true", help=index)
    arguments = parser.parse_intermixed_args(words)
    if arguments.index:
        if arguments.words:
            parser.error(f"--index: takes no words ({shlex.join(arguments.words)}), but --results DIR")
        return _renew_index(arguments.results or RESULTS)
    typed = with_results(arguments.words, arguments)
    loading("records")
    with without_garbage_collection():  # nothing that is read is freed before the end
        page, sentences = written(typed, arguments.out, arguments.allow_mixed, arguments.width, arguments.reference)
    print(page)
    for sentence in sentences:
        print_text(sentence)
    return OK


def _renew_index(results: Path) -> int:
    """Write the index of the studies of a results folder, and print where it is.

    Raises:
        RankbenchError: there is no such folder.
    """
    from rankbench.reporting.pages import study_index

    if not results.is_dir():
        raise RankbenchError(f"--index: there is no folder {results}; give --results DIR")
    print(study_index.renew(results))
    return OK


def written(
    words: Sequence[str],
    out: Path | None = None,
    allow_mixed: Sequence[str] = (),
    venue: str = VENUES[0],
    reference: str | None = None,
) -> tuple[Path, Sequence[str]]:
    """Write the report of a study; the path of its page, and the sentences that come first on it.

    Args:
        words: ["experiment=X", ...]; or the folder of a report, a file of records or a results folder alone.
        out: folder to write to; None: results_dir/X, or the folder given; beside a file of another name than
            records.jsonl, a folder of its name.
        allow_mixed: names of what may differ between the records of one table.
        venue: one of VENUES, for which the LaTeX tables are set.
        reference: arm that the others are compared with, where no experiment declares one; None: lora.

    Raises:
        SweepError: there is no such study; or records alone would replace the report of a sweep.
        SelectionError: its records are no comparison.
    """
    from rankbench.interface.study_sources import report_folder
    from rankbench.reporting.report import build
    from rankbench.studies import study
    from rankbench.sweeps import manifest

    loaded = replace(study.load(words), reference=reference)
    is_path = len(words) == 1 and "=" not in words[0]
    if not is_path and any(record is not None for _, record in loaded.runs()):
        manifest.look(loaded.sweep, study.results_dir_of(words))
    if out is None:
        name = loaded.sweep.name if loaded.sweep.experiment is not None else loaded.sweep.sweep_id
        out = report_folder(Path(words[0])) if is_path else study.results_dir_of(words) / name
    return out / "index.html", build(loaded, out, list(allow_mixed), venue)


def _mirror(words: Sequence[str]) -> int:
    """Mirror finished runs, and say what came of it; 1 if a run could not be mirrored."""
    arguments = _mirror_parser().parse_intermixed_args(words)
    from rankbench.config.yaml_files import defaults
    from rankbench.reporting.wandb_sweep import FOLDER, mirror, request_of, show
    from rankbench.studies import study

    typed = with_results(arguments.words, arguments)
    chosen = {key: value for key in ("project", "mode") if (value := getattr(arguments, key))}
    settings = {**defaults("tracking", "wandb"), **chosen}
    results_dir = arguments.results or study.results_dir_of(typed)
    wanted = request_of(typed)
    done = mirror(wanted.records, results_dir, settings, (wanted.title,), wanted.curves)
    for problem in wanted.problems:
        print(f"not mirrored: {problem}")
    stepless = f"; {done.stepless} of them without steps" if done.stepless else ""
    print(f"{wanted.title}: {done.online} runs online, {done.offline} offline, {len(done.failed)} failed{stepless}")
    if done.offline:
        print(f"to upload them: wandb sync {results_dir / FOLDER}/offline-run-*")
    print(show(wanted, done, settings["project"], results_dir))
    return FAILED if done.failed else OK


def _mirror_parser() -> argparse.ArgumentParser:
    parser = command_parser("report --wandb", "Mirrors the finished runs of a study to Weights & Biases.")
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"{WORDS}; or a file of records")
    add_results(parser)
    parser.add_argument("--project", help="project in Weights & Biases; default as in conf/tracking/wandb.yaml")
    parser.add_argument("--mode", choices=("auto", "online", "offline"), help="as tracking.mode; default auto")
    return parser
