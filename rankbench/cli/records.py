"""`rankbench records [runs|rates|table|maps|merge] [--results DIR]`: finished runs as tables and figures.

runs: a row per run (what is shown where no word names an action). rates: learning-rate curves and the rate chosen on
validation. table: methods beside a reference, paired by seed. maps: rank maps, and how far methods and seeds agree.
merge: several results folders, and files of records, into one results folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench import RankbenchError
from rankbench.cli.arguments import ALLOW_MIXED, add_results, integers, names, results_of
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.records.run_folder import records, save
from rankbench.terminal import loading, print_text

if TYPE_CHECKING:  # pandas takes a moment to import: after the arguments are read
    import pandas as pd

    from rankbench.analysis.selection import Selection
    from rankbench.records.record import RunRecord

COSTS = ("peak MiB", "method's own s", "eval s", "asked", "peak", "train s", "got")  # columns, the least telling first


def main(words: Sequence[str]) -> int:
    """Do the action that a word names; `runs` where none does.

    Raises:
        RankbenchError: a word is nearly an action and no file.
    """
    places = list(_bare(words))
    for place in places:
        if words[place] in ACTIONS:
            return ACTIONS[words[place]]([*words[:place], *words[place + 1 :]])
    for word in (words[place] for place in places):
        near = get_close_matches(word, ACTIONS, n=1)
        if near and not Path(word).exists():
            raise RankbenchError(f"records {word}: neither an action nor a folder or file; did you mean {near[0]}?")
    return runs(words)


def _bare(words: Sequence[str]) -> Iterator[int]:
    """Places of the words that are no flag and no value of one; every flag here but --help takes a value."""
    is_value = False
    for place, word in enumerate(words):
        if not is_value and not word.startswith("-"):
            yield place
        is_value = not is_value and word.startswith("--") and "=" not in word and word != "--help"


def runs(words: Sequence[str]) -> int:
    """Print a table of runs for each model, task and budget; name what could not be read."""
    parser = command_parser(
        f"records [{'|'.join(ACTIONS)}]",
        __doc__ or "",
        "rankbench records rates|table|maps|merge --help says more of those.",
    )
    _add_source(parser)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the records in compact form")
    best = "learning rates instead of runs: the same as rankbench records rates --metric METRIC"
    parser.add_argument("--best", metavar="METRIC", help=best)
    _add_tuning_seeds(parser)
    return _print_each(parser.parse_intermixed_args(words))


def rates(words: Sequence[str]) -> int:
    """Print the learning-rate curves and the chosen rates for each model, task and budget."""
    parser = command_parser("records rates", "Learning-rate curves, the rate chosen, and whether it is at the edge.")
    _add_source(parser)
    metric = "validation metric (%(default)s)"
    parser.add_argument("--metric", dest="best", metavar="METRIC", default="validation/loss", help=metric)
    _add_tuning_seeds(parser)
    return _print_each(parser.parse_intermixed_args(words))


def _print_each(arguments: argparse.Namespace) -> int:
    from rankbench.analysis.frame import frame, split
    from rankbench.analysis.labels import panel_title
    from rankbench.reporting.record_tables import print_frame, rates_frame

    finished, problems = _finished(arguments)
    for problem in problems:
        print_text(f"not counted: {problem}")
    if getattr(arguments, "save", None):
        save(finished, arguments.save)
    for title, group in split(finished, arguments.by):
        shown = rates_frame(frame(group), arguments.best, arguments.tuning_seeds) if arguments.best else _runs(group)
        print()
        print_frame(shown, _spare(shown), f"{panel_title(title)}: {len(group)} runs")
    return OK


def _runs(group: Sequence[RunRecord]) -> pd.DataFrame:
    from rankbench.analysis.frame import frame
    from rankbench.reporting.record_tables import runs_frame

    columns = [str(column) for column in frame(group) if not str(column).endswith("/step")]
    splits = ("test", "validation", "before")
    return runs_frame(group, [column for split in splits for column in columns if column.startswith(f"{split}/")])


def _spare(shown: pd.DataFrame) -> list[str]:
    """Columns that go first where the terminal is too narrow: costs, then metrics from the last one on but for two."""
    metrics = [str(column) for column in shown if str(column).endswith(("↑", "↓")) or "/" in str(column)]
    return [*COSTS, *metrics[:1:-1]]


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", type=Path, help="results folder or file of records")
    add_results(parser, file=True)
    by = "one table (or figure) for each value of this setting, such as task.map"
    parser.add_argument("--by", action="append", default=[], metavar="KEY", help=by)


def _add_tuning_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tuning-seeds", type=integers, default=[], metavar="SEEDS", help="choose rates on these alone: 100,101"
    )


def _source(arguments: argparse.Namespace) -> Path:
    """Folder or file that the records are read from."""
    return arguments.source if arguments.source is not None else results_of(arguments)


def _finished(arguments: argparse.Namespace) -> tuple[list[RunRecord], list[str]]:
    """The records of the source, at least one, and sentences on what could not be read.

    Raises:
        SelectionError: there is no such place, or no record in it.
    """
    loading("records")
    from rankbench.analysis.frame import SelectionError

    source = _source(arguments)
    finished, problems = records(source)
    if not finished:
        what = "holds no records" if source.exists() else "is not there"
        reasons = "".join(f"; not counted: {problem}" for problem in problems)
        raise SelectionError(f"{source} {what}; give a results folder, or a file made with --save{reasons}")
    return finished, problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `selections` reads."""
    _add_source(parser)
    _add_tuning_seeds(parser)
    parser.add_argument("--rates", metavar="RATE", help="learning rate: a number, or best:validation/loss")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)


def selections(arguments: argparse.Namespace) -> list[Selection]:
    """One for each model, task, budget and value of the `--by` settings, in this order.

    Raises:
        SelectionError: nothing to read, or records that are no comparison.
    """
    from rankbench.analysis.frame import split

    finished, problems = _finished(arguments)
    return [_select(title, group, arguments, problems) for title, group in split(finished, arguments.by)]


def _select(
    title: str, group: Sequence[RunRecord], arguments: argparse.Namespace, problems: Sequence[str]
) -> Selection:
    """Records of one table; tuning trials may choose its learning rates, and stand in it where nothing else does."""
    from rankbench.analysis.selection import BEST, select

    reported = [record for record in group if not record.config.get("trial")]
    trials = len(group) - len(reported)
    chooses = (arguments.rates or "").startswith(BEST)
    chosen = group if chooses or not reported else reported
    selection = select(title, chosen, arguments.rates, arguments.tuning_seeds, arguments.allow_mixed, problems)
    kept = [place for place, record in enumerate(selection.records) if not record.config.get("trial")]
    if not trials or not kept:
        return selection
    return replace(
        selection,
        records=[selection.records[place] for place in kept],
        labels=[selection.labels[place] for place in kept],
        notes=[note.replace(", which are shown as well", "") for note in selection.notes]
        + [f"{trials} tuning trials are left out"],
    )


def tables(words: Sequence[str]) -> int:
    """Print a table for each selection; 2 if one of them has none."""
    parser = command_parser("records table", "Methods beside a reference, paired by seed.")
    add_arguments(parser)
    metric = "such as test/kl; may be repeated, the first one sorts"
    parser.add_argument("--metric", action="append", required=True, metavar="METRIC", help=metric)
    parser.add_argument("--reference", default="lora", help="label the others are compared with (%(default)s)")
    arguments = parser.parse_intermixed_args(words)
    from rankbench.analysis.frame import SelectionError
    from rankbench.reporting.record_tables import LEGEND

    chosen = selections(arguments)
    broken = [selection.title for selection in chosen if not _print(selection, arguments.metric, arguments.reference)]
    print_text(f"\n{LEGEND}")
    if broken:
        raise SelectionError(f"no table of {'; '.join(broken)}")
    return OK


def _print(selection: Selection, metrics: Sequence[str], reference: str) -> bool:
    """Whether there is a table of it; else why not is printed in its place."""
    from rankbench.analysis.frame import SelectionError
    from rankbench.analysis.labels import panel_title, with_titles
    from rankbench.reporting.record_tables import comparison_table, print_cells

    title = f"{panel_title(selection.title)}: {len(selection.records)} runs"
    print()
    try:
        table = comparison_table(selection.records, metrics, reference, selection.labels)
    except SelectionError as error:
        print_text(f"{title}\n\n{error}")
        return False
    print_cells(replace(table, title=title))
    for note in [*table.notes, *(with_titles(note, selection.labels) for note in selection.notes)]:
        print_text(f"\n{note}")
    return True


def draw(selection: Selection, out: Path) -> Iterable[Path]:
    """Draw both figures of a selection, in files named by its title; the figures say which runs they leave out."""
    from rankbench.analysis.labels import file_name
    from rankbench.reporting.figures.rank_maps import (
        agreement,
        count_drawn,
        draw_agreement,
        draw_maps,
        mean_ranks,
        rank_maps,
    )
    from rankbench.reporting.plotting import write  # matplotlib takes a moment to import

    maps = rank_maps(selection.records, selection.labels)
    name = file_name(selection.title)
    means, agreeing = mean_ranks(maps), agreement(maps)
    partly = [note for note in count_drawn(selection.records, selection.labels) if "," in note]
    title = "\n".join([selection.title, "; ".join(partly)])
    yield from write(draw_maps(means, title), means, out / f"ranks-{name}")
    yield from write(draw_agreement(agreeing, title), agreeing, out / f"agreement-{name}")


def maps(words: Sequence[str]) -> int:
    """Draw each selection; print which files were written, and notes on them."""
    parser = command_parser("records maps", "Draws rank maps, and how far methods and seeds agree.")
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_intermixed_args(words)
    from rankbench.reporting.figures.rank_maps import count_drawn  # matplotlib takes a moment to import

    for selection in selections(arguments):
        for file in draw(selection, arguments.out):
            print(file)
        for note in [*count_drawn(selection.records, selection.labels), *selection.notes]:
            print(note)
    return OK


SOURCES = "results folder or file of records; it stays as it is"


def merges(words: Sequence[str]) -> int:
    """Bring several results folders and files of records into one; 1 if a run could not be brought over.

    Raises:
        MergeError: a folder without runs, or runs that are ok in two places with different numbers.
    """
    description = (
        "Brings the finished runs of several results folders, such as one of each node, into one. A file of records "
        "(rankbench records --save FILE, or the records.jsonl of a report) is a source, too: each record becomes a "
        "run folder with nothing else in it, so that a sweep that is started again leaves these runs as they are, and "
        "does those that are missing."
    )
    parser = command_parser("records merge", description)
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help=SOURCES)
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="results folder; it may hold runs")
    arguments = parser.parse_intermixed_args(words)
    from rankbench.records.merging import merge
    from rankbench.sweeps import manifest

    merged = merge(arguments.sources, arguments.into)
    merged.problems += manifest.merge(arguments.sources, arguments.into)
    bare = f" ({merged.bare} of them as records alone)" if merged.bare else ""
    print(f"{arguments.into}: {merged.taken} runs merged{bare}, {merged.present} there already")
    if merged.unfinished:
        print(f"{merged.unfinished} unfinished runs were left where they are")
    for problem in merged.problems:
        print(problem)
    return FAILED if merged.problems else OK


ACTIONS = {"runs": runs, "rates": rates, "table": tables, "maps": maps, "merge": merges}
