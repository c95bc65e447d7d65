"""The schedule of a sweep: tuning trials, choices, and the runs that use them, from records alone; nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from support.harness import SMALL_EXPERIMENT, write_experiment
from support.schedules import Played, finish

from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import run_id
from rankbench.sweeps.composition import Layout, lay_out, words


@pytest.fixture(scope="module")
def lay(tmp_path_factory):
    """Lays out a command line with the small experiment at hand, each once."""
    made: dict[tuple[str, ...], Layout] = {}

    def lay(*arguments: str, text: str = SMALL_EXPERIMENT) -> Layout:
        config_dir = write_experiment(tmp_path_factory.mktemp("conf"), text)
        if (*arguments, text) not in made:
            made[*arguments, text] = lay_out(words(arguments), config_dir)
        return made[*arguments, text]

    return lay


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The results_dir of every layout."""
    monkeypatch.chdir(tmp_path)
    return Path("results")


@pytest.fixture
def played(lay, results):
    return Played(lay("experiment=small"), results)


def test_trials_come_first_then_the_runs_that_they_choose_for(played):
    kinds = [Counter((job.arm, job.trial) for job in batch) for batch in played.batches]
    assert kinds == [
        {("lora", True): 2, ("random", True): 2},
        {("lora", True): 2, ("random", True): 2},  # both widened
        {
            ("random permuted", True): 4,  # on the grid as the others left it
            **dict.fromkeys([(arm, False) for arm in ("lora", "random", "random concentration=0.5")], 2),
        },
        {("random permuted", False): 2, ("random reversed", False): 2},
    ]
    assert played.sweep.waiting == []
    assert played.schedule.left() == []
    assert played.sweep.jobs == [job for batch in played.batches for job in batch]


def test_a_grid_grows_for_all_arms_alike_at_the_end_where_one_of_them_is(played):
    """Also for an arm whose best rate lies inside what it has tried."""
    grid = [1e-4, 1e-3, 1e-2, 1e-1]
    assert sorted(played.rates("lora", trial=True)) == pytest.approx(grid)
    assert sorted(played.rates("random", trial=True)) == pytest.approx(grid)
    assert sorted(played.rates("random permuted", trial=True)) == pytest.approx(grid)  # a control has as many


def test_a_grid_grows_as_often_as_it_may(lay, results):
    """The best rate is always the largest: 2 trials, and one more each time."""
    layout = lay("experiment=small", "arms=[lora]", "tune.widen=3")
    played = Played(layout, results, loss=lambda frozen: -frozen.config["train"]["learning_rate"])
    assert sorted(played.rates("lora", trial=True)) == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert set(played.rates("lora")) == {10.0}
    assert played.config(played.jobs("lora")[0])["tuned"]["edge"] is True


def test_each_arm_is_run_at_the_rate_that_validation_chose(played):
    """On the test split each of these rates is the worst of all."""
    assert set(played.rates("lora")) == {1e-2}
    assert set(played.rates("random")) == {1e-3}
    assert set(played.rates("random permuted")) == {1e-3}


def test_arms_that_share_a_rate_have_no_trials(played):
    assert played.jobs("random reversed", trial=True) == []
    assert set(played.rates("random reversed")) == {1e-2}  # lora's
    assert played.jobs("random concentration=0.5", trial=True) == []
    assert set(played.rates("random concentration=0.5")) == {1e-3}  # of the arm it varies


def test_trials_are_trials_of_seeds_of_their_own(played):
    trials = [played.config(job) for batch in played.batches for job in batch if job.trial]
    assert {config["seed"] for config in trials} == {100}
    assert {config["trial"] for config in trials} == {True}
    assert {config["tuned"] for config in trials} == {None}
    reported = [played.config(job) for batch in played.batches for job in batch if not job.trial]
    assert {config["seed"] for config in reported} == {0, 1}
    assert {config["trial"] for config in reported} == {False}


def test_the_choice_stands_in_every_run_that_is_reported_of_a_source_of_ranks_too(played):
    for arm in ("lora", "random", "random permuted", "random reversed", "random concentration=0.5"):
        assert {played.config(job)["tuned"]["chosen"] for job in played.jobs(arm)} == set(played.rates(arm))


@pytest.mark.slow
def test_a_control_of_a_control_is_tuned_after_it(lay, results):
    text = SMALL_EXPERIMENT.replace(
        "vary:", '  transplanted: {method: transplant, method.source_run: "{random permuted}"}\nvary:'
    )
    played = Played(lay("experiment=small", text=text), results)
    assert played.sweep.waiting == []
    assert len(played.jobs("transplanted")) == 2
    assert len(played.jobs("transplanted", trial=True)) == len(played.jobs("random", trial=True))


def test_the_choice_stands_in_the_run_that_it_was_made_for_and_does_not_rename_it(played):
    config = played.config(played.jobs("lora")[0])
    assert config["tuned"] == {
        "chosen": 1e-2,
        "metric": "validation/loss",
        "seeds": [100],
        "pooled": [],
        "curve": [
            [1e-4, pytest.approx(0.0099), 0],
            [1e-3, pytest.approx(0.009), 0],
            [1e-2, 0.0, 0],
            [0.1, pytest.approx(0.09), 0],
        ],
        "edge": False,
        "missing": 0,
        "trials": [
            job.run_id
            for job in sorted(played.jobs("lora", trial=True), key=lambda j: played.config(j)["train"]["learning_rate"])
        ],
    }
    assert run_id({**config, "tuned": None}) == played.jobs("lora")[0].run_id
    reversed_ = played.config(played.jobs("random reversed")[0])
    assert reversed_["tuned"] == config["tuned"]


def test_a_control_takes_the_ranks_of_the_run_of_its_seed_and_its_trials_those_of_a_trial(played):
    sources = {played.config(job)["seed"]: job.run_id for job in played.jobs("random")}
    for job in [*played.jobs("random permuted"), *played.jobs("random reversed")]:
        section, seed = played.config(job)["method"], played.config(job)["seed"]
        assert section["source_run"] == sources[seed]
        assert section["ranks"] == {"a": 1 + seed, "b": 3 + seed}
        assert section["origin"] == "random"
    chosen = next(
        job for job in played.jobs("random", trial=True) if played.config(job)["train"]["learning_rate"] == 1e-3
    )
    for job in played.jobs("random permuted", trial=True):
        assert played.config(job)["method"]["source_run"] == chosen.run_id
        assert played.config(job)["method"]["ranks"] == {"a": 101, "b": 103}


def test_what_is_to_be_typed_for_one_run_alone_says_where_it_differs(played):
    job = played.jobs("random permuted")[1]
    source = played.config(job)["method"]["source_run"]
    assert {"seed=1", "train.learning_rate=0.001", f"method.source_run={source}"} <= set(job.overrides)
    assert "trial=true" in played.jobs("lora", trial=True)[0].overrides


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_any_run_takes_the_same_course_again(lay, results, tmp_path, monkeypatch):
    layout = lay("experiment=small")
    whole = Played(layout, results)
    for stopped in (3, 10):
        place = tmp_path / f"stopped{stopped}"
        place.mkdir()
        monkeypatch.chdir(place)
        cut = Played(layout, results, kill_after=stopped)
        assert len(list(results.glob("runs/*/record.json"))) == stopped
        assert cut.batches == whole.batches[: len(cut.batches)]
        again = Played(layout, results)  # runs that are there already may come earlier
        assert again.frozen_runs == whole.frozen_runs
        assert sorted(again.sweep.jobs, key=str) == sorted(whole.sweep.jobs, key=str)


# ------------------------------------------------------------------------------------------------ without experiment


def test_a_sweep_without_an_experiment_is_tuned_method_by_method(lay, results):
    base = ["method=lora,random", "seed=0,1", "model=tiny", "task=planted"]
    played = Played(lay(*base, "tune.learning_rate=[1e-3,1e-2]", "tune.widen=0"), results)
    assert [Counter((job.method, job.trial) for job in batch) for batch in played.batches] == [
        {("lora", True): 6, ("random", True): 6},  # three seeds of each
        {("lora", False): 2, ("random", False): 2},
    ]
    rates = {(job.method, rate) for job, rate in zip(played.jobs(None), played.rates(None), strict=True)}
    assert rates == {("lora", 1e-2), ("random", 1e-3)}


def test_without_tuning_all_runs_are_there_at_once_and_twice_the_same_is_once(lay, results):
    played = Played(lay("method=lora", "seed=0,1", "model=tiny", "task=planted", "tracking=none,none"), results)
    assert [len(batch) for batch in played.batches] == [2]
    assert {played.config(job)["tuned"] for job in played.jobs(None)} == {None}


def test_several_seeds_of_trials_and_a_rate_that_is_typed_twice(lay, results):
    layout = lay("method=lora", "model=tiny", "task=planted", "tune.learning_rate=1e-3,1e-3,1e-2", "tune.seeds=[7,8]")
    played = Played(layout, results)
    assert Counter(played.config(job)["seed"] for job in played.jobs(None, trial=True)) == {7: 3, 8: 3}
    assert played.config(played.jobs(None)[0])["tuned"]["seeds"] == [7, 8]


def by_map(frozen: FrozenRun) -> float:
    """Lowest at another rate on each map, and much larger on one of them."""
    rate, few = frozen.config["train"]["learning_rate"], frozen.config["task"]["map"] == "few"
    return {(True, 1e-3): 0.001, (True, 1e-2): 0.01, (False, 1e-3): 5.0, (False, 1e-2): 1.0}[few, rate]


def test_each_arm_is_tuned_at_each_point_of_the_axes_but_the_seed_unless_an_axis_is_pooled(lay, results):
    typed = ["experiment=small", "arms=[random,random permuted]", "task.map=few,type", "tune.widen=0"]
    apart = Played(lay(*typed), results, loss=by_map)
    chosen = [apart.config(job) for job in apart.jobs("random")]
    rates = {(config["task"]["map"], config["train"]["learning_rate"]) for config in chosen}
    assert rates == {("few", 1e-3), ("type", 1e-2)}
    pooled = Played(lay(*typed, "tune.pooled=[task.map]"), results, loss=by_map)
    for arm in ("random", "random permuted"):
        assert len(pooled.jobs(arm, trial=True)) == len(pooled.jobs(arm)) == 4
        assert set(pooled.rates(arm)) == {1e-3}
    runs = {job.run_id: pooled.config(job)["task"]["map"] for job in pooled.sweep.jobs}
    controls = [pooled.config(job) for trial in (True, False) for job in pooled.jobs("random permuted", trial=trial)]
    assert all(runs[config["method"]["source_run"]] == config["task"]["map"] for config in controls)


# ---------------------------------------------------------------------------------------------- what cannot be done


def failing(monkeypatch, fails: Callable[[FrozenRun], str | None]) -> None:
    done = finish

    def maybe(frozen: FrozenRun, **how) -> None:
        done(frozen, fails(frozen) or "ok")

    monkeypatch.setattr("support.schedules.finish", maybe)


def test_a_rate_that_fails_is_part_of_the_grid_and_not_chosen(lay, results, monkeypatch):
    failing(
        monkeypatch,
        lambda frozen: "nan" if frozen.config["trial"] and frozen.config["train"]["learning_rate"] == 1e-2 else None,
    )
    played = Played(lay("experiment=small", "arms=[lora]", "tune.widen=0"), results)
    assert set(played.rates("lora")) == {1e-3}
    assert played.config(played.jobs("lora")[0])["tuned"]["curve"] == [[1e-3, pytest.approx(9e-3), 0], [1e-2, None, 1]]


def test_an_arm_whose_trials_all_failed_is_said_to_wait_and_the_others_go_on(lay, results, monkeypatch):
    failing(monkeypatch, lambda frozen: "oom" if frozen.config["method"]["name"] == "random" else None)
    played = Played(lay("experiment=small", "arms=[lora,random]"), results)
    assert played.sweep.waiting[0] == "random: all 3 trials failed: no learning rate can be chosen"  # it tries lora's
    assert "random: waits for the learning rate of random" in played.sweep.waiting
    assert played.jobs("random") == []
    assert len(played.jobs("lora")) == 2
    assert {cell.arm for cell in played.schedule.left()} == {"random"}


def test_a_grid_without_a_rate_that_has_all_its_seeds_chooses_nothing(lay, results, monkeypatch):
    """Two rates, two seeds, each rate fails at one of them: the mean of what survived is no choice."""
    failed = {(1e-3, 7), (1e-2, 8)}
    failing(
        monkeypatch,
        lambda frozen: "nan" if (frozen.config["train"]["learning_rate"], frozen.config["seed"]) in failed else None,
    )
    layout = lay("method=lora", "model=tiny", "task=planted", "tune.learning_rate=[1e-3,1e-2]", "tune.seeds=[7,8]")
    played = Played(layout, results)
    assert played.jobs(None) == []
    assert "no learning rate can be chosen (" in played.sweep.waiting[0]
    assert "no learning rate has validation/loss at every tuning seed" in played.sweep.waiting[0]


def test_trials_that_were_interrupted_are_waited_for(lay, results, monkeypatch):
    failing(monkeypatch, lambda frozen: "killed" if frozen.config["train"]["learning_rate"] == 1e-2 else None)
    layout = lay("experiment=small", "arms=[lora]")
    played = Played(layout, results)
    assert played.sweep.waiting[0] == "lora: 1 of 2 trials have not finished"
    monkeypatch.undo()
    monkeypatch.chdir(Path.cwd())
    assert len(Played(layout, results).jobs("lora")) == 2


def test_a_control_of_a_run_that_failed_says_which(lay, results, monkeypatch):
    failing(
        monkeypatch,
        lambda frozen: "nan" if frozen.config["method"]["name"] == "random" and frozen.config["seed"] == 1 else None,
    )
    played = Played(lay("experiment=small"), results)
    assert len(played.jobs("random reversed")) == 1
    (source,) = [job for job in played.jobs("random") if played.config(job)["seed"] == 1]
    place = results / "runs" / source.run_id / "record.json"
    sentence = f"random reversed: {place}: the run ended with status nan; finish it first"
    assert sentence in played.sweep.waiting


def test_failed_runs_are_ordered_again_on_request_alone(lay, results, monkeypatch):
    layout = lay("experiment=small", "arms=[lora]", "tune.widen=0")
    with monkeypatch.context() as patch:
        failing(patch, lambda frozen: None if frozen.config["trial"] else "oom")
        failed = Played(layout, results)
    assert {frozen.redo for frozen in failed.frozen_runs.values()} == {None}
    digests = {job.run_id: failed.frozen_runs[job.run_id].folder.record().digest() for job in failed.jobs("lora")}
    left = Played(layout, results)
    assert {left.frozen_runs[name].folder.record().status for name in digests} == {"oom"}
    again = Played(layout, results, retry=True)
    redo = {name: frozen.redo for name, frozen in again.frozen_runs.items()}
    assert redo == {**dict.fromkeys(redo), **digests}
    assert {again.frozen_runs[name].folder.record().status for name in digests} == {"ok"}


def test_a_choice_is_plain_data(played):
    (group, *_) = played.schedule._stages[0].groups
    assert played.config(played.jobs("lora")[0])["tuned"] == asdict(group.choice)
