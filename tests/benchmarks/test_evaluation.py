"""The rows beside lm-evaluation-harness: what is compared, with PEFT on the exported adapter in the harness's place."""

import warnings

import pytest
import torch
from evaluation import (
    SMALLEST,
    Ours,
    check_tokens,
    compare_generation,
    compare_options,
    measure,
    option_agreement,
    speedup,
    text_agreement,
)
from peft import PeftModel
from random_inputs import write_data

from rankbench.core.seeding import Streams
from rankbench.models import loading

ITEMS, NEW_TOKENS = 3, 4


class Peft:
    """Stock PEFT, one text at a time."""

    def __init__(self, ours):
        loaded = loading.load(ours.run.config.model, None, None, Streams(0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT asks transformers for what has another name by now
            self.model = PeftModel.from_pretrained(loaded.model, ours.adapter).eval()
        self._tokenizer = loaded.tokenizer

    def tokens(self, text):
        return tuple(self._tokenizer(text).input_ids)

    @torch.no_grad()
    def _logs(self, ids):
        return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def scores(self, prompts, options):
        return [[self._score(prompt, option) for option in row] for prompt, row in zip(prompts, options, strict=True)]

    def _score(self, prompt, option):
        start, ids = len(self.tokens(prompt)), self.tokens(prompt + option)
        logs = self._logs(ids)
        return sum(float(logs[index - 1, ids[index]]) for index in range(start, len(ids)))

    def texts(self, prompts, new_tokens):
        return [self._text(self.tokens(prompt), new_tokens) for prompt in prompts]

    def _text(self, prompt, new_tokens):
        ids = list(prompt)
        for _ in range(new_tokens):
            ids.append(int(self._logs(ids)[-1].argmax()))
        return self._tokenizer.decode(ids[len(prompt) :])


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Row -> our side, and PEFT's."""
    folder = tmp_path_factory.mktemp("evaluation")
    data = {"boolq": folder / "boolq", "gsm8k": folder / "gsm8k"}
    for path in data.values():
        path.mkdir()
    write_data(*data.values(), questions=ITEMS, problems=ITEMS)
    settings = {
        "options": ["task=boolq", f"task.data_dir={data['boolq']}"],
        "generation": ["task=gsm8k", f"task.data_dir={data['gsm8k']}", f"task.max_new_tokens={NEW_TOKENS}"],
    }
    ours = {row: Ours(folder / row, "model=tiny", *SMALLEST, *overrides) for row, overrides in settings.items()}
    return {row: (side, Peft(side)) for row, side in ours.items()}


def test_the_exported_adapter_picks_the_same_options_elsewhere(sides):
    ours, peft = sides["options"]
    (line,) = compare_options(ours, peft, parts=2, rounds=1)
    assert (line["row"], line["items"], line["agree"], line["pairs"]) == ("options", ITEMS, ITEMS, 2)
    assert line["largest_difference"] < 1e-4
    with peft.model.disable_adapter():
        (line,) = compare_options(ours, peft, parts=2, rounds=1)
    assert line["largest_difference"] > 1e-3  # the adapter is no small part of what is compared


def test_the_exported_adapter_writes_the_same_texts_elsewhere(sides):
    texts, both = compare_generation(*sides["generation"], parts=2, rounds=2)
    assert (texts["row"], texts["items"], texts["agree"], texts["pairs"]) == ("generation", ITEMS, ITEMS, 4)
    assert both["row"] == "generation_and_loss"
    assert both["largest_difference"] < 1e-3
    assert both["seconds_harness"] > texts["seconds_harness"]


def test_other_tokens_stop_the_comparison(sides):
    _, peft = sides["options"]
    tokens = peft.tokens("abc")
    check_tokens(peft, "abc", tokens)
    with pytest.raises(ValueError, match="'abc' is read as other tokens"):
        check_tokens(peft, "abc", tokens[:-1])


def test_disagreement_is_counted():
    items = [{"prediction": "no", "gold": "no", "loss": 1.0, "units": 1}] * 2
    figures = option_agreement(items, [[-1.0, -2.0], [-1.5, -0.5]], ["no", "yes"])
    assert figures == {"items": 2, "agree": 1, "largest_difference": 0.5}
    outputs = [{"output": "1\n"}, {"output": "12"}, {"output": "13"}]
    figures = text_agreement(outputs, ["1\nand more", "12", "14"], lambda text: text.endswith("\n"))
    assert figures == {"items": 3, "agree": 2, "complete": 1}


def test_the_speedup_is_the_median_of_the_turns():
    line = speedup([1.0, 1.0, 2.0], [3.0, 1.0, 4.0], goal=1.6)
    assert (line["speedup"], line["met"], line["pairs"], line["quartiles"]) == (2.0, True, 3, [1.5, 2.5])


def test_a_row_without_its_data_says_so():
    (line,) = measure("options", None, 1)
    assert line["skipped"] == "the folder with its data is not named: --boolq DIR"
