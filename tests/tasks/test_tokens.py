"""Token ids are those of the tokenizer."""

import random

import pytest
from support.texts import WORDS, word_tokenizer

from rankbench.tasks.text.tokens import encode


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ([sentences(50)], {"add_special_tokens": False}),
        ([sentences(50)], {"add_special_tokens": True}),
        ([sentences(50), sentences(50, 1)], {}),
        ([sentences(50), sentences(50, 1)], {"truncation": "longest_first", "max_length": 9}),
        ([["", "é 猫", "the\0cat"]], {}),
    ],
)
def test_texts_and_pairs_are_encoded_as_the_tokenizer_does_it(columns, settings):
    straight = word_tokenizer()(*columns, **settings)
    assert encode(word_tokenizer(), columns, **settings) == {
        key: straight[key] for key in ("input_ids", "token_type_ids")
    }


def test_a_call_that_truncates_leaves_nothing_behind_for_the_next():
    tokenizer, columns = word_tokenizer(), [sentences(50)]
    whole = encode(tokenizer, columns)
    encode(tokenizer, columns, truncation=True, max_length=3)
    assert encode(tokenizer, columns) == whole
