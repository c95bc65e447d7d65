"""Every way in which a value can violate its schema, and the message for each."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import Field, ValidationError, field_validator

from rankbench.config.schema import Section, Settings, conform, keys, settings_of


class Shape(Section):
    width: int = Field(ge=1)
    layers: int


class Whole(Section):
    name: str
    score: Literal["ratio", "product"]
    mode: Literal["auto", "offline"] | None
    share: float = Field(ge=0, le=1)
    rate: float = Field(gt=0, lt=1)
    steps: int | None = Field(ge=1)
    every: Annotated[int, Field(ge=2)] | None
    exact: bool
    targets: list[str]
    shape: Shape | None
    extra: dict[str, Any]
    either: int | list[int]
    lower: str

    @field_validator("lower")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("must be in lower case")
        return value


GOOD: dict[str, Any] = {
    "name": "a",
    "score": "ratio",
    "mode": None,
    "share": 1,
    "rate": 0.5,
    "steps": None,
    "every": None,
    "exact": False,
    "targets": ["q_proj"],
    "shape": {"width": 8, "layers": 2},
    "extra": {"anything": 1},
    "either": [1],
    "lower": "a",
}


def sentences(**changes: Any) -> list[str]:
    return [mistake.sentence for mistake in conform(Whole, GOOD | changes, "method")[1]]


def test_good_values_come_back_in_their_types_and_as_they_were() -> None:
    section, mistakes = conform(Whole, dict(reversed(GOOD.items())))
    assert mistakes == []
    assert section is not None
    assert section.plain() == GOOD
    assert list(section.plain()) == list(GOOD)  # in the order of the fields
    assert type(section.plain()["share"]) is float  # 1 was given
    assert section.shape is not None
    assert section.shape.layers == 2


def test_a_section_cannot_be_changed() -> None:
    section, _ = conform(Whole, GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        section.name = "b"  # type: ignore[union-attr, misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "method.name=3: expected a string"),
        ({"score": "ration"}, "method.score=ration: expected one of ratio, product"),
        ({"score": None}, "method.score=null: expected a string"),
        ({"mode": "online"}, "method.mode=online: expected one of auto, offline"),
        ({"mode": 1}, "method.mode=1: expected a string or null"),
        ({"share": 1.5}, "method.share=1.5: expected a number >= 0 and <= 1"),
        ({"share": "half"}, "method.share=half: expected a number"),
        ({"share": "0.5"}, "method.share=0.5: expected a number"),
        ({"share": True}, "method.share=true: expected a number"),
        ({"share": float("nan")}, "method.share=nan: expected a finite number"),
        ({"share": float("inf")}, "method.share=inf: expected a finite number"),
        ({"rate": 0.0}, "method.rate=0.0: expected a number > 0 and < 1"),
        ({"rate": 1}, "method.rate=1: expected a number > 0 and < 1"),
        ({"steps": 0}, "method.steps=0: expected a number >= 1"),
        ({"steps": 2.0}, "method.steps=2.0: expected an integer or null"),
        ({"steps": True}, "method.steps=true: expected an integer or null"),
        ({"every": 1}, "method.every=1: expected a number >= 2"),
        ({"exact": 1}, "method.exact=1: expected true or false"),
        ({"exact": ""}, "method.exact='': expected true or false"),
        ({"targets": "q_proj"}, "method.targets=q_proj: expected a list, each item a string"),
        ({"targets": ["q", 1]}, "method.targets[1]=1: expected a string"),
        ({"shape": {"width": 0, "layers": 2}}, "method.shape.width=0: expected a number >= 1"),
        ({"shape": {"width": 8}}, "method.shape.layers: missing; give method.shape.layers=<an integer>"),
        (
            {"shape": {"width": 8, "layers": "???"}},
            "method.shape.layers: missing; give method.shape.layers=<an integer>",
        ),
        ({"shape": 3}, "method.shape=3: expected a mapping of keys to values or null"),
        ({"extra": []}, "method.extra=[]: expected a mapping of keys to values"),
        ({"extra": {1: 2}}, "method.extra.1: the key is no string; put it into quotes"),
        ({"either": "a"}, "method.either=a: expected an integer or a list, each item an integer"),
        ({"lower": "A"}, "method.lower=A: must be in lower case"),
        ({"score": "???"}, "method.score: missing; give method.score=<ratio|product>"),
        ({"stesp": 3}, "method.stesp=3: unknown key; did you mean steps, targets? known are either, every, exact, "),
    ],
)
def test_a_bad_value_is_named_with_what_is_expected(changes: dict[str, Any], message: str) -> None:
    (sentence,) = sentences(**changes)
    assert sentence.startswith(message)


def test_all_mistakes_come_at_once_unknown_keys_first() -> None:
    told = sentences(share=2, name=3, stesp=1, shape={"width": "x", "layers": "y", "depth": 1})
    assert [sentence.partition("=")[0].removeprefix("method.") for sentence in told] == [
        "stesp",
        "name",
        "share",
        "shape.depth",
        "shape.width",
        "shape.layers",
    ]


def test_an_unknown_key_lists_the_known_ones_and_takes_a_hint() -> None:
    _, (mistake,) = conform(Shape, {"width": 1, "layers": 1, "zzz": 2}, "shape", hint=lambda place: f"<{place}>")
    assert mistake == ("shape.zzz", "shape.zzz=2: unknown key; known are layers, width. <shape.zzz>")


def test_keys_are_dotted_names() -> None:
    assert keys(Shape, "shape") == ["shape.width", "shape.layers"]
    assert {"name", "shape.width"} <= set(keys(Whole))


T = TypeVar("T")


def test_the_settings_of_a_class_are_the_parameter_of_its_base() -> None:
    class Base(Generic[T]):
        pass

    class Own(Settings):
        pass

    class Mine(Base[Own]):
        pass

    class Heir(Mine):
        pass

    assert settings_of(Mine) is Own
    assert settings_of(Heir) is None  # it has those of Mine
    assert settings_of(Base) is None
