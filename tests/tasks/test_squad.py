"""SQuAD: both file formats, windows and their labels, the best span, the official scores, and the head."""

import json
from types import SimpleNamespace

import pytest
import torch
from support.harness import configure
from support.texts import WORDS, evaluate, task, word_tokenizer, write
from tokenizers import models, pre_tokenizers
from transformers import BertConfig, BertForQuestionAnswering, BertModel

from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text.spans import Question, Spans, exact_match, f1
from rankbench.training.assembly import assemble

CONTEXT = "the dog sat on a log and the cat ran under the mat"
SIZES = {"validation_size": 2, "max_length": 64, "stride": 8}
SHAPE = {
    **{"vocab_size": len(WORDS) + 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 16, "max_position_embeddings": 64, "initializer_range": 0.3},
}


def row(answer="log", start=None, question="who sat", context=CONTEXT):
    texts = [answer] if answer else []
    starts = [context.index(answer) if start is None else start] if answer else []
    return {"question": question, "context": context, "answers": {"text": texts, "answer_start": starts}}


def write_flat(folder, train, validation):
    write(folder / "train.jsonl", train)
    write(folder / "validation.jsonl", validation)
    return str(folder)


def write_official(file, rows):
    def question(values, number):
        pairs = zip(values["answers"]["text"], values["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        return {"id": str(number), "question": values["question"], "answers": answers, "is_impossible": not answers}

    paragraphs = [{"context": values["context"], "qas": [question(values, i)]} for i, values in enumerate(rows)]
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))


def loaded(folder, version=1, architecture="encoder", **overrides):
    instance = task(f"squad-v{version}", **{**SIZES, "data_dir": str(folder), **overrides})
    instance.load(word_tokenizer(), architecture, Streams(0))
    return instance


@pytest.fixture(scope="module")
def model():
    with Streams(0).ambient("init"):
        return BertForQuestionAnswering(BertConfig(**SHAPE)).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path):
    write_flat(tmp_path, [row(word) for word in ("log", "cat", "mat", "dog", "ran")], [row("log"), row("the cat")])
    return tmp_path


def test_official_files_and_the_hubs_columns_give_the_same_examples(tmp_path):
    train, test = [row("log"), row("cat"), row(None), row("mat")], [row("a log"), row(None)]
    write_flat(tmp_path, train, test)
    flat = loaded(tmp_path, version=2)
    write_official(tmp_path / "train-v2.0.json", train)
    write_official(tmp_path / "dev-v2.0.json", test)
    official = loaded(tmp_path, version=2)
    assert official.splits == flat.splits
    assert official.revision != flat.revision
    assert sorted(e.item["id"] for e in official.splits["test"]) == ["validation/0", "validation/1"]
    assert sorted(e.item["gold"] for e in official.splits["test"]) == [[], ["a log"]]


def test_a_long_context_is_read_in_windows_that_mark_the_answer_where_it_lies_as_a_whole(folder):
    instance = loaded(folder, max_length=13, stride=3)
    windows = [e for e in instance.splits["test"] if e.item["gold"] == ["the cat"]]
    assert len(windows) == 2
    assert all(len(window.input_ids) <= 13 for window in windows)
    marked = [window for window in windows if window.labels != (window.null, window.null)]
    assert len(marked) == 1
    assert instance._spans.text(marked[0], marked[0].labels) == "the cat"
    assert [window.labels for window in windows if window not in marked] == [(0, 0)]
    first, second = (instance._spans.text(window, (window.first, window.last)).split() for window in windows)
    assert first[-3:] == second[:3]  # the stride
    assert first + second[3:] == CONTEXT.split()
    assert instance.revision["windowed"] == "train 3, validation 2, test 2"


def test_tokens_that_begin_with_a_blank_mark_the_same_answer():
    """As DeBERTa-v3's tokens do."""
    tokenizer = word_tokenizer()
    vocabulary = {**tokenizer.get_vocab(), **{f"\u2581{word}": 20 + index for index, word in enumerate(WORDS)}}
    tokenizer._tokenizer.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    spans = Spans(tokenizer, 64, 8, 30)
    question = Question("q", "who sat", CONTEXT, ((CONTEXT.index("the cat"), "the cat"),))
    ((window,),) = spans.windows([question])
    assert tokenizer.convert_ids_to_tokens(window.input_ids[window.labels[0]]) == "\u2581the"
    assert spans.text(window, window.labels) == "the cat"


def test_the_loss_is_that_of_transformers_and_padding_changes_nothing(folder, model):
    instance = loaded(folder)
    batch = instance.collate(instance.splits["test"])
    assert set(batch) == {"input_ids", "attention_mask", "labels", "token_type_ids"}
    starts, ends = batch["labels"].T
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    expected = float(model(**inputs, start_positions=starts, end_positions=ends).loss)
    assert float(instance.loss(model, batch)) == pytest.approx(expected * instance.units(batch), rel=1e-5)
    short = loaded(folder, max_length=13, stride=3)
    one, many = (evaluate(short, model, batch_size=size) for size in (1, 4))
    assert many.metrics == pytest.approx(one.metrics, rel=1e-4)
    assert [item["units"] for item in many.items] == [2, 2]
    total = sum(item["loss"] * item["units"] for item in many.items)
    assert many.metrics["loss"] == pytest.approx(total / 4)


class Marker(torch.nn.Module):
    """Marks a token that begins and one that ends the answer, and [CLS] with the logit `silence`."""

    def __init__(self, begin, end, silence):
        super().__init__()
        self.ids = [word_tokenizer().convert_tokens_to_ids(word) for word in (begin, end)]
        self.silence, self.anchor = silence, torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **_):
        logits = [(input_ids == token) * 5.0 + (input_ids == 2) * self.silence for token in self.ids]
        return SimpleNamespace(start_logits=logits[0], end_logits=logits[1])


@pytest.mark.parametrize(
    ("version", "silence", "limit", "prediction"),
    [(2, 4.0, 30, "cat ran under"), (2, 6.0, 30, ""), (1, 6.0, 30, "cat ran under"), (2, 2.0, 2, "cat")],
)
def test_the_prediction_is_the_best_span_of_all_windows_unless_silence_is_likelier(
    folder, version, silence, limit, prediction
):
    instance = loaded(folder, version, max_length=13, stride=3, max_answer_length=limit)
    result = evaluate(instance, Marker("cat", "under", silence))
    assert [item["prediction"] for item in result.items] == [prediction, prediction]
    item = next(item for item in result.items if item["gold"] == ["the cat"])
    assert item["correct"] == (prediction == "cat")
    assert item["f1"] == pytest.approx({"": 0, "cat": 1, "cat ran under": 0.5}[prediction])
    assert result.metrics["f1"] == pytest.approx(sum(item["f1"] for item in result.items) / 2)


@pytest.mark.parametrize(
    ("gold", "predicted", "match", "score"),
    [
        (["The Cat!"], "cat", True, 1.0),
        (["a big cat", "dog"], "dog", True, 1.0),
        (["big black cat"], "black cat", False, 0.8),
        ([], "", True, 1.0),
        ([], "cat", False, 0.0),
        (["cat"], "", False, 0.0),
        (["cat cat"], "cat cat cat", False, 0.8),
    ],
)
def test_official_scores(gold, predicted, match, score):
    assert exact_match(gold, predicted) is match
    assert f1(gold, predicted) == pytest.approx(score)


def test_a_position_off_by_a_character_is_mended_and_one_far_off_is_refused(folder):
    right = CONTEXT.index("log")
    write_flat(folder, [row("log", right + off) for off in (-2, -1, 0, 1, 2)], [row()])
    instance = loaded(folder)
    windows = [*instance.splits["train"], *instance.splits["validation"]]
    assert {instance._spans.text(window, window.labels) for window in windows} == {"log"}
    write_flat(folder, [row(), row(), row("log", right + 3)], [row()])
    with pytest.raises(
        DataError, match=r"train.jsonl, line 3, column answers: 'log' does not stand at \d+ of the context"
    ):
        loaded(folder, validation_size=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answers": {"text": [], "answer_start": []}}, "line 1, column answers: there is none; .* in task=squad-v2"),
        ({"answers": {"text": ["log"]}}, "line 1, column answers: expected lists text and answer_start"),
        ({"answers": {"text": ["log"], "answer_start": []}}, "expected lists text and answer_start of one length"),
        ({"context": " "}, "line 1, column context: there is no text; mend"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder, changed, message):
    write(folder / "validation.jsonl", [{**row(), **changed}])
    with pytest.raises(DataError, match=message):
        loaded(folder)


def test_official_files_that_cannot_be_used_are_named(tmp_path):
    write_official(tmp_path / "train-v1.1.json", [row()] * 4)
    with pytest.raises(DataError, match=r"dev-v1.1.json cannot be read \(No such file"):
        loaded(tmp_path)
    dev = tmp_path / "dev-v1.1.json"
    dev.write_text('{"data":\n[}')
    with pytest.raises(DataError, match=r"dev-v1.1.json, line 2: not JSON"):
        loaded(tmp_path)
    dev.write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"dev-v1.1.json has no list under 'data'"):
        loaded(tmp_path)
    dev.write_text('{"data": [{"paragraphs": [{"context": "x"}]}]}')
    with pytest.raises(DataError, match=r"dev-v1.1.json, after 0 questions: no 'qas'"):
        loaded(tmp_path)


def test_what_cannot_mark_a_span_is_refused(folder):
    with pytest.raises(DataError, match="task=squad-v1 marks a span of a text: use an encoder, not a decoder"):
        loaded(folder, architecture="decoder")
    with pytest.raises(DataError, match=r"train/0: the question has 6 tokens: no room is left for task.stride=8 in"):
        loaded(folder, max_length=8)
    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    with pytest.raises(DataError, match=r"cannot mark an answer in a text: that needs a \[CLS\] token, padding on the"):
        Spans(tokenizer, 64, 8, 30)


def test_the_head_is_that_of_a_span_whatever_the_model_names_for_classes(folder, tmp_path):
    weights = tmp_path / "model"
    BertModel(BertConfig(**SHAPE)).save_pretrained(weights)
    word_tokenizer().save_pretrained(weights)
    sizes = [f"task.{key}={value}" for key, value in SIZES.items()]
    words = ["model=minilm-l6", f"model.path={weights}", "task=squad-v1", f"task.data_dir={folder}", *sizes]
    config = configure(tmp_path, *words)
    assert config.model.head == ["classifier"]
    assembly = assemble(config)
    assert assembly.loaded.head == ("qa_outputs",)
    assert len(assembly.sites) == 6
    assembly.task.loss(assembly.adapters.model, assembly.task.collate(assembly.task.splits["train"])).backward()
    head = assembly.loaded.model.qa_outputs
    assert any(parameter.grad is not None for parameter in head.parameters())
