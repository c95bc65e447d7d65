"""Numbers of the papers: `rankbench verify --published [NAME] [--task glue-rte] [--method adalora] [--averages]`.

One CSV per paper in results/published, one row per number; its README.md says what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rankbench import RankbenchError

COLUMNS = (
    *("paper", "table", "model", "task", "metric", "method", "our_method", "rank_or_budget"),
    *("value", "unit", "n_seeds", "confidence", "note"),
)
KEY = ("paper", "table", "model", "task", "metric", "method", "rank_or_budget")
REQUIRED = ("paper", "table", "model", "task", "metric", "method", "value", "unit", "confidence")
CONFIDENCE = ("read in full", "second hand", "from code", "read off a figure")
ROW = ("paper", "table", "model", "method", "rank_or_budget")  # of a table: what an average is taken over
AVERAGE = "average"  # the metric of such a number; its task is the set it is taken over
GLUE = tuple(f"glue-{name}" for name in ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"))
COMMONSENSE = ("boolq", "piqa", "hellaswag", "winogrande", "arc-easy", "arc-challenge", "openbookqa")
SETS = {  # tasks that an average is taken over
    "glue": GLUE,
    "glue without cola": GLUE[1:],
    "reasoning-5": ("boolq", "commonsense-arc-easy", "commonsense-arc-challenge", "gsm8k", "aqua"),
    "boolq+gsm8k": ("boolq", "gsm8k"),
    "commonsense-7": tuple(f"commonsense-{name}" for name in COMMONSENSE),
    "commonsense-8": tuple(f"commonsense-{name}" for name in (*COMMONSENSE, "siqa")),
    "magpie-pro+openplatypus": ("magpie-pro", "openplatypus"),
}
# Items of the official splits that are the tests here.
ITEMS = {
    **{"glue-cola": 1043, "glue-mnli": 9815, "glue-mrpc": 408, "glue-qnli": 5463},
    **{"glue-qqp": 40430, "glue-rte": 277, "glue-sst2": 872, "boolq": 3270, "gsm8k": 1319, "aqua": 254},
    **{"commonsense-boolq": 3270, "commonsense-piqa": 1838, "commonsense-siqa": 1954, "commonsense-hellaswag": 10042},
    **{"commonsense-winogrande": 1267, "commonsense-arc-easy": 2376, "commonsense-arc-challenge": 1172},
    **{"commonsense-openbookqa": 500, "squad-v1": 10570, "squad-v2": 11873},
}
PLACE = Path("results") / "published"
PACKAGED = Path("rankbench") / "published" / "data"  # the same files in a wheel


class PublishedError(RankbenchError, ValueError):
    """Files that cannot be read as published numbers; the message names each mistake with its place."""


def folder() -> Path:
    """Folder of the CSV files: that of the checkout which has this package, of the wheel, or of the current directory.

    Raises:
        PublishedError: none of them is there.
    """
    root = Path(__file__).resolve().parents[2]
    folders = [root / PLACE, root / PACKAGED, Path.cwd() / PLACE]
    existing = next((candidate for candidate in folders if any(candidate.glob("*.csv"))), None)
    if existing is None:
        tried = " nor ".join(map(str, dict.fromkeys(folders)))
        raise PublishedError(f"no published numbers: neither {tried} has CSV files; name a folder with --folder")
    return existing


def load(name: str | None = None, source: Path | None = None) -> pd.DataFrame:
    """Numbers of one file, or of all: COLUMNS as text, but `value` (float) and `n_seeds` (integer, <NA> if unknown).

    Args:
        name: stem of a file; None for all.
        source: folder of the files; None for `folder()`.

    Returns:
        a row per number, and the column `printed`: the value as the paper has it, with its digits.

    Raises:
        PublishedError: no such file, or mistakes in one, all of them at once.
    """
    source = folder() if source is None else source
    files = sorted(source.glob("*.csv"))
    chosen = [file for file in files if name in (None, file.stem)]
    if not chosen:
        names = ", ".join(file.stem for file in files) or "none"
        raise PublishedError(f"{source} has no numbers of {name or 'any paper'}; there are {names}")
    tables = [_read(file) for file in chosen]
    data = pd.concat(tables, ignore_index=True)
    problems = [*_problems(data), *_duplicates(data)]
    if problems:
        raise PublishedError("\n".join(problems))
    data = data.assign(printed=data["value"], value=data["value"].astype(float))
    return data.assign(n_seeds=pd.to_numeric(data["n_seeds"]).astype("Int64")).drop(columns="place")


def _read(file: Path) -> pd.DataFrame:
    """Texts as they stand, with the place of each row."""
    data = pd.read_csv(file, dtype=str, keep_default_na=False)
    if tuple(data.columns) != COLUMNS:
        raise PublishedError(f"{file}: columns are {', '.join(data.columns)}; they must be {', '.join(COLUMNS)}")
    return data.assign(place=[f"{file}:{line}" for line in range(2, len(data) + 2)])


def _problems(data: pd.DataFrame) -> Iterator[str]:
    for row in data.to_dict("records"):
        for column in REQUIRED:
            if not row[column].strip():
                yield f"{row['place']}: {column} is empty"
        if row["value"] and not _is_number(row["value"]):
            yield f"{row['place']}: value {row['value']!r} is not a number"
        if row["n_seeds"] and not (row["n_seeds"].isdecimal() and int(row["n_seeds"])):
            yield f"{row['place']}: n_seeds {row['n_seeds']!r} is not a count; leave it empty where it is not known"
        if row["confidence"] and row["confidence"] not in CONFIDENCE:
            yield f"{row['place']}: confidence {row['confidence']!r} is none of {', '.join(CONFIDENCE)}"


def _is_number(text: str) -> bool:
    """Digits with or without a point: the digits are needed to know what was rounded."""
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _duplicates(data: pd.DataFrame) -> Iterator[str]:
    for _, rows in data[data.duplicated(list(KEY), keep=False)].groupby(list(KEY), sort=False):
        first, *others = rows["place"]
        yield f"{', '.join(others)}: the same number as {first} (equal in {', '.join(KEY)})"


def averages(data: pd.DataFrame) -> pd.DataFrame:
    """Averages that the papers print, beside the ones of their own rows.

    The mean is taken over the metrics of a task first, then over the tasks: AdaLoRA's rule for m/mm and accuracy/F1,
    and the plain mean where a task has one metric.

    Args:
        data: numbers, as `load` returns them.

    Returns:
        ROW, printed, recomputed, agrees (to the rounding of the printed one), note; a row per average whose tasks all
        stand beside it.
    """
    rows = []
    for row, members in data.groupby(list(ROW), sort=False):
        printed = members[members["metric"] == AVERAGE]
        tasks = members[members["metric"] != AVERAGE].groupby("task")["value"].mean()
        if len(printed) == 1 and len(tasks) and set(tasks.index) == set(SETS.get(printed["task"].item(), ())):
            (value,), (text,), (note,) = printed["value"], printed["printed"], printed["note"]
            rows.append((*row, text, tasks.mean(), abs(tasks.mean() - value) <= half_digit(text) + 1e-9, note))
    return pd.DataFrame(rows, columns=[*ROW, "printed", "recomputed", "agrees", "note"])


def half_digit(printed: str) -> float:
    """How far a number may lie from its printed value: half of the last digit ("87.30": 0.005)."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def select(data: pd.DataFrame, task: str | None = None, method: str | None = None) -> pd.DataFrame:
    """Select the rows of a task, and of a method by our name or the paper's, in any case.

    Raises:
        PublishedError: none is left.
    """
    for columns, wanted in ((["task"], task), (["our_method", "method"], method)):
        if wanted is not None:
            names = data[columns].apply(lambda column: column.str.lower())
            kept = data[(names == wanted.lower()).any(axis=1)]
            if kept.empty:
                values = ", ".join(sorted(set(data[columns[0]]) - {""}))
                raise PublishedError(f"no number of {wanted!r}; {columns[0]} has {values or 'nothing'}")
            data = kept
    return data
