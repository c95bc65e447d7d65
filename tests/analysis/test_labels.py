"""Labels of methods in tables and figures."""

from __future__ import annotations

import pytest
from support.records import record

from rankbench.analysis.labels import (
    UNKNOWN,
    Display,
    colour,
    display,
    displays,
    labels,
    method_of,
    sort_key,
    with_titles,
)
from rankbench.config import yaml_files
from rankbench.config.registry import BUILT_IN


def variant(method: str, **settings):
    return record(method, 0, config={"method": {"name": method, **settings}, "train": {"learning_rate": 0.1}})


def test_a_label_is_the_method_where_its_settings_agree():
    assert labels([variant("fim", beta=1.0), variant("eva", beta=2.0), record("lora", 0)]) == ["fim", "eva", "lora"]


def test_settings_that_differ_within_a_method_are_part_of_its_label():
    runs = [variant("permuted", source="fim", within="all"), variant("permuted", source="eva", within="all")]
    assert labels(runs) == ["permuted (source=fim)", "permuted (source=eva)"]
    assert [method_of(label) for label in labels(runs)] == ["permuted", "permuted"]


def test_seed_rate_and_folder_are_no_part_of_a_label():
    runs = [
        record("lora", seed, config={"seed": seed, "train": {"learning_rate": seed}, "results_dir": str(seed)})
        for seed in (0, 1)
    ]
    assert labels(runs) == ["lora", "lora"]


def test_values_are_written_as_on_the_command_line():
    runs = [variant("igu", a=None, b=True, c=1e-3, d=[1, 2]), variant("igu", a=1, b=False, c=0.1, d=[1])]
    assert labels(runs) == ["igu (a=null, b=true, c=0.001, d=1+2)", "igu (a=1, b=false, c=0.1, d=1)"]


def test_settings_of_a_source_count_only_where_the_source_is_the_same():
    fim, eva, other = ({"beta": 1}, {"rho": 2}, {"beta": 3})
    assert labels([variant("permuted", source="fim", source_settings=fim)]) == ["permuted"]
    runs = [
        variant("permuted", source="fim", source_settings=fim),
        variant("permuted", source="eva", source_settings=eva),
    ]
    assert labels(runs) == ["permuted (source=fim)", "permuted (source=eva)"]
    assert labels([*runs, variant("permuted", source="fim", source_settings=other)]) == [
        "permuted (source=fim, source_settings.beta=1)",
        "permuted (source=eva)",
        "permuted (source=fim, source_settings.beta=3)",
    ]


def test_a_map_given_as_a_setting_is_not_a_variant():
    assert labels([variant("transplant", ranks={"a": 1}), variant("transplant", ranks={"a": 2})]) == ["transplant"] * 2


def test_seeds_of_a_map_have_one_label_and_maps_of_two_methods_have_two():
    """Each seed of a control has the map of its own source run."""
    given = [
        variant("transplant", ranks={"a": seed}, source_run=f"runs/{origin}{seed}", origin=origin)
        for origin in ("adalora", "igu")
        for seed in (1, 2)
    ]
    assert labels(given[:2]) == ["transplant"] * 2
    assert labels(given) == ["transplant (origin=adalora)"] * 2 + ["transplant (origin=igu)"] * 2


def test_a_setting_that_one_record_lacks_is_null():
    assert labels([variant("fim"), variant("fim", beta=1)]) == ["fim (beta=null)", "fim (beta=1)"]


def test_a_record_made_before_a_setting_has_the_label_of_one_that_leaves_it_at_its_default():
    assert labels([variant("sora", strength=0.5), variant("sora", strength=0.5, step="printed", loss_l1=0.0)]) == [
        "sora",
        "sora",
    ]


def test_known_methods_come_first_and_unknown_ones_by_name():
    found = ["zeta", "igu", "permuted (source=fim)", "alpha", "lora", "permuted (source=eva)"]
    assert sorted(found, key=sort_key) == [
        *("lora", "igu", "permuted (source=eva)", "permuted (source=fim)"),
        *("alpha", "zeta"),
    ]


def test_a_variant_has_the_colour_of_its_method_and_an_unknown_one_a_neutral():
    assert colour("permuted (source=fim)") == displays()["permuted"].colour
    assert colour("shuffled (source=fim)") == displays()["permuted"].colour  # so it is called in older records
    assert colour("homemade") == UNKNOWN
    assert display("homemade") == Display()


def test_every_method_says_how_it_is_shown():
    own = {method for methods in BUILT_IN["method"].values() for method in methods}
    shown = {method: display(method) for method in own}
    assert all(each.title and each.marker and each.order < float("inf") for each in shown.values())
    assert len({each.order for each in shown.values()}) == len({each.title for each in shown.values()}) == len(own)


def test_how_a_method_is_shown_is_none_of_its_settings():
    assert all(yaml_files.DISPLAY not in yaml_files.defaults("method", method) for method in displays())


def test_another_package_may_say_how_its_method_is_shown(tmp_path, monkeypatch):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: mine\ndisplay: {title: Mine, order: 15, new: 1}\nrate: 0.1\n")
    (tmp_path / "method" / "plain.yaml").write_text("name: plain\n")
    monkeypatch.setattr(yaml_files, "conf_folders", lambda: {tmp_path: "my-package"})
    displays.cache_clear()
    try:
        assert display("mine (rate=0.2)") == Display("Mine", UNKNOWN, "", 15)
        assert sorted(["plain", "svd_lora", "mine", "lora"], key=sort_key) == ["lora", "mine", "svd_lora", "plain"]
        assert yaml_files.defaults("method", "mine") == {"name": "mine", "rate": 0.1}
    finally:
        displays.cache_clear()


def test_a_sentence_has_titles_of_arms_and_keeps_those_of_models():
    text = "random on Tiny (random weights): not told from random ranks and lora"
    shown = "Random ranks on Tiny (random weights): not told from random ranks and LoRA (uniform)"
    assert with_titles(text, ["random", "lora"]) == shown
    assert with_titles(text, []) == text


COLOURS = [shown.colour for shown in displays().values() if shown.colour != UNKNOWN]


def luminance(hexadecimal: str) -> float:
    """WCAG 2.1 relative luminance."""
    shades = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [shade / 12.92 if shade <= 0.04045 else ((shade + 0.055) / 1.055) ** 2.4 for shade in shades]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_no_two_methods_share_a_colour():
    assert len({*COLOURS, UNKNOWN}) == len(COLOURS) + 1


@pytest.mark.parametrize("shade", [*COLOURS, UNKNOWN])
def test_every_colour_can_be_read_on_white(shade):
    """Contrast of 3.5 or more; WCAG asks 3 of large text and graphics."""
    assert 1.05 / (luminance(shade) + 0.05) >= 3.5
