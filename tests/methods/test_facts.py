"""What methods say of themselves at given settings: extra passes, and where they leave their source."""

from typing import Any

import pytest
from support.toys import method_config, rig

from rankbench.analysis.labels import displays
from rankbench.cli.methods import entry, settings
from rankbench.config import registry
from rankbench.methods.base import NEVER, differing
from rankbench.methods.igu_sources import CODE, PAPER

BUILT_IN = sorted(name for names in registry.BUILT_IN["method"].values() for name in names)

# Extra passes of 20 steps with batch 16, counted by hand. igu's last cut is at step 12: its scores are at 2, 4 ... 10.
PASSES: list[tuple[str, dict[str, Any], int, int]] = [
    ("lora", {}, 0, 0),
    ("adalora", {}, 0, 0),
    ("igu", {}, 5, 5),
    ("igu", {"estimator": "trapezoid", "quadrature_steps": 4}, 25, 25),
    ("igu", {"endpoints": "unbiased", "sample_count": 2}, 30, 30),
    ("igu", {"endpoints": "printed", "ema_every": 5}, 6, 6),
    ("igu", {"estimator": "instantaneous"}, 0, 0),
    ("igu", {"ema_every": 50}, 1, 1),
    ("igu", {"start_ratio": 1}, 0, 0),
    ("igu", {"stage2": "scratch", "stage1_share": 0.5, "ema_every": 1}, 5, 5),
    ("igu_code", {}, 0, 0),
    ("increlora", {}, 0, 0),
    ("l1ra", {}, 0, 0),
    ("sora", {"loss_l1": 1.0}, 0, 0),
    ("para", {}, 0, 0),
    ("para_retrain", {}, 0, 0),
    ("fim", {"batches": 2}, 2, 2),
    ("fim", {"batches": 2, "score": "per_example"}, 32, 32),
    ("fim_code", {"batches": 3, "tensor": "weight"}, 3, 3),
    ("gora", {"batches": 3}, 3, 3),
    ("gora", {"batches": 3, "use": "init"}, 3, 3),
    ("sensitivity", {"batches": 3}, 3, 0),
    ("eva", {"batches": 3}, 3, 0),
    ("stable_rank", {}, 0, 0),
]


@pytest.mark.parametrize(("method", "changes", "forward", "backward"), PASSES)
def test_the_meter_counts_what_is_announced(method: str, changes: dict[str, Any], forward: int, backward: int) -> None:
    run = rig(method, steps=20, **changes).run()
    spent = [run.engine.meter.spent[phase] for phase in ("calibration", "allocation")]
    made = tuple(sum(phase[f"{way}_passes"] for phase in spent) for way in ("forward", "backward"))
    assert run.allocator.extra_passes(16) == made == (forward, backward)
    assert (run.allocator.passes_of(run.allocator.config) == "none") == (made == (0, 0))


def test_passes_are_said_with_the_numbers_of_the_settings() -> None:
    igu = registry.get("method", "igu")
    trapezoid = method_config("igu", estimator="trapezoid", quadrature_steps=4, sample_count=2)
    assert igu.passes_of(trapezoid) == "10 x (forward + backward) every 2 steps until the last cut"
    assert entry("igu").facts["passes"] == "1 x (forward + backward) every 2 steps until the last cut"
    assert entry("igu_code").facts["passes"] == "none"
    per_example = method_config("fim", batches=2, score="per_example")
    assert registry.get("method", "fim").passes_of(per_example) == "2 x train.batch_size x (forward + backward)"
    assert entry("permuted").facts["passes"] == "8 x (forward + backward), by fim"


def test_two_presets_of_one_class_do_not_say_the_same() -> None:
    """Each names its own source, and a setting that is as in that source is not mentioned."""
    printed, released = (" ".join(entry(name).deviations) for name in ("igu", "igu_code"))
    assert "lambda_term=snr: the paper scores lambda by |lambda|" in printed
    for setting in ("sign=outside", "relative_epsilon=true", "prune=soft", "penalty=full", "every=1", "ema_every=2"):
        assert f"{setting}: " in printed
    assert "the code" not in printed
    assert "drops all triplets at the threshold" in released
    assert "the paper" not in released
    assert [word for word in released.split() if "=" in word] == ["every=1:"]
    assert "relative_floor" not in " ".join(entry("fim_code").deviations)
    assert "hindsight" not in " ".join(entry("para").deviations)
    assert entry("para").deviations != entry("para_retrain").deviations


def test_any_settings_say_what_is_true_of_them() -> None:
    igu = registry.get("method", "igu")
    config = method_config("igu_code", lambda_term="magnitude", penalty="none", stage2_orthogonality=8.0)
    said = igu.deviations_of(config)
    assert "lambda_term=magnitude: the code scores lambda as it scores the factors." in said
    assert "penalty=none: the code penalises off-diagonal entries." in said
    assert not [sentence for sentence in said if "orthogonality" in sentence]  # unused without a penalty
    gora = registry.get("method", "gora")
    released = gora.deviations_of(method_config("gora", width="sum", direction="up", batches=64))
    assert not [sentence for sentence in released if "=" in sentence.split()[0]]
    ranks_alone = gora.deviations_of(method_config("gora", use="ranks"))
    assert not [sentence for sentence in ranks_alone if sentence.startswith(("gamma", "direction"))]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_preset_says_sentences_and_none_twice(name: str) -> None:
    cls, said = registry.get("method", name), entry(name).deviations
    assert said or cls.source == "control"
    assert len(set(said)) == len(said)
    assert all(sentence.endswith(".") for sentence in said)
    assert settings(cls, name) is not None or name == "transplant"  # which has to be given a run


def test_the_sources_of_igu_name_settings_and_values_that_exist() -> None:
    schema = registry.get("method", "igu").Config
    for preset, source in (("igu", PAPER), ("igu_code", CODE)):
        values = {key: own for key, (own, _) in source.items() if own is not NEVER}
        assert differing(method_config(preset, **values), {key: source[key] for key in values}) == ()
        assert set(source) <= set(schema.model_fields)


def test_what_tables_treat_as_a_control_says_so_itself():
    controls = {name for name in BUILT_IN if entry(name).facts["source"].startswith("control")}
    assert {name for name in BUILT_IN if displays()[name].control} == controls
