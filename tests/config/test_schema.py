"""Every way in which a value can miss its schema, and the message for it."""

from dataclasses import dataclass
from typing import Any

import pytest

from rankbench.config.schema import choice, conform, keys, number


@dataclass
class Shape:
    width: int = number(low=1)
    layers: int


@dataclass
class Section:
    name: str
    score: str = choice("ratio", "product")
    mode: str | None = choice("auto", "offline")
    share: float = number(low=0, high=1)
    rate: float = number(above=0, below=1)
    steps: int | None = number(low=1)
    exact: bool
    targets: list[str]
    shape: Shape | None
    extra: dict[str, Any]


GOOD: dict[str, Any] = {
    "name": "a",
    "score": "ratio",
    "mode": None,
    "share": 1,
    "rate": 0.5,
    "steps": None,
    "exact": False,
    "targets": ["q_proj"],
    "shape": {"width": 8, "layers": 2},
    "extra": {"anything": 1},
}


def sentences(**changes: Any) -> list[str]:
    return [mistake.sentence for mistake in conform(Section, GOOD | changes, "method")[1]]


def test_good_values_come_back_in_their_types() -> None:
    values, mistakes = conform(Section, GOOD)
    assert mistakes == []
    assert values == GOOD
    assert type(values["share"]) is float  # 1 was given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "method.name=3: expected a string"),
        ({"score": "ration"}, "method.score=ration: expected one of ratio, product"),
        ({"score": None}, "method.score=null: expected a string"),
        ({"mode": "online"}, "method.mode=online: expected one of auto, offline"),
        ({"share": 1.5}, "method.share=1.5: expected a number >= 0 and <= 1"),
        ({"share": "half"}, "method.share=half: expected a number"),
        ({"share": float("nan")}, "method.share=nan: expected a finite number"),
        ({"rate": 0.0}, "method.rate=0.0: expected a number > 0 and < 1"),
        ({"rate": 1}, "method.rate=1: expected a number > 0 and < 1"),
        ({"steps": 0}, "method.steps=0: expected a number >= 1"),
        ({"steps": 2.0}, "method.steps=2.0: expected an integer or null"),
        ({"steps": True}, "method.steps=true: expected an integer or null"),
        ({"exact": 1}, "method.exact=1: expected true or false"),
        ({"exact": ""}, "method.exact='': expected true or false"),
        ({"targets": "q_proj"}, "method.targets=q_proj: expected a list, each item a string"),
        ({"targets": ["q", 1]}, "method.targets[1]=1: expected a string"),
        ({"shape": {"width": 0, "layers": 2}}, "method.shape.width=0: expected a number >= 1"),
        ({"shape": {"width": 8}}, "method.shape.layers: missing; give method.shape.layers=<an integer>"),
        ({"shape": 3}, "method.shape=3: expected a mapping of keys to values or null"),
        ({"extra": []}, "method.extra=[]: expected a mapping of keys to values"),
        ({"score": "???"}, "method.score: missing; give method.score=<ratio|product>"),
        ({"stesp": 3}, "method.stesp=3: unknown key; did you mean steps, targets? known are exact, "),
    ],
)
def test_a_bad_value_is_named_with_what_is_expected(changes: dict[str, Any], message: str) -> None:
    (sentence,) = sentences(**changes)
    assert sentence.startswith(message)


def test_all_mistakes_come_at_once() -> None:
    assert len(sentences(name=3, share=2, stesp=1, shape={"width": "x", "layers": "y"})) == 5


def test_an_unknown_key_lists_the_known_ones_and_takes_a_hint() -> None:
    _, (mistake,) = conform(Shape, {"width": 1, "layers": 1, "zzz": 2}, "shape", hint=lambda place: f"<{place}>")
    assert mistake == ("shape.zzz", "shape.zzz=2: unknown key; known are layers, width. <shape.zzz>")


def test_keys_are_dotted_names() -> None:
    assert keys(Shape, "shape") == ["shape.width", "shape.layers"]
    assert {"name", "shape.width"} <= set(keys(Section))
