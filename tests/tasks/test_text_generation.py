"""Instruction data and summaries: what is learned, what is written, and how it is scored."""

import functools
import math
from types import SimpleNamespace

import datasets
import pytest
import sacrebleu
import torch
from support.texts import byte_tokenizer, decoder, evaluate, task, word_tokenizer, write
from tokenizers import processors
from transformers import BartConfig, BartForConditionalGeneration

from rankbench.core.seeding import Streams
from rankbench.tasks.base import IGNORE, DataError
from rankbench.tasks.text import dataset_files
from rankbench.tasks.text.conversations import conversation
from rankbench.tasks.text.overlap import bleu4, rouge
from rankbench.tasks.text.tokens import prompt_hash

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = (
    "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}"
    "{% if not add_generation_prompt %} {{ messages[-1].content }}{% endif %}"
)
THINKING = CHAT.replace(
    "assistant\n{%", "assistant\n{% if not enable_thinking|default(true) %}<think></think>{% endif %}{%"
)
THINKING = THINKING.replace("{{ m.content }}", "{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
DROPS_SYSTEM = CHAT.replace("in messages", "in messages if m.role != 'system'")
SIZES = {"validation_size": 3, "test_size": 4, "generation_size": 2, "max_new_tokens": 6}


@functools.cache
def model(vocabulary: int = 260):
    return decoder(vocabulary)


def chatting(template: str | None = CHAT):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def orca(count: int = 12, **changes):
    rows = [{"system_prompt": "", "question": f"What is {i}+1?", "response": f"It is {i + 1}."} for i in range(count)]
    return [{**row, **changes} for row in rows]


def made(name, tokenizer, architecture="decoder", **overrides):
    instance = task(name, **{**SIZES, **overrides})
    instance.load(tokenizer, architecture, Streams(0))
    return instance


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.jsonl", orca())
    return str(tmp_path)


def find(instance, item):
    return next(e for split in instance.splits.values() for e in split if e.item["id"] == item)


def learned(example):
    """The tokens with a label, as ids."""
    return [label for label in example.labels if label != IGNORE]


def test_a_response_is_learned_in_the_form_of_the_chat_template_up_to_its_mark_of_the_end(folder):
    tokenizer = chatting()
    instance = made("instruction", tokenizer, data_dir=folder)
    example = find(instance, "train/5")
    said = "<|im_start|>user\nWhat is 5+1?<|im_end|>\n<|im_start|>assistant\nIt is 6.<|im_end|>"
    assert tokenizer.decode(example.input_ids) == said
    assert tokenizer.decode(learned(example)) == "It is 6.<|im_end|>"
    assert example.labels[example.prompt_length - 1] == IGNORE
    assert example.item == {"id": "train/5", "gold": "It is 6."}
    assert instance.revision["prompt"] == prompt_hash(CHAT)
    assert instance._ends == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_without_a_template_alpacas_headings_and_the_end_token_stand(folder):
    instance = made("instruction", byte_tokenizer(), data_dir=folder)
    example = find(instance, "train/5")
    said = "### Instruction:\nWhat is 5+1?\n\n### Response:\nIt is 6.<eos>"
    assert byte_tokenizer().decode(example.input_ids) == said
    assert byte_tokenizer().decode(learned(example)) == "It is 6.<eos>"


def test_a_template_that_writes_the_date_writes_the_same_every_day(folder):
    instance = made("instruction", chatting(DATED), data_dir=folder)
    text = byte_tokenizer().decode(instance.splits["test"][0].input_ids)
    assert text.startswith("26 Jul 2024 What is")


def test_the_empty_thought_of_a_template_is_in_the_prompt_not_in_the_answer(folder):
    tokenizer = chatting(THINKING)
    example = find(made("instruction", tokenizer, data_dir=folder), "train/5")
    assert tokenizer.decode(example.input_ids[: example.prompt_length]).endswith("assistant\n<think></think>")
    assert tokenizer.decode(learned(example)) == "It is 6.<|im_end|>"


def test_a_text_that_ends_in_an_unknown_character_has_an_end_token(tmp_path):
    write(tmp_path / "train.jsonl", orca(response="the cat ☃"))
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[EOS]"})
    instance = made("instruction", tokenizer, data_dir=str(tmp_path))
    assert learned(instance.splits["train"][0])[-2:] == [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert instance._ends == {tokenizer.eos_token_id}


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_template_without_a_system_turn_has_its_text_in_the_users(tmp_path, template):
    write(tmp_path / "train.jsonl", orca(system_prompt="Be brief."))
    instance = made("instruction", chatting(template), data_dir=str(tmp_path))
    text = chatting().decode(instance.splits["train"][0].input_ids)
    assert text.startswith("<|im_start|>user\nBe brief.\n\nWhat is")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('no') }}",
            r"train.jsonl, line \d+: the tokenizer's chat template refuses the conversation: no",
        ),
        ("{{ messages | length }}", r"line \d+: the tokenizer's chat template writes the prompt '1' otherwise once"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(folder, template, message):
    with pytest.raises(DataError, match=message):
        made("instruction", chatting(template), data_dir=folder, validation_size=1, test_size=1)


def test_of_a_data_set_of_the_hub_only_the_chosen_rows_are_read(monkeypatch):
    turns = [[{"from": "human", "value": f"ask {i}"}, {"from": "gpt", "value": f"say {i}"}] for i in range(12)]
    data = datasets.Dataset.from_list([{"conversations": row} for row in turns])
    monkeypatch.setattr(datasets.Dataset, "to_list", None)
    builder = SimpleNamespace(hash="c" * 40, info=SimpleNamespace(splits=["train"]), as_dataset=lambda split: data)
    monkeypatch.setattr(dataset_files, "prepare", lambda config: builder)
    instance = made("magpie-pro", chatting(), train_size=2)
    assert [len(instance.splits[split]) for split in ("train", "validation", "test")] == [2, 3, 4]
    number = ids(instance, "train")[0].removeprefix("train/")
    assert instance.splits["train"][0].item["gold"] == f"say {number}"
    assert instance.revision["data"] == "c" * 40


USER, ANSWER = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "say"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"system_prompt": "be", "question": "ask", "response": "say"}, [{"role": "system", "content": "be"}]),
        ({"instruction": "ask", "input": "", "output": "say", "data_source": "x"}, []),
        ({"instruction": "ask", "response": "say", "conversations": []}, []),
        ({"prompt": "ask", "completion": "say"}, []),
        ({"messages": [USER, ANSWER]}, []),
        ({"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "say"}]}, []),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, [USER, ANSWER]),
    ],
)
def test_layouts(row, expected):
    assert conversation(row, "file") == [*expected, USER, ANSWER]


def test_an_input_stands_below_its_instruction():
    (user, _) = conversation({"instruction": "Add.", "input": "1, 2", "output": "3"}, "file")
    assert user["content"] == "Add.\n\n1, 2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "row 3: no conversation in its columns text; expected question and response, instruction and"),
        ({"question": "x", "response": None}, "row 3, column response: None is no text; mend or remove the row"),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            "row 3, column messages, turn 2: .*'tool'.* is no turn",
        ),
        (
            {"messages": [ANSWER, USER]},
            "column messages: the turns are assistant, user; they must end in user, assistant",
        ),
        ({"conversations": "hello"}, "column conversations: 'hello' is no list of turns"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(row, message):
    with pytest.raises(DataError, match=message):
        conversation(row, "file, row 3")


def ids(instance, split):
    return [example.item["id"] for example in instance.splits[split]]


def test_what_has_no_official_split_is_carved_out_of_train_and_the_official_ones_are_used(folder, tmp_path):
    carved = made("instruction", byte_tokenizer(), data_dir=folder)
    parts = [set(ids(carved, split)) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [5, 3, 4]
    assert set.union(*parts) == {f"train/{i}" for i in range(12)}
    smaller = made("instruction", byte_tokenizer(), data_dir=folder, train_size=2)
    assert ids(smaller, "train") == ids(carved, "train")[:2]
    assert ids(smaller, "test") == ids(carved, "test")
    write(tmp_path / "test.jsonl", orca(6))
    official = made("instruction", byte_tokenizer(), data_dir=folder, test_size=None)
    assert sorted(ids(official, "test")) == [f"test/{i}" for i in range(6)]
    assert len(ids(official, "train")) == 9
    write(tmp_path / "validation.jsonl", orca(5))
    assert len(ids(made("instruction", byte_tokenizer(), data_dir=folder), "train")) == 12


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"test_size": None}, "train.jsonl: the data set has no test split; say with task.test_size=N how many rows"),
        ({"test_size": 9}, "has 12 rows, too few for task.test_size=9, task.validation_size=3"),
        ({"train_size": 6}, "has 12 rows, too few for task.train_size=6, task.test_size=4"),
    ],
)
def test_sizes_beyond_the_data_are_refused(folder, sizes, message):
    with pytest.raises(DataError, match=message):
        made("instruction", byte_tokenizer(), data_dir=folder, **sizes)


def test_a_prompt_too_long_loses_the_beginning_of_its_text_and_a_response_its_end(tmp_path):
    write(tmp_path / "train.jsonl", [*orca(8), {"system_prompt": "", "question": "q" * 70 + "?", "response": "r" * 90}])
    instance = made("instruction", byte_tokenizer(), data_dir=str(tmp_path), max_length=96, test_size=1)
    examples = [example for split in instance.splits.values() for example in split]
    assert all(len(example.input_ids) <= 96 for example in examples)
    (long,) = [example for example in examples if "r" in example.item["gold"][:1]]
    text = byte_tokenizer().decode(long.input_ids)
    assert text.startswith("### Instruction:\nq")
    assert text.endswith("q?\n\n### Response:\n" + "r" * 48)  # half of max_length, and no end token
    counts = dict(part.split() for part in instance.revision["truncated"].split(", "))
    assert sum(map(int, counts.values())) == 1
    with pytest.raises(
        DataError, match=r"train/\d is too long for task.max_length=40, make that larger: its prompt has"
    ):
        made("instruction", byte_tokenizer(), data_dir=str(tmp_path), max_length=40, test_size=1)


def test_evaluation_scores_what_is_written_against_the_gold(folder):
    instance = made("instruction", chatting(), data_dir=folder)
    one, many = (evaluate(instance, model(), batch_size=size) for size in (1, 4))
    assert many.metrics == pytest.approx(one.metrics, rel=1e-4)
    assert [item["id"] for item in many.items] == ids(instance, "test")
    assert [item["prediction"] is None for item in many.items] == [False, False, True, True]
    total = sum(item["loss"] * item["units"] for item in many.items)
    loss = total / sum(item["units"] for item in many.items)
    assert many.metrics["loss"] == pytest.approx(loss)
    assert many.metrics["perplexity"] == pytest.approx(math.exp(loss))
    written = many.items[:2]
    assert many.metrics["bleu4"] == bleu4([item["gold"] for item in written], [item["prediction"] for item in written])
    for name in ("rouge1", "rouge2", "rougeL"):
        assert many.metrics[name] == pytest.approx(sum(item[name] for item in written) / 2)
        assert many.items[2][name] is None
    none = evaluate(made("instruction", chatting(), data_dir=folder, generation_size=0), model())
    assert set(none.metrics) == {"loss", "perplexity"}


def test_generation_stops_at_the_templates_mark_of_the_end(folder, monkeypatch):
    tokenizer = chatting()
    instance = made("instruction", tokenizer, data_dir=folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    logits = torch.full((260,), -9.0)
    logits[end] = 9.0
    net = model()
    hook = net.lm_head.register_forward_hook(lambda module, inputs, output: output * 0 + logits)
    result = evaluate(instance, net)
    hook.remove()
    assert [item["prediction"] for item in result.items[:2]] == ["", ""]
    assert result.metrics["bleu4"] == result.metrics["rougeL"] == 0


def test_scores_of_a_known_pair():
    gold, text = "The cats sat on the mat.", "the cat sat on a mat"
    assert rouge(gold, text) == pytest.approx({"rouge1": 10 / 12, "rouge2": 6 / 10, "rougeL": 10 / 12})  # stemmed
    assert bleu4([gold, gold], [gold, gold]) == pytest.approx(1)
    assert bleu4([gold], [text]) == pytest.approx(sacrebleu.corpus_bleu([text], [[gold]]).score / 100)
    assert rouge(gold, "") == {"rouge1": 0, "rouge2": 0, "rougeL": 0}


@pytest.fixture
def news(tmp_path):
    for split, count in (("train", 6), ("validation", 4), ("test", 3)):
        rows = [{"document": f"Article {i}. " + "word " * i, "summary": f"Sum {i}."} for i in range(count)]
        write(tmp_path / f"{split}.jsonl", rows)
    return {"data_dir": str(tmp_path), "test_size": None, "max_length": 64, "max_target_length": 10}


def test_a_decoder_summarises_after_a_prompt_and_keeps_the_beginning_of_the_article(news):
    instance = made("xsum", byte_tokenizer(), **news, train_size=3)
    assert [len(instance.splits[split]) for split in ("train", "validation", "test")] == [3, 3, 3]
    example = find(instance, "test/2")
    assert byte_tokenizer().decode(example.input_ids) == "Article 2. word word \nTL;DR: Sum 2.<eos>"
    short = made("xsum", byte_tokenizer(), **{**news, "max_length": 32, "max_target_length": 5})
    texts = {byte_tokenizer().decode(e.input_ids) for split in short.splits.values() for e in split}
    assert "Article 3. word word\nTL;DR: Sum " in texts
    assert all(len(text) <= 32 for text in texts)


def test_an_encoder_decoder_reads_the_article_alone_and_its_loss_is_that_of_transformers(news):
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 257)]
    )
    config = BartConfig(
        vocab_size=258,
        d_model=16,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
        max_position_embeddings=80,
        init_std=0.3,
        **{"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 257, "decoder_start_token_id": 257},
        forced_eos_token_id=None,
    )
    with Streams(0).ambient("init"):
        net = BartForConditionalGeneration(config).eval().requires_grad_(False)
    instance = made("xsum", tokenizer, "encoder_decoder", **news)
    example = instance.splits["test"][0]
    number = example.item["id"].removeprefix("test/")
    assert tokenizer.decode(example.input_ids).startswith(f"Article {number}. ")
    assert tokenizer.decode(learned(example)) == f"Sum {number}.<eos>"
    batch = instance.collate([example])
    assert float(instance.loss(net, batch)) == pytest.approx(float(net(**batch).loss) * instance.units(batch), rel=1e-4)
    result = evaluate(instance, net)
    assert len(result.items) == 3
    assert result.items[0]["prediction"] is not None


def test_a_text_that_is_none_is_named(news, tmp_path):
    write(tmp_path / "test.jsonl", [{"document": "x", "summary": "y"}, {"document": 5, "summary": "y"}])
    with pytest.raises(DataError, match=r"test.jsonl, line 2.*document.*5"):
        made("xsum", byte_tokenizer(), **news)


def test_an_encoder_is_refused(folder):
    with pytest.raises(DataError, match="task=instruction is answered in words: use a decoder or an encoder_decoder"):
        made("instruction", byte_tokenizer(), "encoder", data_dir=folder)
