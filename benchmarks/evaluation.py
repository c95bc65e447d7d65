"""Evaluation of an adapted model beside lm-evaluation-harness (HF backend): one JSON line per row.

python benchmarks/evaluation.py [row ...] [--boolq DIR] [--gsm8k DIR] [--rounds N] [--threads N]

Rows are `options` (BoolQ, the likelier of two answers) and `generation` (GSM8K, greedy). DIR holds the data set's
files, as task.data_dir does. Both sides have the same base model in fp32, the same adapter (random factors, exported
by us, read by the harness's `peft=`), the same prompts and options, token for token, and the same batch size. They run
in one process and take turns, each on one part of the items, which takes many seconds, so there is no warm-up; the
speed-up is the median of the ratios turn by turn, harness / ours.

Our side is what a run does: Run.evaluate, from tokenised examples to metrics. The harness's is `loglikelihood` or
`generate_until` with its defaults, from texts to scores or texts; turning texts into tokens is in its turns, a few
milliseconds per item. A run's evaluation has the loss of the right answers as well. In `options` that costs nothing;
for `generation` there are two lines: one whose harness only writes the texts, and one, `generation_and_loss`, whose
harness also takes the log-likelihood of the worked solutions, so that both sides know the same in the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from transformers.utils.logging import disable_progress_bar

from rankbench.config.validation import build
from rankbench.config.yaml_files import CONF_DIR
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.peft_export import export
from rankbench.models.errors import ModelError
from rankbench.models.model_files import locate
from rankbench.records.run_folder import RunFolder
from rankbench.tasks.base import Example
from rankbench.tasks.text.language_model import prompt_of
from rankbench.tasks.worked_problems import END
from rankbench.training.engine import make_accelerator
from rankbench.training.run import Run

OPTIONS, GENERATION, BOTH = "options", "generation", "generation_and_loss"
GOALS = {OPTIONS: 1.6, GENERATION: 2.0, BOTH: 2.0}  # least speed-up
Line = dict[str, Any]
Sides = Mapping[str, Callable[[Any], list[Any]]]  # side -> what gives its answers to a part of its inputs
SPREAD = 0.02  # standard deviation of the adapter's B: its update moves the answers and leaves the model a model


class Ours:
    """A run up to its evaluation, whose adapter has a random update.

    Args:
        folder: takes the exported adapter.
        overrides: of the configuration.

    Attributes:
        run: the run.
        task: its task, with the data read.
        examples: those of the test split.
        adapter: folder of the exported adapter.
    """

    def __init__(self, folder: Path, *overrides: str) -> None:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            config = build(compose("config", ["method=lora", f"results_dir={folder}", *overrides]))
        self.run = Run(config, RunFolder(folder, "ours"), make_accelerator(config.train.precision))
        self.run.assembly.complete()
        self.task: Any = self.run.assembly.task
        assert self.run.assembly.adapters is not None, "complete() attaches them"
        draw_update(self.run.assembly.adapters)
        self.examples = self.task.splits["test"]
        self.adapter = folder / "adapter"
        export(self.run.assembly.adapters, self.adapter)

    @property
    def batch_size(self) -> int:
        """Examples of a batch."""
        return self.run.config.train.eval_batch_size

    def evaluate(self, examples: Sequence[Example]) -> list[Line]:
        """The items of some examples, as a run evaluates a split."""
        self.task.splits["test"] = list(examples)
        with redirect_stdout(StringIO()):  # what the run says
            return self.run.evaluate("test", "test", 0)


@torch.no_grad()
def draw_update(adapters: AdapterSet) -> None:
    """Random B at every site, the same in every process; A is random from the start."""
    generator = torch.Generator().manual_seed(0)
    for site in adapters.sites:
        _, B = adapters.factors(site.name)
        B.copy_(SPREAD * torch.randn(B.shape, generator=generator))


class Harness:
    """lm-evaluation-harness, HF backend, on a model folder with a PEFT adapter.

    Raises:
        ModuleNotFoundError: the harness is not installed.
    """

    def __init__(self, base: Path, adapter: Path, batch_size: int, device: str) -> None:
        backend = importlib.import_module("lm_eval.models.huggingface")
        self._instance = importlib.import_module("lm_eval.api.instance").Instance
        self.model = backend.HFLM(
            pretrained=str(base), peft=str(adapter), dtype="float32", batch_size=batch_size, device=device
        )

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as the harness reads it."""
        return tuple(self.model.tok_encode(text))

    def scores(self, prompts: Sequence[str], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-likelihood of each prompt's options after it: [prompt][option]."""
        pairs = [(prompt, option) for prompt, row in zip(prompts, options, strict=True) for option in row]
        requests = [self._instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
        likelihoods = iter(self.model.loglikelihood(requests, disable_tqdm=True))
        return [[next(likelihoods)[0] for _ in row] for row in options]

    def texts(self, prompts: Sequence[str], new_tokens: int) -> list[str]:
        """A greedy answer to each prompt, which only the end token or its length ends."""
        settings = {"until": [], "max_gen_toks": new_tokens, "do_sample": False}
        requests = [
            self._instance("generate_until", {}, (prompt, settings), index) for index, prompt in enumerate(prompts)
        ]
        answers: list[str] = self.model.generate_until(requests, disable_tqdm=True)
        return answers


def compare_options(ours: Ours, harness: Any, parts: int, rounds: int) -> Iterator[Line]:
    """Both sides score the options of the test split's items."""
    items, _ = ours.task.read_items()
    prompts, options = [ours.task.template.format(**item.texts) for item in items["test"]], ours.task.options
    for example, prompt in zip(ours.examples, prompts, strict=True):
        check_tokens(harness, prompt, prompt_of(example))
        for text, option in zip(options, example.options, strict=True):
            check_tokens(harness, prompt + text, prompt_of(example) + option)
    sides: Sides = {"ours": ours.evaluate, "harness": lambda prompts: harness.scores(prompts, [options] * len(prompts))}
    answers, seconds = take_turns(sides, {"ours": ours.examples, "harness": prompts}, parts, rounds)
    yield {
        "row": OPTIONS,
        **speedup(seconds["ours"], seconds["harness"], GOALS[OPTIONS]),
        **option_agreement(answers["ours"], answers["harness"], ours.task.labels),
    }


def compare_generation(ours: Ours, harness: Any, parts: int, rounds: int) -> Iterator[Line]:
    """Both sides answer the test split's problems; the harness then scores the worked solutions."""
    problems, _ = ours.task.problems()
    prompts = [ours.task.template.format(question=problem.question) for problem in problems["test"]]
    solutions = [f" {problem.solution}{END}" for problem in problems["test"]]
    solved = list(zip(prompts, solutions, strict=True))
    for example, (prompt, solution) in zip(ours.examples, solved, strict=True):
        check_tokens(harness, prompt, prompt_of(example))
        check_tokens(harness, prompt + solution, example.input_ids)
    sides: Sides = {
        "ours": ours.evaluate,
        "texts": lambda prompts: harness.texts(prompts, ours.task.config.max_new_tokens),
        "losses": lambda pairs: harness.scores([prompt for prompt, _ in pairs], [(text,) for _, text in pairs]),
    }
    inputs = {"ours": ours.examples, "texts": prompts, "losses": solved}
    answers, seconds = take_turns(sides, inputs, parts, rounds)
    agreement = text_agreement(answers["ours"], answers["texts"], ours.task.complete)
    yield {"row": GENERATION, **speedup(seconds["ours"], seconds["texts"], GOALS[GENERATION]), **agreement}
    both = [sum(turns) for turns in zip(seconds["texts"], seconds["losses"], strict=True)]
    difference = largest_difference(answers["ours"], [score for (score,) in answers["losses"]])
    yield {"row": BOTH, **speedup(seconds["ours"], both, GOALS[BOTH]), **agreement, "largest_difference": difference}


def check_tokens(harness: Any, text: str, ours: Sequence[int]) -> None:
    """Stop if the harness reads a text as other tokens than we do."""
    if harness.tokens(text) != tuple(ours):
        raise ValueError(f"{text[-60:]!r} is read as other tokens by the harness; the sides cannot be compared")


def take_turns(
    sides: Sides, inputs: Mapping[str, Sequence[Any]], parts: int, rounds: int
) -> tuple[dict[str, list[Any]], dict[str, list[float]]]:
    """Each side's answers to all its inputs, and the seconds of its turns, one per part and round."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        answers: dict[str, list[Any]] = {side: [None] * len(own) for side, own in inputs.items()}
        for part in range(parts):
            for side, answer in sides.items():
                start = time.perf_counter()
                answers[side][part::parts] = answer(inputs[side][part::parts])
                seconds[side].append(time.perf_counter() - start)
    return answers, seconds


def speedup(ours: Sequence[float], theirs: Sequence[float], goal: float) -> Line:
    """How many times as fast our turns are: median and quartiles of the ratios turn by turn."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [middle] * 3
    return {
        "speedup": round(middle, 3),
        "goal": goal,
        "met": middle >= goal,
        "pairs": len(ratios),
        "quartiles": [round(low, 3), round(high, 3)],
        "seconds_ours": round(statistics.median(ours), 3),
        "seconds_harness": round(statistics.median(theirs), 3),
    }


def option_agreement(items: Sequence[Line], scores: Sequence[Sequence[float]], labels: Sequence[str]) -> Line:
    """How many items have the same option picked."""
    picks = [labels[max(range(len(row)), key=row.__getitem__)] for row in scores]
    agree = sum(item["prediction"] == pick for item, pick in zip(items, picks, strict=True))
    right = [row[labels.index(item["gold"])] for item, row in zip(items, scores, strict=True)]
    return {"items": len(items), "agree": agree, "largest_difference": largest_difference(items, right)}


def largest_difference(items: Sequence[Line], likelihoods: Sequence[float]) -> float:
    """Largest difference of an item's log-likelihood of the right answer, in nats."""
    ours: list[float] = [-item["loss"] * item["units"] for item in items]
    return max(abs(a - b) for a, b in zip(ours, likelihoods, strict=True))


def text_agreement(items: Sequence[Line], texts: Sequence[str], complete: Callable[[str], bool]) -> Line:
    """How many items have the same text; the harness writes on where ours ends, at a complete answer."""
    pairs = [(item["output"], text) for item, text in zip(items, texts, strict=True)]
    agree = sum(text == output or (complete(output) and text.startswith(output)) for output, text in pairs)
    return {"items": len(items), "agree": agree, "complete": sum(complete(output) for output, _ in pairs)}


ROWS: dict[str, tuple[Callable[[Ours, Any, int, int], Iterator[Line]], Sequence[str], int]] = {  # the last: parts
    OPTIONS: (compare_options, ("task=boolq", "task.test_size=200", "task.max_length=1024"), 4),  # cuts no passage
    GENERATION: (compare_generation, ("task=gsm8k", "task.test_size=50", "task.max_new_tokens=64"), 2),
}
SMALLEST = ("task.train_size=1", "task.validation_size=1")  # splits that no row looks at


def measure(row: str, data: Path | None, rounds: int) -> Iterator[Line]:
    """The lines of a row."""
    compare, overrides, parts = ROWS[row]
    start: Line = {"row": row, "model": "smollm2-135m"}
    try:
        if data is None:
            raise ModelError(f"the folder with its data is not named: --{'boolq' if row == OPTIONS else 'gsm8k'} DIR")
        with tempfile.TemporaryDirectory() as folder:
            ours = Ours(Path(folder), "model=smollm2-135m", f"task.data_dir={data.resolve()}", *SMALLEST, *overrides)
            base, _ = locate(ours.run.config.model, None)
            harness = Harness(base, ours.adapter, ours.batch_size, str(ours.run.accelerator.device))
            for line in compare(ours, harness, parts, rounds):
                yield {**start, **line, "batch": ours.batch_size}
    except (ModelError, ModuleNotFoundError) as error:
        yield {**start, "skipped": str(error)}


def main(arguments: list[str] | None = None) -> None:
    """Print the lines of the rows asked for."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/evaluation.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"{' or '.join(ROWS)}; both if none is given")
    parser.add_argument("--boolq", type=Path, help="folder with BoolQ's train and validation files")
    parser.add_argument("--gsm8k", type=Path, help="folder with GSM8K's train and test files")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each part is evaluated (default 1)")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"row {min(unknown)!r} is unknown; rows are {', '.join(ROWS)}")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    disable_progress_bar()  # type: ignore[no-untyped-call]
    for row in options.rows or ROWS:
        load = round(os.getloadavg()[0], 2)  # before the row
        for line in measure(row, options.boolq if row == OPTIONS else options.gsm8k, options.rounds):
            print(json.dumps({**line, "threads": options.threads, "precision": "fp32", "load": load}), flush=True)


if __name__ == "__main__":
    main()
