"""Names of methods and tasks, built in and from other packages."""

from importlib.metadata import EntryPoint

import pytest

from rankbench.config import registry
from rankbench.config.registry import UnknownName, get, names, register
from rankbench.config.schema import Settings
from rankbench.config.yaml_files import CONF_DIR


@pytest.mark.parametrize("kind", ["method", "task"])
def test_every_registered_class_has_a_yaml_and_every_yaml_a_class(kind: registry.Kind) -> None:
    assert names(kind) == sorted(file.stem for file in (CONF_DIR / kind).glob("*.yaml"))


def test_an_unknown_name_comes_with_near_and_known_names() -> None:
    with pytest.raises(UnknownName, match=r"method 'igo' is unknown; did you mean igu.*\? known are adalora, .*lora"):
        get("method", "igo")


def test_two_classes_cannot_share_a_name() -> None:
    get("method", "lora")

    class Another:
        Config = Settings

    with pytest.raises(ValueError, match=r"method 'lora' is registered twice: rankbench.methods.lora.* and .*Another"):
        register("method", "lora")(Another)


def test_a_class_needs_a_schema() -> None:
    class Bare:
        pass

    expected = r"method 'bare': .*Bare has no Config that is a rankbench.plugin.Settings; write class Config"
    with pytest.raises(ValueError, match=expected):
        register("method", "bare")(Bare)


class Outside:
    """A method of another distribution."""

    Config = Settings


def test_an_entry_point_is_listed_and_loaded_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("outside", f"{__name__}:Outside", "rankbench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "rankbench.methods" else [])
    monkeypatch.setitem(registry._classes, "method", dict(registry._classes["method"]))
    assert "outside" in names("method")
    assert get("method", "outside") is Outside
    assert "outside" not in names("task")
