"""Which architectures of transformers run with which methods, each run held against plain transformers + PEFT.

python benchmarks/architectures.py --out docs/architectures.md [--only NAME ...] [--methods NAME ...]

Every architecture is a tiny random model in a folder of its own. A run of a few steps works where it ends ok and its
exported adapter, read by plain PEFT on the plain model, has the same loss on every test item and generates the same
answers; where the ranks stay uniform (lora), a plain training loop from the same factors has the same losses as well.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from architecture_list import architectures
from architecture_page import Table
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

from rankbench.config import registry
from rankbench.config.overrides import one_run
from rankbench.config.sections import Config
from rankbench.core.seeding import Streams
from rankbench.records.record import run_id
from rankbench.tasks.base import IGNORE, Example, Task
from rankbench.training.assembly import assemble
from rankbench.training.run import execute
from rankbench.training.trainer import examples_of_step

METHODS = ("lora", "adalora", "igu", "fim", "l1ra", "gora")
AUTO: dict[str, Any] = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder_decoder": transformers.AutoModelForSeq2SeqLM,
    "encoder": transformers.AutoModelForSequenceClassification,
}
TOLERANCE = 1e-4  # of a loss
LONGEST = 400  # characters of a sentence on the page
NEW_TOKENS = 4  # largest length of an answer
SETTINGS = [
    *("model=tiny", "model.targets=[all-linear]", "train=smoke", "budget=r2", "train.steps=6", "train.batch_size=4"),
    *("train.learning_rate=0.01", "train.schedule=constant", "train.warmup_share=0", "train.weight_decay=0"),
    *("train.max_grad_norm=null", "train.evaluate_before=false", "train.threads=1"),
]
WORDS = ["task=arithmetic", "task.train_size=32", "task.validation_size=2", "task.test_size=2"]
CHOICE = ["task=glue-rte", "task.validation_size=2"]
PAIRS = [("The cat sat on the mat.", "A cat sat."), ("A dog ran.", "The dog was on the log, and it was good.")]


@dataclass(frozen=True)
class Subject:
    """One architecture.

    Attributes:
        kind: "decoder", "encoder_decoder" or "encoder".
        name: model type of transformers.
        folder: model and tokenizer.
    """

    kind: str
    name: str
    folder: Path

    @classmethod
    def make(cls, kind: str, name: str, settings: dict[str, Any], folder: Path) -> Subject:
        """Write a tiny random model, without dropout, whose logits differ enough to be told apart."""
        config = transformers.AutoConfig.for_model(name, **settings)
        for key in vars(config):
            if "drop" in key and isinstance(getattr(config, key), float):
                setattr(config, key, 0.0)
        with Streams(0).ambient("init", "base"):
            model = AUTO[kind].from_config(config)
            for parameter in model.parameters():
                if parameter.dim() > 1 and parameter.std() > 0:
                    parameter.data.mul_(0.15 / parameter.std())
        if model.can_generate():  # no token is forced
            model.generation_config.forced_bos_token_id = model.generation_config.forced_eos_token_id = None
        model.save_pretrained(folder)
        tokenizer(kind).save_pretrained(folder)
        return cls(kind, name, folder)

    def plain(self) -> Any:
        """The model as transformers reads it."""
        labels = {"num_labels": 2} if self.kind == "encoder" else {}
        return AUTO[self.kind].from_pretrained(self.folder, dtype=torch.float32, **labels).eval()

    def head(self) -> list[str]:
        """Modules of a classifier that stand beside its base model."""
        if self.kind != "encoder":
            return []
        model = self.plain()
        tops = [name for name, module in model.named_children() if name != model.base_model_prefix]
        return [name for name in tops if any(True for _ in model.get_submodule(name).parameters())]

    def config(self, method: str, results: Path, data: Path) -> Config:
        """Configuration of a run."""
        plain = composed(self.kind, method, data)
        plain["model"] |= {"path": str(self.folder), "head": self.head()}
        return Config.from_plain({**plain, "results_dir": str(results)})


def composed(kind: str, method: str, data: Path) -> dict[str, Any]:
    """Plain configuration of the runs of one kind of model."""
    return copy.deepcopy(_composed(kind, method, data))


@functools.cache
def _composed(kind: str, method: str, data: Path) -> dict[str, Any]:
    task = [*CHOICE, f"task.data_dir={data}"] if kind == "encoder" else [*WORDS, f"task.max_new_tokens={NEW_TOKENS}"]
    return one_run([*SETTINGS, *task, f"model.architecture={kind}", f"method={method}"]).config.plain()


def tokenizer(kind: str) -> Any:
    """One token per byte, after <bos>, <pad> and <eos>; a text ends with <eos> where it is one by itself."""
    vocabulary = {
        token: i for i, token in enumerate(["<bos>", "<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if kind != "decoder":
        backend.post_processor = processors.TemplateProcessing(
            single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])]
        )
    wrap: Any = transformers.PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend, bos_token="<bos>", pad_token="<pad>", eos_token="<eos>")


def write_pairs(folder: Path) -> Path:
    """Files of a task with two sentences and two classes."""
    for split, count in (("train", 18), ("validation", 3)):
        rows = [
            {"sentence1": one + " " * (i % 5), "sentence2": two, "label": i % 2}
            for i in range(count)
            for one, two in [PAIRS[i % 3 % 2]]
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def outcome(subject: Subject, method: str, results: Path, data: Path) -> tuple[dict[str, Any], str]:
    """Record of a run, and "" if it works, else why not."""
    config = subject.config(method, results, data)
    execute(config)
    folder = results / "runs" / run_id(config.plain())
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    if record["status"] not in ("ok", "inert"):  # six steps are too few for some methods to decide
        return record, str(record["reason"])
    with torch.no_grad():
        wrong = compare_items(subject, config, folder)
    return record, wrong or (compare_training(subject, config, folder) if method == "lora" else "")


def loss_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean loss of a batch from the logits of plain transformers."""
    labels = batch["labels"]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if labels.dim() == 1:
        return F.cross_entropy(model(**inputs).logits, labels)
    if model.config.is_encoder_decoder:
        return F.cross_entropy(model(**inputs, labels=labels).logits.flatten(0, 1), labels.flatten())
    return F.cross_entropy(model(**inputs).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)


def compare_items(subject: Subject, config: Config, folder: Path) -> str:
    """Hold the test items of a run against its adapter in plain PEFT, one by one; what differs, or ""."""
    model = PeftModel.from_pretrained(subject.plain(), folder / "adapter").eval()
    task = load_task(subject, config)
    for line, example in zip((folder / "items.jsonl").read_text().splitlines(), task.splits["test"], strict=True):
        item, batch = json.loads(line), task.collate([example])
        loss = float(loss_of(model, batch))
        if abs(loss - item["loss"]) > TOLERANCE:
            return f"a test item has loss {item['loss']:.6f}, and {loss:.6f} in plain PEFT"
        if subject.kind == "encoder" or begins(answer(model, example), item["output"]):
            continue
        if subject.kind == "decoder" and begins(slow_answer(model, example), item["output"]):
            continue
        return f"a test item is answered {item['output']!r}, and {answer(model, example)!r} in plain PEFT"
    return ""


def begins(text: str, output: str) -> bool:
    """Whether a run's answer is the plain one, up to the line end at which the run stops."""
    return text == output or (text.startswith(output) and "\n" in output)


def load_task(subject: Subject, config: Config) -> Task:
    """The task as a run reads it."""
    task: Task = registry.get("task", config.task.name)(config.task)
    task.load(tokenizer(subject.kind), subject.kind, Streams(0))
    return task


def answer(model: Any, example: Example) -> str:
    """The text that plain transformers generates for an example, greedily and without a cache."""
    words, ids = tokenizer("decoder"), torch.tensor([example.input_ids[: example.prompt_length]])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=1,
        use_cache=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=words.all_special_ids,
    )
    tokens = output[0, 1 if model.config.is_encoder_decoder else ids.shape[1] :]
    return str(words.decode(tokens, skip_special_tokens=True))


def slow_answer(model: Any, example: Example) -> str:
    """The likeliest tokens of forward passes over the text so far.

    Some models number positions otherwise in `generate` than in the passes of training (RoBERTa).
    """
    words, ids = tokenizer("decoder"), list(example.input_ids[: example.prompt_length])
    start = len(ids)
    while len(ids) < start + NEW_TOKENS and not {*ids[start:]} & {*words.all_special_ids}:
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return str(words.decode(ids[start:], skip_special_tokens=True))


def compare_training(subject: Subject, config: Config, folder: Path) -> str:
    """Hold the losses of a run against a plain loop from the same factors; what differs, or ""."""
    ours = assemble(config)
    assert ours.adapters is not None
    settings = LoraConfig(
        r=config.budget.reference_rank or 0,
        lora_alpha=config.adapter.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        target_modules=[site.name for site in ours.sites],
        modules_to_save=list(ours.loaded.head) or None,
        task_type=ours.loaded.task_type,
    )
    model = get_peft_model(subject.plain(), settings).train()
    plain = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for name, parameter in ours.adapters.model.named_parameters():
            if parameter.requires_grad:
                plain[name].copy_(parameter)
    optimizer = torch.optim.AdamW(plain.values(), lr=config.train.learning_rate, weight_decay=0.0)
    train, streams = ours.task.splits["train"], Streams(config.seed)
    for line in (folder / "steps.jsonl").read_text().splitlines():
        row = json.loads(line)
        chosen = examples_of_step(
            len(train), config.train.batch_size, row["step"], lambda epoch: streams.numpy("data", epoch)
        )
        loss = loss_of(model, ours.task.collate([train[index] for index in chosen]))
        if abs(float(loss) - row["loss"]) > TOLERANCE:
            return f"step {row['step']} has loss {row['loss']:.6f}, and {float(loss):.6f} in a plain loop"
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return ""


def fill(table: Table, subject: Subject, methods: Sequence[str], results: Path, data: Path) -> None:
    """Run every method on an architecture and add its row; a model that is refused as such is refused once."""
    cells, notes, sites = [], [], "-"
    for method in methods:
        record, reason = outcome(subject, method, results, data)
        sentence, _, unforeseen = reason.replace(str(subject.folder), "the model").partition(" (traceback: ")
        sentence = " ".join(sentence.split())
        sentence = sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]} ..."
        sites = str(len(record["ranks"])) if record["ranks"] else sites
        notes += [note for note in record["notes"] if note not in notes and "uneven" not in note]
        refused = "fails" if unforeseen else "refused" if record["status"] == "error" else "differs"
        cells.append(f"{refused} ({table.number(sentence)})" if reason else "works")
        if reason and not record["ledger"]:
            cells = cells * len(methods)
            break
    said = ", ".join(str(table.number(note.replace(str(subject.folder), "the model"))) for note in notes)
    table.rows.setdefault(subject.kind, []).append([subject.name, sites, *cells, said])


def build(only: Iterable[str], methods: Sequence[str], see: Callable[[str], None]) -> Table:
    """The table of all architectures, or of those that are named.

    Args:
        only: "kind:name" or model types.
        see: called with each row, once it is there.
    """
    table, names = Table(TOLERANCE), set(only)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "pairs"
        data.mkdir()
        write_pairs(data)
        for kind, name, settings in architectures():
            if names and not names & {name, f"{kind}:{name}"}:
                continue
            folder = Path(place) / "model"
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                subject = Subject.make(kind, name, settings, folder)
                fill(table, subject, methods, Path(place) / "results", data)
            shutil.rmtree(folder)
            shutil.rmtree(Path(place) / "results")
            see(" | ".join(table.rows[kind][-1]))
    return table


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="model types, or KIND:NAME")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    table = build(arguments.only, arguments.methods, print)
    arguments.out.write_text(table.write(arguments.methods), encoding="utf-8")


if __name__ == "__main__":
    main()
