"""What is checked of a model and its data before the first step, in a few small passes that no meter sees.

Each check compares what the model does with what training and evaluation take for granted; a run whose numbers would
mean something else ends here, with a sentence that names the model, the reason and the way out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rankbench.config.sections import Config
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site, parse_site
from rankbench.models.errors import ModelError
from rankbench.models.loading import LoadedModel
from rankbench.tasks.base import Batch, Example, Task
from rankbench.tasks.text.encoder_decoder import decoder_sees_future, goes_on
from rankbench.tasks.text.reading import accepts, base_of, reading_of, rounding
from rankbench.training.engine import predictions

LOOKED_AT = 64  # training examples among which two short ones of unlike length are chosen
LEARNED = re.compile(r"^(?!.*rel).*(wpe$|position|pos_emb)")  # name of a table with an embedding per position
ASIDE = 8  # rows that such a table may have for other purposes
SHOWN = 8  # names in a message


@torch.no_grad()
def check_model(loaded: LoadedModel, task: Task, config: Config) -> list[str]:
    """Check a model in evaluation mode, on its device, with the task's data read; random streams are not touched.

    Where the task's data asks for it, token types are dropped from its examples and the tokenizer's padding side is
    set, which an encoder's batches follow.

    Returns:
        Sentences on what was found and changed, for the record.

    Raises:
        ModelError: the model cannot be trained or scored on this data as the run would do it.
    """
    name = config.model.path or config.model.name
    with Streams(0).ambient("eval", "checks"):
        _refuse_tokens(loaded, task, name)
        notes = _drop_token_types(loaded.model, task, name)
        notes += _refuse_lengths(loaded, task, name)
        _refuse_stretching(loaded, task, name, config)
        _refuse_future(loaded, name)
        short, long = _unlike(task.splits["train"])
        reached = _reached(loaded.model, loaded.sites, task, _batch(loaded.model, task, [short, long]))
        notes += _refuse_unreached(loaded.sites, reached, name)
        notes += _refuse_padding(loaded, task, (short, long), config)
    return notes


def _batch(model: nn.Module, task: Task, examples: Sequence[Example]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {key: value.to(device) for key, value in task.collate(examples).items()}


def _unlike(examples: Sequence[Example]) -> tuple[Example, Example]:
    """The shortest of the first examples, and one that is longer by a few tokens, or as long where all are alike.

    Its target, where an encoder-decoder writes one, is longer, too, if such an example is there.
    """
    by_length = sorted(examples[:LOOKED_AT], key=lambda example: (len(example.input_ids), _target(example)))
    short, longest = by_length[0], by_length[-1]
    few = [example for example in by_length if len(example.input_ids) >= len(short.input_ids) + 4] or [longest]
    return short, next((example for example in few if _target(example) > _target(short)), few[0])


def _reached(model: nn.Module, sites: Sequence[Site], task: Task, batch: Batch) -> dict[str, bool]:
    """The sites that a batch's loss depends on, each with whether it puts out one tensor, as an adapter needs it.

    A zero is added to what each site puts out: the loss has a gradient with respect to it, or does not depend on it.
    """
    composite: set[str] = set()
    zeros: list[tuple[str, Tensor]] = []

    def add_zero(module: nn.Module, inputs: Any, output: Any, name: str) -> Tensor | None:
        if not isinstance(output, Tensor):
            composite.add(name)
            return None
        zeros.append((name, output.new_zeros((), requires_grad=True)))
        return output + zeros[-1][1]

    modules = dict(model.named_modules())
    hooks = [modules[site.name].register_forward_hook(partial(add_zero, name=site.name)) for site in sites]
    with torch.enable_grad():
        loss = task.loss(model, batch)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, [zero for _, zero in zeros], allow_unused=True) if zeros else ()
    used = {name for (name, _), gradient in zip(zeros, gradients, strict=True) if gradient is not None}
    return {**dict.fromkeys(used, True), **dict.fromkeys(composite, False)}


def _refuse_tokens(loaded: LoadedModel, task: Task, name: str) -> None:
    """A token without an embedding, such as one that a chat template brings, would end the run in one of its passes."""
    base: Any = base_of(loaded.model)
    rows, answers_in_text = base.get_input_embeddings().num_embeddings, loaded.architecture != "encoder"
    for example in (example for split in task.splits.values() for example in split):
        learned = example.labels if answers_in_text and isinstance(example.labels, tuple) else ()
        largest = max(map(max, filter(None, (example.input_ids, learned, *example.options))), default=-1)
        if largest >= rows:
            token = loaded.tokenizer.convert_ids_to_tokens(largest)
            raise ModelError(
                f"{name} has embeddings for {rows} tokens, and its tokenizer writes {token!r}, which is in "
                f"{example.item['id']}, as number {largest}; give a folder whose tokenizer is that of its weights"
            )


def _drop_token_types(model: nn.Module, task: Task, name: str) -> list[str]:
    """Take the segments off the examples where the model has no embedding for them."""
    largest = max((max(e.segments, default=-1) for split in task.splits.values() for e in split), default=-1)
    if largest < 0:
        return []
    types = getattr(base_of(model).config, "type_vocab_size", None)
    if accepts(model, "token_type_ids") and (types is None or largest < types):
        return []
    for split, examples in task.splits.items():
        task.splits[split] = [replace(example, segments=()) for example in examples]
    return [f"{name} has no token types: those that the tokenizer makes for pairs of texts are left out"]


def _refuse_future(loaded: LoadedModel, name: str) -> None:
    """A language model that sees what it is asked to predict is scored on answers that it has read.

    How the model can be read on is tried here as well, so that it is settled before the first step.
    """
    sees = False
    if loaded.architecture == "decoder":
        sees = not reading_of(loaded.model).causal
    elif loaded.architecture == "encoder_decoder":
        goes_on(loaded.model)
        sees = decoder_sees_future(loaded.model)
    if sees:
        raise ModelError(
            f"{name} sees the future: what it predicts for a token changes with a later token, so that losses and "
            "options would be scored by a model that has read the answer; take a causal language model, or train this "
            "one as model.architecture=encoder"
        )


def _refuse_unreached(sites: Sequence[Site], reached: dict[str, bool], name: str) -> list[str]:
    """Sites that the loss does not depend on would take budget and learn nothing; experts may serve other texts."""
    composite = [site.name for site in sites if not reached.get(site.name, True)]
    if composite:
        raise ModelError(
            f"{name}: {len(composite)} sites ({_kinds(composite)}) are layers that put out more than a product with "
            "their weight, which no adapter can be added to; leave them out by "
            f"model.exclude=[{', '.join(_ends(composite))}]"
        )
    siblings = {_any_expert(site) for site in reached} - {None}
    idle = [site.name for site in sites if site.name not in reached]
    never = [site for site in idle if _any_expert(site) not in siblings]
    if never:
        modules = list(dict.fromkeys(_idle_part(site, reached) for site in never))
        exclude = ", ".join(modules[:SHOWN])
        raise ModelError(
            f"{name}: the loss does not depend on {len(never)} of the {len(sites)} sites ({_kinds(never)}), which "
            f"would get budget and learn nothing; leave them out by model.targets or model.exclude=[{exclude}"
            f"{', ...' if len(modules) > SHOWN else ''}]"
        )
    if idle:
        return [f"{len(idle)} of {len(sites)} sites are experts that the first training batch does not reach"]
    return []


def _any_expert(site: str) -> str | None:
    """The name with * for its last number, so that the experts of a layer are alike; None where a layer is all."""
    parts = site.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    if len(numbers) < 2:
        return None
    parts[numbers[-1]] = "*"
    return ".".join(parts)


def _idle_part(site: str, reached: Collection[str]) -> str:
    """What names the site and no reached one: its last name, or else the outermost module of its path."""
    parts = site.split(".")
    if not parts[-1].isdigit() and parts[-1] not in _ends(reached):
        return parts[-1]
    paths = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(path for path in paths if not any(other.startswith(f"{path}.") for other in reached))


def _ends(sites: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(site.rpartition(".")[2] for site in sites))


def _kinds(sites: Sequence[str]) -> str:
    counts = Counter(parse_site(site)[1] for site in sites)
    shown = [f"{kind} ({count})" for kind, count in counts.most_common(SHOWN)]
    return ", ".join([*shown, *(["..."] if len(counts) > SHOWN else [])])


def _refuse_padding(loaded: LoadedModel, task: Task, pair: tuple[Example, Example], config: Config) -> list[str]:
    """A text must get the same output alone and in a batch; an encoder that needs padding on the left gets it."""
    name, train = config.model.path or config.model.name, config.train
    loaded.tokenizer.padding_side = "right"
    alike = len({(len(example.input_ids), _target(example)) for example in pair}) == 1
    if alike or _same_in_batch(loaded.model, task, pair):
        return []
    if loaded.architecture == "encoder":
        loaded.tokenizer.padding_side = "left"
        if _same_in_batch(loaded.model, task, pair):
            return [f"{name} is padded on the left, since its output changes with padding on the right"]
    if train.eval_batch_size == 1 == train.micro_batch_size:
        return [f"{name} gives a text another output in a batch, so it stays right only with one text per pass"]
    raise ModelError(
        f"{name} gives a text another output in a batch, beside a longer one, whichever side is padded, so that its "
        "numbers would depend on batch sizes; set train.eval_batch_size=1 and train.micro_batch_size=1, or take "
        "another model"
    )


def _same_in_batch(model: nn.Module, task: Task, pair: tuple[Example, Example]) -> bool:
    """Whether the first example's output is the same alone and beside the second, up to rounding."""
    alone = predictions(model, task, _batch(model, task, pair[:1]))
    both = predictions(model, task, _batch(model, task, pair))
    beside = both[tuple(slice(size) for size in alone.shape)].float()  # its rows and positions come first
    size = both.float().square().mean().sqrt()
    return bool((alone.float() - beside).square().mean().sqrt() <= rounding(alone.dtype) * size)


def _refuse_lengths(loaded: LoadedModel, task: Task, name: str) -> list[str]:
    """Texts and answers longer than the positions of the model; a soft limit is noted."""
    model, settings = loaded.model, task.config
    longest, answered = _lengths(loaded, task)
    new = getattr(settings, "max_new_tokens", 0)
    limit, hard = _positions(model)
    if limit is None or max(longest, answered) <= limit:
        return []
    if longest > limit:
        what = f"task.max_length={getattr(settings, 'max_length', longest)} is above the {limit} positions of {name}"
        way = f"its longest text has {longest} tokens; set task.max_length={limit}"
    else:
        what = f"task.max_new_tokens={new} after a prompt of {answered - new} tokens is above the {limit} positions of "
        what, way = what + name, "lower task.max_new_tokens or task.max_length"
    if hard or not _bears(loaded, max(longest, answered)):
        raise ModelError(f"{what}: {way}")
    return [f"{what}, which it was trained with"]


def _refuse_stretching(loaded: LoadedModel, task: Task, name: str, config: Config) -> None:
    """Texts beyond a length at which a model changes the angles of all positions, of every text in the batch.

    With dynamic scaling the angles depend on earlier batches, too (transformers 5.23).
    """
    length = max(_lengths(loaded, task))
    for module in loaded.model.modules():
        types: Any = getattr(module, "rope_type", None)
        settings: Any = getattr(module, "config", None)
        for layer, rope in types.items() if isinstance(types, dict) else [(None, types)]:
            if rope == "dynamic":
                limit, way_out = module.original_max_seq_len, ""
            elif rope == "longrope":
                parameters = settings.rope_parameters if layer is None else settings.rope_parameters[layer]
                limit = parameters["original_max_position_embeddings"]
                way_out = ", or train.eval_batch_size=1 and train.micro_batch_size=1"
            else:
                continue
            alone = way_out and config.train.eval_batch_size == 1 == config.train.micro_batch_size
            if length > limit and not alone:
                raise ModelError(
                    f"{name}: its rotary positions ({rope}) change for all texts of a batch once one has more than "
                    f"{limit} tokens, and here are up to {length}, so that numbers would depend on which texts are "
                    f"read together; set task.max_length={limit}{way_out}"
                )


def _lengths(loaded: LoadedModel, task: Task) -> tuple[int, int]:
    """Tokens of the longest example, and of the longest prompt with its answer."""
    examples = [example for split in task.splits.values() for example in split]
    longest = max(max(len(example.input_ids), _target(example)) for example in examples)
    prompts = [0 if loaded.architecture == "encoder_decoder" else example.prompt_length for example in examples]
    return longest, max(prompts) + getattr(task.config, "max_new_tokens", 0)


def _target(example: Example) -> int:
    return len(example.labels) if isinstance(example.labels, tuple) else 0


def _positions(model: nn.Module) -> tuple[int | None, bool]:
    """Positions of the model, and whether they are a table of embeddings, which ends there."""
    base: Any = base_of(model)
    text = base.config.get_text_config()
    values = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    positions = next((value for value in values if isinstance(value, int) and value > 0), None)
    if positions is None:
        return None, False
    tables = [
        module.num_embeddings - getattr(module, "offset", 0) - (0 if module.padding_idx is None else 1 + pad)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and LEARNED.search(name.rpartition(".")[2])
        if positions <= module.num_embeddings <= positions + ASIDE  # a table for images has another size
        for pad in [module.padding_idx or 0]  # RoBERTa's first position comes after it
    ]
    return min([*tables, positions]), bool(tables)


def _bears(loaded: LoadedModel, length: int) -> bool:
    """Whether the model can read, and an encoder-decoder write, a text of this length: stored angles may end."""
    model = loaded.model
    ids = torch.ones(1, length, dtype=torch.long, device=next(model.parameters()).device)
    target = {"decoder_input_ids": ids} if loaded.architecture == "encoder_decoder" else {}
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **target)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError):
        return False
    return True
