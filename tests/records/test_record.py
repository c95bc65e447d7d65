"""The record: its contents, how it is read, and the id of a run."""

import copy
import json
import math
import re

import pytest
from support.harness import configure, folder_of, perform

from rankbench.config.sections import Config
from rankbench.records.record import (
    SCHEMA_VERSION,
    STATUSES,
    STOPPED,
    RecordError,
    RunRecord,
    budget_name,
    complete,
    group_id,
    portable,
    run_id,
)

KEYS = {
    *(
        "schema_version",
        "run_id",
        "status",
        "reason",
        "method",
        "model",
        "task",
        "budget",
        "seed",
        "config",
        "provenance",
    ),
    *("ledger", "ranks", "history_events", "metrics", "cost", "budget_kind", "notes"),
}


def record(**changes) -> RunRecord:
    given = {
        "run_id": "0123456789ab",
        "status": "ok",
        "reason": None,
        "method": "lora",
        "model": "tiny",
        "task": "planted",
        "budget": "r8",
        "seed": 3,
        "config": {"train": {"steps": 5, "learning_rate": 1e-3}, "seed": 3},
        "provenance": {"git_commit": None},
        "ranks": {"layers.0.q": 8},
        "metrics": {"before": None, "validation": {"step": 5, "loss": 0.1 + 0.2}, "test": {"step": 5, "loss": 1e-17}},
    }
    return RunRecord(**{**given, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A record as a run leaves it."""
    config = configure(tmp_path_factory.mktemp("results"), "method=adalora")
    perform(config)
    return json.loads((folder_of(config).path / "record.json").read_text())


# --------------------------------------------------------------------------------------------------------- JSON


def test_round_trip():
    for one in (record(), record(status="nan", reason="loss is nan at step 3", ranks=None, metrics=None)):
        assert RunRecord.from_json(one.to_json()) == one


def test_an_older_record_has_no_notes_and_no_kind_of_budget():
    content = json.loads(record(notes=["a note"], budget_kind="exact").to_json())
    assert RunRecord.from_json(json.dumps(content)).notes == ["a note"]
    del content["notes"], content["budget_kind"]
    older = RunRecord.from_json(json.dumps(content))
    assert (older.notes, older.budget_kind) == ([], None)


def test_text_is_the_same_whatever_the_order_of_keys():
    one = record(cost={"b": 1, "a": {"d": [{"f": 1, "e": 2}], "c": 2}})
    other = record(cost={"a": {"c": 2, "d": [{"e": 2, "f": 1}]}, "b": 1})
    assert one.to_json() == other.to_json()
    assert one.to_json().endswith("}\n")


def test_metrics_and_sites_are_read_in_the_order_of_the_run():
    metrics = {"validation": {"step": 9, "loss": 0.1, "accuracy": 0.5}, "test": {"step": 9, "loss": 0.2}}
    ranks = {"layers.0.q_proj": 1, "layers.0.k_proj": 2, "layers.10.q_proj": 3, "layers.2.q_proj": 4}
    again = RunRecord.from_json(record(metrics=metrics, ranks=ranks).to_json())
    assert list(again.ranks) == list(ranks)
    assert [list(again.metrics), list(again.metrics["validation"])] == [list(metrics), list(metrics["validation"])]
    assert RunRecord.from_json(again.to_json()) == again
    assert again.digest() == record(metrics=metrics, ranks=ranks).digest()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_becomes_null(value):
    text = record(metrics={"test": {"loss": value, "kl": 0.5, "many": [value, 1.0]}}).to_json()
    assert json.loads(text)["metrics"] == {"test": {"loss": None, "kl": 0.5, "many": [None, 1.0]}}


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_a_torn_file_is_named(cut):
    with pytest.raises(RecordError, match=r"runs/x/record.json: not JSON \("):
        RunRecord.from_json(record().to_json()[:cut], "runs/x/record.json")


def test_a_foreign_file_is_named_with_what_is_odd_about_it():
    with pytest.raises(RecordError, match=r"a.json: not a run record \(keys missing or unknown: list\)"):
        RunRecord.from_json("[1, 2]", "a.json")
    content = json.loads(record().to_json())
    del content["ledger"]
    content["speed"] = 1
    with pytest.raises(
        RecordError, match=r"a.json: not a run record \(keys missing or unknown: \['ledger', 'speed'\]\)"
    ):
        RunRecord.from_json(json.dumps(content), "a.json")


@pytest.mark.parametrize(
    ("key", "value"), [("status", "done"), ("run_id", 5), ("config", []), ("ranks", "8"), ("cost", 1)]
)
def test_a_record_with_values_of_another_kind_is_none(key, value):
    content = {**json.loads(record().to_json()), key: value}
    with pytest.raises(RecordError, match=rf"a.json: not a run record \(values of another kind: \['{key}'\]\)"):
        RunRecord.from_json(json.dumps(content), "a.json")


def test_another_schema_version_is_refused():
    content = json.loads(record().to_json())
    content["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(RecordError, match=rf"a.json: schema {SCHEMA_VERSION + 1}, this version reads {SCHEMA_VERSION}"):
        RunRecord.from_json(json.dumps(content), "a.json")


# ---------------------------------------------------------------------------------------------- what a run writes


def test_a_run_writes_every_key_that_others_read(written):
    assert set(written) == KEYS
    assert RunRecord.from_json(json.dumps(written)).run_id == written["run_id"]
    assert written["schema_version"] == SCHEMA_VERSION
    assert written["status"] == "ok"
    assert written["status"] in STATUSES
    assert written["reason"] is None
    assert (written["method"], written["model"], written["task"], written["budget"], written["seed"]) == (
        "adalora",
        "tiny",
        "planted",
        "true_ranks",
        0,
    )
    assert set(written["ledger"]) >= {"unit", "target", "start", "peak", "final", "head_params"}
    for moment in ("start", "peak", "final"):
        assert set(written["ledger"][moment]) == {"ranks", "params"}
    assert set(written["metrics"]) == {"before", "validation", "test"}
    phases = {key for key in written["cost"] if key != "peak_memory_bytes"}
    assert phases == {"calibration", "training", "allocation", "evaluation"}
    for phase in phases:
        assert set(written["cost"][phase]) == {"seconds", "forward_passes", "backward_passes", "tokens"}


def test_its_figures_agree_with_each_other(written):
    ledger, ranks = written["ledger"], written["ranks"]
    assert ledger["head_params"] == 0
    assert ledger["start"]["params"] == ledger["peak"]["params"] > 1.4 * ledger["target"]
    assert abs(ledger["final"]["params"] - ledger["target"]) <= 0.02 * ledger["target"]
    assert sum(ranks.values()) == ledger["final"]["ranks"]
    assert len(ranks) == 14
    assert "model.layers.0.self_attn.q_proj" in ranks
    assert written["history_events"] >= sum(rank != 5 for rank in ranks.values()) > 0
    metrics = written["metrics"]
    assert [metrics[split]["step"] for split in ("before", "validation", "test")] == [0, 12, 12]
    assert set(metrics["test"]) == {"step", "loss", "kl", "map_overlap", "map_correlation"}
    cost = written["cost"]
    assert cost["training"]["forward_passes"] == cost["training"]["backward_passes"] == 12
    assert cost["training"]["tokens"] == 12 * 4 * 8
    assert cost["evaluation"] == {
        **cost["evaluation"],
        "forward_passes": 3,
        "backward_passes": 0,
        "tokens": (8 + 8 + 8) * 8,
    }
    assert cost["peak_memory_bytes"] > 2**20
    assert 0 < cost["training"]["seconds"] < 60


def test_provenance_says_where_the_numbers_come_from(written):
    found = written["provenance"]
    assert set(found) >= {"git_commit", "git_dirty", "packages", "device", "model", "task", "processes", "threads"}
    assert {"torch", "peft", "transformers", "rankbench"} <= set(found["packages"])
    assert found["packages"]["peft"].startswith("0.21")
    assert len(found["model"]["model"]) == 64
    assert found["task"]["data"] == "generated"
    assert found["processes"] == 1


# --------------------------------------------------------------------------------------------------------- identity


def plain(tmp_path, *overrides):
    return configure(tmp_path, *overrides).plain()


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(tree, path):
    tree = copy.deepcopy(tree)
    section = tree
    for key in path[:-1]:
        section = section[key]
    value = section[path[-1]]
    if isinstance(value, bool):
        section[path[-1]] = not value
    elif isinstance(value, int | float):
        section[path[-1]] = value + 1
    elif isinstance(value, list):
        section[path[-1]] = [*value, "x"]
    else:
        section[path[-1]] = f"{value}x"
    return tree


def test_a_run_is_named_by_everything_but_what_cannot_change_a_number(tmp_path):
    config = plain(tmp_path, "method=igu")
    config["task"]["data_dir"] = None
    ignored = {path for path in leaves(config) if run_id(changed(config, path)) == run_id(config)}
    assert ignored == {
        ("results_dir",),
        ("tracking", "name"),
        ("tracking", "project"),
        ("tracking", "mode"),
        ("tracking", "timeout"),
        ("task", "kind"),
        ("train", "checkpoint_every"),
        ("train", "passes_of"),
        ("budget", "peak_of"),
        ("tuned",),
    }


def test_the_order_of_keys_does_not_matter(tmp_path):
    def backwards(tree):
        return {key: backwards(tree[key]) if isinstance(tree[key], dict) else tree[key] for key in reversed(tree)}

    config = plain(tmp_path)
    assert list(backwards(config)) != list(config)
    assert run_id(backwards(config)) == run_id(config)
    assert len(run_id(config)) == 12
    assert int(run_id(config), 16) >= 0


def test_an_id_is_not_made_from_the_config_it_was_given(tmp_path):
    config = plain(tmp_path)
    before = copy.deepcopy(config)
    run_id(config)
    assert config == before


@pytest.mark.parametrize(("section", "key"), [("model", "path"), ("task", "data_dir")])
def test_a_path_counts_by_its_content(tmp_path, section, key):
    config = plain(tmp_path)
    names = {}
    for name, content in {"a": "one", "b": "one", "c": "two"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.jsonl").write_text(content)
        config[section][key] = str(tmp_path / name)
        names[name] = run_id(config)
    assert names["a"] == names["b"] != names["c"]
    config[section][key] = None
    assert run_id(config) not in names.values()
    config[section][key] = str(tmp_path / "typo")
    missing = run_id(config)
    assert missing not in names.values()
    config[section][key] = None
    assert run_id(config) != missing


def test_a_factor_of_1_leaves_a_run_its_name_and_another_one_names_the_budget(tmp_path):
    config = plain(tmp_path)
    former, half = copy.deepcopy(config), copy.deepcopy(config)
    del former["budget"]["factor"]
    half["budget"]["factor"] = 0.5
    assert run_id(former) == run_id(config) != run_id(half)
    assert [budget_name(each["budget"]) for each in (former, config, half)] == [
        "true_ranks",
        "true_ranks",
        "true_ranksx0.5",
    ]
    assert Config.from_plain(former).plain() == config


def test_a_group_is_the_run_without_its_seed(tmp_path):
    config = plain(tmp_path, "method=igu")
    ignored = {path for path in leaves(config) if group_id(changed(config, path)) == group_id(config)}
    assert ignored == {path for path in leaves(config) if run_id(changed(config, path)) == run_id(config)} | {("seed",)}
    assert group_id(config) != run_id(config)


def test_runs_of_one_group_may_differ_in_the_map_that_a_control_was_given(tmp_path):
    config = plain(tmp_path)
    groups = set()
    for seed, rank in enumerate((1, 2)):
        given = {"name": "transplant", "source_run": f"/somewhere/runs/{rank}", "origin": "igu", "ranks": {"a": rank}}
        groups.add(group_id({**config, "seed": seed, "method": given}))
    assert len(groups) == 1
    assert group_id({**config, "method": {**given, "origin": "adalora"}}) not in groups


def test_a_record_saved_for_others_is_in_the_group_of_its_run(tmp_path):
    config = plain(tmp_path)
    (tmp_path / "data").mkdir()
    config["task"]["data_dir"] = str(tmp_path / "data")
    saved = portable({"config": copy.deepcopy(config)})["config"]
    assert saved["task"]["data_dir"] == "data"
    assert group_id(saved) == group_id(config)
    assert run_id(saved) != run_id(config)


def test_records_that_are_published_name_no_place_of_this_machine(tmp_path):
    """Not even the run that a control started from: its last part, the run_id, stays."""
    content = {"config": {"results_dir": "/a/b", "method": {"source_run": "/a/b/runs/0123456789ab"}, "task": {}}}
    assert portable(content)["config"] == {
        "results_dir": "b",
        "method": {"source_run": "0123456789ab"},
        "task": {},
    }


# ------------------------------------------------------------------------------------------------- what a sweep leaves


@pytest.mark.parametrize("status", STATUSES)
def test_a_sweep_leaves_what_would_end_the_same_way(status):
    """An interrupted run goes on; a failed one is done again on request, but not what another attempt has left."""
    found = record(status=status, reason="why")
    assert found.is_final() == (status not in STOPPED)
    assert found.is_final("of another attempt") == (status not in STOPPED)
    assert found.is_final(found.digest()) == (status == "ok")
    assert STOPPED == ("killed",)


def test_a_digest_is_that_of_the_file():
    one = record(metrics={"test": {"loss": math.nan}})
    assert RunRecord.from_json(one.to_json()).digest() == one.digest()
    assert record(reason="another").digest() != record().digest()
    assert re.fullmatch("[0-9a-f]{64}", one.digest())


# ----------------------------------------------------------------------------------------------------- tuning trials


def test_a_trial_leaves_the_test_split_alone_and_is_another_run(tmp_path):
    whole, trial = (configure(tmp_path, f"trial={value}") for value in ("false", "true"))
    assert perform(trial)["code"] == 0
    assert folder_of(trial).path != folder_of(whole).path
    found = folder_of(trial).record()
    assert found.metrics["test"] is None
    assert found.metrics["validation"]["loss"] > 0
    assert not (folder_of(trial).path / "items.jsonl").exists()


def test_a_run_that_is_no_trial_has_the_name_it_had_before_there_were_trials(tmp_path):
    config = configure(tmp_path).plain()
    named = run_id(config)
    del config["trial"], config["tuned"]
    assert run_id(config) == named
    config["tuned"] = {"metric": "validation/loss"}
    assert run_id(config) == named


@pytest.mark.parametrize(
    ("overrides", "section", "key", "other"),
    [
        (["method=adalora"], "", "cut", "stop"),
        (["method=igu"], "", "stage2_orthogonality", 0.1),
        (["method=sora"], "", "step", "released"),
        (["method=sora"], "", "loss_l1", 1.0),
        (["method=gora"], "", "direction", "up"),
        (["method=permuted", "method.source=gora"], "settings", "width", "sum"),
        (["method=permuted"], "", "map_number", 0),
        (["method=reversed"], "", "map_number", 0),
    ],
)
def test_a_setting_that_came_later_leaves_runs_their_names(tmp_path, overrides, section, key, other):
    config = plain(tmp_path, *overrides)
    former, changed = copy.deepcopy(config), copy.deepcopy(config)
    for of in (former, changed):
        settings = of["method"][section] if section else of["method"]
        settings.pop(key) if of is former else settings.update({key: other})
    assert run_id(former) == run_id(config) != run_id(changed)
    assert complete(former) == config != complete(changed)
    assert Config.from_plain(former).plain() == config


def test_a_run_keeps_its_name_where_its_method_gets_another(tmp_path):
    config = plain(tmp_path, "method=permuted")
    former = {**config, "method": {**config["method"], "name": "shuffled"}}
    del former["method"]["map_number"]
    assert run_id(former) == run_id(config)
    assert Config.from_plain(former).plain() == config
