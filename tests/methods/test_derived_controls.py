"""Controls that redistribute another method's ranks, and the sources of these ranks."""

import json

import numpy as np
import pytest
import torch
from support.harness import configure, folder_of, perform

from rankbench.config.control_sources import rank_map
from rankbench.config.schema import ConfigError
from rankbench.core.peft_export import export
from rankbench.methods.base import InertError
from rankbench.methods.derived_controls import reverse
from rankbench.records.record import run_id
from rankbench.training.assembly import assemble

EQUAL = ["budget=r8", "budget.unit=ranks"]  # every rank costs one: a permutation is one


def calibrated(tmp_path, *overrides):
    run = assemble(configure(tmp_path, *EQUAL, *overrides))
    run.trainer.calibrate()
    return run.trainer, run.budget


def dealt(tmp_path, name, within, seed=0, *more):
    """The ranks that a control makes of a given map on the tiny model, sites in model order."""
    sites = [f"model.layers.{layer}.{kind}" for layer in range(2) for kind in KINDS]
    ranks = dict(zip(sites, [1, 2, 9, 3, 4, 8, 5, 6, 7, 10, 11, 12, 13, 21], strict=True))
    (tmp_path / "map.json").write_text(json.dumps(ranks))
    where = ["method.source=null", f"method.source_run={tmp_path / 'map.json'}", f"method.within={within}"]
    return ranks, calibrated(tmp_path, f"method={name}", *where, f"seed={seed}", *more)[0].adapters.ranks()


KINDS = [f"self_attn.{k}_proj" for k in "qkvo"] + [f"mlp.{k}_proj" for k in ("gate", "up", "down")]
KEYS = {"all": lambda n: 0, "type": lambda n: n.split(".", 3)[3], "layer": lambda n: n.split(".")[2]}


@pytest.mark.slow
@pytest.mark.parametrize("within", ["all", "type", "layer"])
def test_permuted_and_reversed_stay_inside_their_groups(tmp_path, within):
    given, permuted = dealt(tmp_path, "permuted", within)
    _, reversed_ = dealt(tmp_path, "reversed", within)
    for group in {KEYS[within](name) for name in given}:
        names = [name for name in given if KEYS[within](name) == group]
        assert sorted(permuted[n] for n in names) == sorted(given[n] for n in names)
        order = sorted(names, key=given.__getitem__)
        assert [reversed_[n] for n in order] == sorted((given[n] for n in names), reverse=True)
    if within != "type":  # two sites of a type: a permutation may leave both
        assert permuted != given != reversed_
    assert len({tuple(dealt(tmp_path, "permuted", within, seed)[1].values()) for seed in range(4)}) > 1


def test_a_map_number_draws_the_same_permutation_at_every_seed(tmp_path):
    drawn = [
        dealt(tmp_path, "permuted", "all", seed, f"method.map_number={number}")[1] for number, seed in NUMBERED_MAPS
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(ranks.values()) for ranks in drawn}) == 3
    plain = [configure(tmp_path, "method=permuted", f"method.map_number={number}").plain() for number in (0, 1, "null")]
    assert len({run_id(config) for config in plain}) == 3


NUMBERED_MAPS = [(0, 0), (0, 1), (1, 0), (2, 0)]  # map number, seed


@pytest.mark.parametrize("method", ["permuted", "reversed", "by_type", "by_depth", "scaled"])
def test_a_map_that_tells_no_sites_apart_leaves_an_inert_run(tmp_path, method):
    (tmp_path / "map.json").write_text('{".*": 4}')
    record = perform(configure(tmp_path, *EQUAL, f"method={method}", "method.source=null", MAP.format(tmp_path)))
    assert (record["status"], record["metrics"]["validation"]) == ("inert", None)
    assert "does not tell all sites apart, so there is nothing to rearrange" in record["reason"]


MAP = "method.source_run={}/map.json"


def test_a_map_by_type_cannot_be_permuted_within_types(tmp_path):
    (tmp_path / "map.json").write_text('{"q_proj": 20, ".*": 4}')
    words = ["method.source=null", MAP.format(tmp_path)]
    with pytest.raises(InertError, match="does not tell the sites of each group apart"):
        calibrated(tmp_path, "method=permuted", *words, "method.within=type")
    trainer, _ = calibrated(tmp_path, "method=by_type", *words)  # its own average: the map is one by type
    assert len(set(trainer.adapters.ranks().values())) == 2


def test_averages_by_type_and_by_depth(tmp_path):
    for name, within in (("by_type", "type"), ("by_depth", "layer")):
        given, found = dealt(tmp_path, name, within)
        for group in {KEYS[within](site) for site in given}:
            names = [site for site in given if KEYS[within](site) == group]
            mean = np.mean([given[n] for n in names])
            assert all(abs(found[n] - mean) < 1 for n in names)  # brought to integers at the exact budget


def test_reversed_gives_the_largest_rank_to_the_lowest_score():
    assert reverse([1, 2, 9, 3], [9, 8, 7, 6]) == [1, 2, 3, 9]
    assert reverse([1, 5, 2], [1, 5, 2]) == [5, 1, 2]
    assert reverse([1, 2], [0.5, 0.5]) == [2, 1]  # ties: the earlier has more


@pytest.mark.slow
@pytest.mark.parametrize("source", ["fim", "sensitivity"])
def test_a_control_s_ranks_are_its_source_s_dealt_otherwise(tmp_path, source):
    """Where ranks cost the same the histogram is kept; the calibration is the source's own and is charged."""
    own, _ = calibrated(tmp_path, f"method={source}")
    for name in ("permuted", "reversed"):
        control, _ = calibrated(tmp_path, f"method={name}", f"method.source={source}")
        assert sorted(control.adapters.ranks().values()) == sorted(own.adapters.ranks().values())
        assert control.adapters.ranks() != own.adapters.ranks()
        assert control.allocator.scores == own.allocator.scores
        spent = [trainer.engine.meter.spent["calibration"] for trainer in (control, own)]
        assert spent[0]["forward_passes"] == spent[1]["forward_passes"] == 8
        assert control.adapters.ledger.start == control.adapters.ledger.peak
    low, high = (f(own.allocator.scores, key=own.allocator.scores.__getitem__) for f in (min, max))
    assert control.adapters.ranks()[low] >= control.adapters.ranks()[high]  # reversed


@pytest.mark.slow
def test_within_unequal_costs_the_budget_is_still_met(tmp_path):
    for name in ("permuted", "reversed", "by_type", "by_depth"):
        trainer, budget = calibrated(tmp_path, f"method={name}", "budget.unit=params")
        assert 0 <= budget.target - budget.spent(trainer.adapters.ranks()) < max(budget.costs.values())


@pytest.mark.slow
def test_scaled_keeps_ranks_uniform_and_multiplies_the_scale(tmp_path):
    own, budget = calibrated(tmp_path, "method=fim")
    for by in ("ranks", "scores"):
        trainer, _ = calibrated(tmp_path, "method=scaled", f"method.by={by}")
        shares = own.adapters.ranks() if by == "ranks" else own.allocator.scores
        mean = np.mean(list(shares.values()))
        assert trainer.adapters.ranks() == budget.uniform()
        for name, share in shares.items():
            assert trainer.adapters.scale(name) == pytest.approx(2.0 * share / mean)


@pytest.mark.parametrize("source", ["random", "linear_depth"])
def test_a_source_that_decides_at_the_start_scales_and_permutes_as_well(tmp_path, source):
    own, budget = calibrated(tmp_path, f"method={source}")
    scaled, _ = calibrated(tmp_path, "method=scaled", f"method.source={source}")
    mean = np.mean(list(own.adapters.ranks().values()))
    for name, rank in own.adapters.ranks().items():
        assert scaled.adapters.scale(name) == pytest.approx(2.0 * rank / mean)
    assert scaled.adapters.ranks() == budget.uniform()
    assert not scaled.adapters.history  # uniform from the first step to the last
    permuted, _ = calibrated(tmp_path, "method=permuted", f"method.source={source}")
    assert sorted(permuted.adapters.ranks().values()) == sorted(own.adapters.ranks().values())


def test_the_history_of_a_calibration_is_its_net_change(tmp_path):
    """Not what the source decided on the way."""
    trainer, budget = calibrated(tmp_path, "method=reversed")
    uniform, found = budget.uniform(), trainer.adapters.ranks()
    assert {e["site"]: (e["before"], e["after"]) for e in trainer.adapters.history} == {
        name: (uniform[name], rank) for name, rank in found.items() if rank != uniform[name]
    }
    assert {event["reason"] for event in trainer.adapters.history} == {"reversed"}


def test_a_scale_of_its_own_is_exported_and_resumed(tmp_path):
    trainer, _ = calibrated(tmp_path, "method=scaled")
    other, _ = calibrated(tmp_path)
    other.adapters.load_state_dict(trainer.adapters.state_dict())
    scales = {name: trainer.adapters.scale(name) for name in trainer.adapters.ranks()}
    assert len(set(scales.values())) > 2
    assert {name: other.adapters.scale(name) for name in scales} == scales
    export(trainer.adapters, tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert {n: written["alpha_pattern"][n] / written["rank_pattern"][n] for n in scales} == pytest.approx(scales)


@pytest.mark.slow
def test_a_transplant_trains_the_ranks_of_a_run_as_if_they_had_been_found_here(tmp_path):
    """The same initialisation and data: the run it comes from, a static one, is repeated bit for bit."""
    source = perform(configure(tmp_path, *EQUAL, "method=random"))
    again = perform(configure(tmp_path, *EQUAL, "method=transplant", f"method.source_run={source['run_id']}"))
    assert again["status"] == "ok"
    assert again["ranks"] == source["ranks"]
    assert again["metrics"]["test"] == source["metrics"]["test"]
    assert again["config"]["method"]["ranks"] == source["ranks"]
    assert again["config"]["method"]["origin"] == "random"
    folder = folder_of(configure(tmp_path, *EQUAL, "method=random")).path
    for place in (folder, folder / "record.json", folder / "adapter"):
        trainer, _ = calibrated(tmp_path, "method=transplant", f"method.source_run={place}")
        assert trainer.adapters.ranks() == source["ranks"]


def test_the_identity_is_the_map_not_the_place_it_came_from(tmp_path):
    file = tmp_path / "map.json"
    ids = []
    for text in ('{"self_attn.q_proj": 3}', '{"self_attn.q_proj": 4}', '{"self_attn.q_proj": 3}'):
        file.write_text(text)
        config = configure(tmp_path, "method=transplant", f"method.source_run={file}")
        ids.append(run_id(config.plain()))
        file = tmp_path / f"other{len(ids)}.json"
    assert ids[0] == ids[2] != ids[1]


def test_a_pattern_file_matches_as_peft_does(tmp_path):
    (tmp_path / "map.json").write_text('{"q_proj": 3, "model.layers.1.self_attn.q_proj": 5, ".*": 1}')
    trainer, _ = calibrated(tmp_path, "method=transplant", f"method.source_run={tmp_path / 'map.json'}")
    ranks = trainer.adapters.ranks()
    assert ranks["model.layers.0.self_attn.q_proj"] == 3
    assert ranks["model.layers.1.self_attn.q_proj"] == 5  # its own name before a pattern
    assert sum(ranks.values()) == 3 + 5 + 12


def test_peft_patterns_match_as_peft_matches_them(tmp_path):
    content = {
        "peft_type": "LORA",
        "r": 4,
        "rank_pattern": {"layers.1.self_attn.q_proj": 7, r"layers\.\d+\.mlp\.down_proj": 2},
        "target_modules": ["q_proj", "down_proj"],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    trainer, _ = calibrated(tmp_path, "method=transplant", f"method.source_run={tmp_path}")
    ranks = trainer.adapters.ranks()
    assert ranks["model.layers.1.self_attn.q_proj"] == 7
    assert ranks["model.layers.0.self_attn.q_proj"] == 4
    assert ranks["model.layers.0.mlp.down_proj"] == ranks["model.layers.1.mlp.down_proj"] == 2
    assert sum(ranks.values()) == 7 + 4 + 2 + 2


@pytest.mark.slow
def test_a_run_of_a_method_that_allocates_while_training_can_be_the_source(tmp_path):
    source = perform(configure(tmp_path, *EQUAL, "method=adalora"))
    assert source["ranks"] != dict.fromkeys(source["ranks"], 8)
    where = ["method.source=null", f"method.source_run={source['run_id']}"]
    for name in ("permuted", "reversed", "by_type"):
        trainer, _ = calibrated(tmp_path, f"method={name}", *where)
        assert trainer.allocator.static
        assert trainer.adapters.ranks() != source["ranks"]
        assert sum(trainer.adapters.ranks().values()) == sum(source["ranks"].values())
    assert trainer.engine.meter.spent["calibration"]["forward_passes"] == 0
    scaled, _ = calibrated(tmp_path, "method=scaled", *where)
    assert len({scaled.adapters.scale(site.name) for site in scaled.adapters.sites}) > 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=permuted", "method.source=adalora"],
            r"method.source=adalora: decides while training; give method.so",
        ),
        (["method=permuted", "method.source=reversed"], r"method.source=reversed: is a control itself; give method.so"),
        (
            ["method=permuted", "method.source=oracle"],
            r"method.source=oracle: is a control itself; give method.source_run",
        ),
        (["method=permuted", "method.source=fin"], r"method.source=fin: method 'fin' is unknown; did you mean fim"),
        (["method=permuted", "method.source=null"], r"method.source, method.source_run: give one of them"),
        (["method=permuted", "method.within=site"], r"method.within=site: expected one of all, type, layer"),
        (["method=reversed", "method.map_number=1"], r"method.map_number=1: reversed draws nothing; take null"),
        (["method=by_type", "method.within=layer"], r"method.within=layer: by_type averages within type"),
        (["method=transplant"], r"method.source_run: missing"),
        (["method=transplant", "method.source_run=null"], r"method.source_run: must be given"),
        (["method=transplant", "method.source_run=nowhere"], r"method.source_run=nowhere: no run and no file there"),
        (
            ["method=by_type", "+method.settings.batchs=3"],
            r"method.settings.batchs=3: unknown key; did you mean batches",
        ),
        (["method=by_type", "+method.settings.cap=0.5"], r"method.settings.cap=0.5: expected a number >= 1"),
    ],
)
def test_mistakes_are_named_before_any_work(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(tmp_path, *overrides)


def test_the_settings_of_the_source_are_part_of_the_record(tmp_path):
    config = configure(tmp_path, "method=permuted", "+method.settings.batches=3")
    assert config.method.settings["batches"] == 3
    assert config.method.settings["cap"] == 2.0


def test_a_map_that_names_no_site_of_this_model_or_a_failed_run_is_refused(tmp_path):
    (tmp_path / "map.json").write_text('{"layers.9.q_proj": 3}')
    config = configure(tmp_path, "method=transplant", f"method.source_run={tmp_path / 'map.json'}")
    with pytest.raises(ValueError, match=r"no rank for model.layers.0.self_attn.q_proj \(14 sites\)"):
        assemble(config)
    (tmp_path / "record.json").write_text('{"schema_version": 1, "status": "nan", "ranks": {"a": 1}}')
    with pytest.raises(ValueError, match=r"record.json: the run ended with status nan; finish it first"):
        rank_map(str(tmp_path), tmp_path)
    (tmp_path / "record.json").write_text('{"schema_version": 1, "status": "ok", "ranks": null, "method": "full"}')
    with pytest.raises(ValueError, match=r"record.json: the run has no rank map .method full trains no adapter"):
        rank_map(str(tmp_path), tmp_path)
    (tmp_path / "odd.json").write_text('{"a": "b"}')
    with pytest.raises(ValueError, match=r"odd.json: neither a record, nor PEFT"):
        rank_map(str(tmp_path / "odd.json"), tmp_path)


def test_weights_of_zero_switch_a_site_off(tmp_path):
    trainer, _ = calibrated(tmp_path, "method=scaled")
    with trainer.adapters.deciding("test", "calibrate", 0):
        trainer.adapters.set_scale_factors({"model.layers.0.self_attn.q_proj": 0.0})
    A, B = trainer.adapters.factors("model.layers.0.self_attn.q_proj")
    B.data.fill_(1.0)
    assert not trainer.adapters.delta("model.layers.0.self_attn.q_proj").any()
    assert torch.isfinite(A).all()
