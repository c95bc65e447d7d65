"""Classification: by the likelihood of options or with a head; official metrics."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.texts import (
    CONF,
    WORDS,
    byte_tokenizer,
    decoder,
    encoder,
    evaluate,
    loaded,
    task,
    word_tokenizer,
    write,
    write_classification,
)

from rankbench.config import registry
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text.decoder import Decoder

OFFICIAL = {"glue-cola": "matthews", "glue-stsb": "pearson"}  # else accuracy
GLUE = sorted(file.stem for file in CONF.glob("glue-*.yaml"))
DECODER_GLUE = [name for name in GLUE if name != "glue-stsb"]


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def folder(tmp_path):
    """Settings that read the small files of a classification task."""
    return lambda name, extra=True: write_classification(tmp_path, name, extra)


@pytest.mark.parametrize("name", [*DECODER_GLUE, "boolq"])
def test_decoder_answers_by_the_likelihood_of_its_options(name, folder, model):
    made = loaded(name, **folder(name), max_length=200)
    tokenizer = byte_tokenizer()
    examples = made.splits["test"]
    options = [tokenizer(option)["input_ids"] for option in made.options]
    result = evaluate(made, model, batch_size=4)
    for example, item in zip(examples, result.items, strict=True):
        prompt = example.input_ids[: example.prompt_length]
        scores = []
        for option in options:
            logs = model(torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1)
            scores.append(sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(option)))
        gold = made.labels.index(item["gold"])
        assert example.input_ids[example.prompt_length :] == tuple(options[gold])
        assert item["prediction"] == made.labels[int(np.argmax(scores))]
        assert item["correct"] == (item["prediction"] == item["gold"])
        assert item["loss"] == pytest.approx(-scores[gold] / len(options[gold]), rel=1e-4)
    batch = made.collate(examples)
    main = [item for item in result.items if "part" not in item]
    if len(main) == len(examples):
        assert float(made.loss(model, batch)) / made.units(batch) == pytest.approx(result.metrics["loss"], rel=1e-4)
    assert OFFICIAL.get(name, "accuracy") in result.metrics


@pytest.mark.parametrize("name", [*GLUE, "boolq"])
def test_encoder_answers_through_its_head(name, folder):
    made = loaded(name, "encoder", **folder(name), max_length=32)
    net = encoder(made.num_labels())
    result = evaluate(made, net, batch_size=3)
    losses = []
    for example, item in zip(made.splits["test"], result.items, strict=True):
        inputs = {"input_ids": torch.tensor([example.input_ids]), "token_type_ids": torch.tensor([example.segments])}
        logits = net(**inputs).logits[0]
        if made.labels:
            assert item["prediction"] == made.labels[int(logits.argmax())]
            losses.append(float(F.cross_entropy(logits, torch.tensor(example.labels))))
        else:
            assert item["prediction"] == pytest.approx(float(logits[0]), rel=1e-4, abs=1e-5)
            assert item["correct"] is None
            losses.append((float(logits[0]) - example.labels) ** 2)
        assert item["loss"] == pytest.approx(losses[-1], rel=1e-4, abs=1e-6)
    batch = made.collate(made.splits["test"])
    assert made.units(batch) == len(losses)
    assert float(made.loss(net, batch)) == pytest.approx(sum(losses), rel=1e-4)
    assert OFFICIAL.get(name, "accuracy") in result.metrics


def test_a_pair_is_two_segments_and_one_text_is_one(folder):
    made = loaded("glue-rte", "encoder", **folder("glue-rte"))
    assert {1} < set(made.splits["test"][0].segments) | {1}
    assert set(made.collate(made.splits["test"])) == {"input_ids", "attention_mask", "labels", "token_type_ids"}
    alone = loaded("glue-sst2", "encoder", **folder("glue-sst2"))
    assert set(alone.splits["test"][0].segments) == {0}


def test_options_of_one_token_cost_one_sequence_each(model):
    sizes = []
    handle = model.register_forward_hook(lambda m, a, k, o: sizes.append(k["input_ids"].shape), with_kwargs=True)
    prompts = [(1, 2, 3), (4,), (5, 6)]
    one, shared, apart = (
        Decoder(256).option_scores(model, prompts, [options] * 3, 8)
        for options in ([(7,), (8,)], [(7, 9), (7, 8), (7,)], [(7, 9), (10, 8)])
    )
    handle.remove()
    assert [size[0] for size in sizes] == [3, 3, 6]
    assert shared[0][2] == pytest.approx(one[0][0], rel=1e-5)
    assert apart[1][0] == pytest.approx(shared[1][0], rel=1e-5)


def test_the_wording_of_every_decoder_task():
    """A change of these moves numbers: mark it [results] in the change log."""
    found = {name: (cls := registry.get("task", name)).template + "|" + "/".join(cls.options) for name in DECODER_GLUE}
    assert found["glue-rte"] == "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:| True/ False"
    digest = hashlib.sha256("\n".join(found[name] for name in sorted(found)).encode()).hexdigest()
    assert digest[:12] == "316e617f0ce0"


def test_mismatched_genres_get_metrics_of_their_own(folder, model):
    made = loaded("glue-mnli", **folder("glue-mnli"))
    result = evaluate(made, model)
    assert set(result.metrics) == {"loss", "accuracy", "loss_mismatched", "accuracy_mismatched"}
    parts = [item.get("part") for item in result.items]
    assert parts == [None] * 11 + ["mismatched"] * 9
    right = [item["correct"] for item in result.items]
    assert result.metrics["accuracy"] == pytest.approx(np.mean(right[:11]))
    assert result.metrics["accuracy_mismatched"] == pytest.approx(np.mean(right[11:]))


def test_mismatched_genres_may_be_missing(folder, model):
    made = loaded("glue-mnli", **folder("glue-mnli", extra=False))
    assert set(evaluate(made, model).metrics) == {"loss", "accuracy"}


def test_a_score_is_refused_from_a_decoder(folder):
    with pytest.raises(DataError, match=r"task=glue-stsb asks for a score, which .* does not give: use an encoder"):
        loaded("glue-stsb", **folder("glue-stsb"))


def test_options_that_a_tokenizer_cannot_tell_apart_are_refused(folder):
    made = task("glue-sst2", **folder("glue-sst2"))
    with pytest.raises(DataError, match="writes two of the options  negative,  positive alike"):
        made.load(word_tokenizer(), "decoder", Streams(0))


def test_long_passage_loses_its_beginning_and_a_long_pair_its_end(folder, tmp_path):
    data = folder("boolq")
    passage = " ".join(WORDS * 4)
    write(tmp_path / "validation.jsonl", [{"question": "who sat", "passage": passage, "answer": True}])
    made = loaded("boolq", **data, max_length=80)
    (example,) = made.splits["test"]
    text = byte_tokenizer().decode(example.input_ids)
    assert len(example.input_ids) == 80 - len(" yes") + len(" yes")
    assert passage.endswith(text.split("\n")[0])
    assert text.endswith("\nQuestion: who sat?\nAnswer: yes")
    assert made.revision["truncated"].endswith("test 1")
    pair = loaded("boolq", "encoder", **data, max_length=32)
    assert [len(example.input_ids) for example in pair.splits["test"]] == [32]
    assert pair.splits["test"][0].input_ids[:4] == (2, 4 + WORDS.index("who"), 4 + WORDS.index("sat"), 3)
    assert pair.revision["truncated"].endswith("test 1")


def test_metrics_by_hand():
    gold, said = [1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1, 0, 1]  # TP 3, FP 1, FN 1, TN 3
    assert answer_scoring.accuracy_and_f1(gold, said) == {"accuracy": 0.75, "f1": 0.75}
    assert answer_scoring.matthews(gold, said)["matthews"] == pytest.approx((9 - 1) / 16)
    assert answer_scoring.matthews(gold, [1] * 8) == {"matthews": 0.0, "accuracy": 0.5}
    assert answer_scoring.accuracy_and_f1([0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0}
    exact = answer_scoring.correlations([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0])
    assert exact["spearman"] == pytest.approx(1.0)
    assert exact["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 4, 9, 16])[0, 1])
    assert answer_scoring.correlations([1.0, 2.0], [3.0, 3.0]) == {}
