"""The command line sorted and laid out as runs; every mistake is named before any run starts."""

import pytest
from support.harness import SMALL_EXPERIMENT, write_experiment

from rankbench.config.schema import ConfigError
from rankbench.sweeps.composition import SweepArguments, _mistuned, lay_out, words
from rankbench.sweeps.experiment import Tune

RUN = ["model=tiny", "task=planted"]


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("conf"))


def test_words_are_sorted_by_who_reads_them():
    typed = ["experiment=x", "scale=small", "arms=[a,b c]", "retry=failed", "tune.widen=0", "seed=0,1", "model=tiny"]
    launch = ["hydra.launcher.slots=2", "hydra/launcher=local", "+hydra.launcher.foo=1"]
    assert words([*typed, *launch]) == SweepArguments(
        "x", "small", ["a", "b c"], "failed", tune={"widen": 0}, settings=["seed=0,1", "model=tiny"], hydra=launch
    )
    assert words(["experiment=x", "ladder.gate=false", "futile=allow"]) == SweepArguments(
        "x", futile="allow", ladder={"gate": False}
    )
    assert words(["seed=0"]) == SweepArguments(settings=["seed=0"])


@pytest.mark.parametrize("typed", ["arms=[a,b]", "arms=a,b"])
def test_arms_are_a_list_however_they_are_typed(typed):
    assert words(["experiment=x", typed]).arms == ["a", "b"]
    assert words(["experiment=x", "arms=a"]).arms == ["a"]


@pytest.mark.parametrize("typed", ["tune.learning_rate=[1e-3,1e-2]", "tune.learning_rate=1e-3,1e-2"])
def test_rates_are_a_list_however_they_are_typed(typed):
    assert words([typed]).tune == {"learning_rate": [1e-3, 1e-2]}


@pytest.mark.parametrize(
    ("typed", "problems"),
    [
        (["retry=faild"], ["retry=faild: unknown; did you mean failed? known are failed, none."]),
        (["arms=[a]"], ["scale, arms, cells and ladder belong to an experiment: add experiment=NAME"]),
        (["scale=small", "retry=x"], ["retry=x: unknown; known are failed, none.", "scale, arms, cells and ladder"]),
        (["experiment=x", "arms=[a"], ["arms=[a: cannot be read; write key=value, and quote a value with special"]),
        (["tune.learning_rate=[1e-3,"], ["tune.learning_rate=[1e-3,: cannot be read; write key=value"]),
    ],
)
def test_words_that_cannot_be_understood(typed, problems):
    with pytest.raises(ConfigError) as error:
        words(typed)
    assert len(error.value.problems) == len(problems)
    for found, expected in zip(error.value.problems, problems, strict=True):
        assert found.startswith(expected)


def test_without_an_experiment_every_combination_is_a_run():
    layout = lay_out(words(["method=lora,random", "seed=0,1", "budget=r2", *RUN]))
    assert layout.experiment is None
    assert layout.tune is None
    assert [(f.config["method"]["name"], f.config["seed"]) for f in layout.cells] == [
        ("lora", 0),
        ("lora", 1),
        ("random", 0),
        ("random", 1),
    ]
    assert layout.cells[1].point == {"method": "method=lora", "seed": "seed=1"}
    assert layout.cells[1].overrides == ["method=lora", "seed=1", "budget=r2", *RUN]
    assert {f.config["budget"]["name"] for f in layout.cells} == {"r2"}


def test_a_setting_that_only_the_swept_methods_have():
    """Hydra would look for it in the default method, which has none."""
    layout = lay_out(words(["method=permuted,reversed", "method.source=sensitivity", *RUN]))
    assert [(f.config["method"]["name"], f.config["method"]["source"]) for f in layout.cells] == [
        ("permuted", "sensitivity"),
        ("reversed", "sensitivity"),
    ]


def test_an_experiment_lays_out_its_arms_and_the_command_line_wins(config_dir):
    layout = lay_out(words(["experiment=small", "arms=[lora,random permuted,random]", "train.steps=5"]), config_dir)
    assert [f.arm for f in layout.cells] == ["lora", "random", "random permuted"] * 2
    assert {f.config["train"]["steps"] for f in layout.cells} == {5}
    assert layout.tune == Tune(learning_rate=[1e-3, 1e-2], seeds=[100], metric="validation/loss", widen=1)
    tuned = lay_out(words(["experiment=small", "arms=lora", "tune.widen=3", "seed=4"]), config_dir)
    assert tuned.tune == Tune(learning_rate=[1e-3, 1e-2], seeds=[100], metric="validation/loss", widen=3)
    assert [f.config["seed"] for f in tuned.cells] == [4]


def test_what_is_laid_out_is_no_longer_that_of_the_file(config_dir, tmp_path):
    write_experiment(tmp_path)
    layout = lay_out(words(["experiment=small", "arms=lora"]), tmp_path)
    write_experiment(tmp_path, SMALL_EXPERIMENT.replace("train.steps: 3", "train.steps: 4"))
    assert {f.config["train"]["steps"] for f in layout.cells} == {3}
    assert {f.config["train"]["steps"] for f in lay_out(words(["experiment=small"]), tmp_path).cells} == {4}


@pytest.mark.parametrize(
    ("typed", "problems"),
    [
        (["experiment=smal"], ["experiment=smal: unknown experiment; did you mean small?"]),
        (["experiment=small", "scale=tiny"], ["scale=tiny: experiment=small has no such scale"]),
        (["experiment=small", "arms=[lroa]"], ["arms: experiment=small has no arm 'lroa'; did you mean lora?"]),
        (
            ["experiment=small", "arms=[random reversed]"],
            ["arm random reversed: method.source_run={random}: not among the arms that are run; did you mean"],
        ),
        (
            [
                *("experiment=small", "arms=lora,random", "method=igu", "train.learning_rate=1", "trial=true"),
                *("tune.metric=test/loss", "tune.seeds=[]", "tune.learning_rate=[]", "train.steps=0"),
            ],
            [
                "train.learning_rate: is chosen by tune.learning_rate; give one of the two",
                "method: the arms of experiment=small name it; choose some of them: arms=[lora,random]",
                "trial: is filled in by a sweep with tune.learning_rate",
                "tune.learning_rate=[]: at least one must be tried",
                "tune.seeds=[]: at least one must be tried",
                "tune.metric=test/loss: learning rates are chosen on validation alone, by one of validation/kl,",
                "arms lora, random: train.steps=0: expected a number >= 1",
            ],
        ),
        (
            ["method=lora", *RUN, "train.learning_rate=interval(1e-4,1e-2)"],
            ["train.learning_rate=interval(1e-4,1e-2): names no values, and a sweep is a grid here; write"],
        ),
        (
            ["experiment=small", "tune.learning_rate=interval(1,2)"],
            ["tune.learning_rate=interval(1,2): cannot be read"],
        ),
        (["experiment=small", "tune.learning_rate=[-1]"], ["tune.learning_rate: -1 is no learning rate"]),
        (["experiment=small", "tune.rate=1"], ["tune.rate=1: unknown key"]),
        (
            ["experiment=small", "budget=r2,r4", "tune.pooled=[budgt]"],
            ["tune.pooled: no axis 'budgt'; did you mean budget"],
        ),
        (["method=lora", *RUN, "tune.widen=1"], ["tune.learning_rate: missing; give tune.learning_rate=<a list"]),
    ],
)
def test_a_sweep_that_cannot_be_done_says_why(config_dir, typed, problems):
    with pytest.raises(ConfigError) as error:
        lay_out(words(typed), config_dir)
    assert len(error.value.problems) == len(problems), error.value.problems
    for found, expected in zip(error.value.problems, problems, strict=True):
        assert found.startswith(expected)


def test_a_control_is_not_tuned_at_ranks_that_no_trial_has(tmp_path):
    """Its source shares another arm's rate, so that it has no trials; the control would wait for ever."""
    told = SMALL_EXPERIMENT.replace("{random}", "{random concentration=0.5}")
    with pytest.raises(ConfigError) as error:
        lay_out(words(["experiment=small", "seed=0"]), write_experiment(tmp_path, told))
    assert error.value.problems == [
        "arm random permuted: is tuned at what it takes from random concentration=0.5, which has no trials: it takes "
        "the learning rate of random; let random permuted take one, too, under shares"
    ]  # random reversed takes lora's


@pytest.mark.parametrize("metric", ["validation/size", "loss", "before/loss"])
def test_rates_are_chosen_by_a_metric_of_validation_whose_direction_is_known(metric):
    (found,) = _mistuned(Tune(learning_rate=[1.0], seeds=[0], metric=metric, widen=0))
    assert found.startswith(f"tune.metric={metric}: learning rates are chosen on validation alone")
    assert list(_mistuned(Tune(learning_rate=[1.0], seeds=[0], metric="validation/kl", widen=0))) == []


def test_all_mistakes_come_at_once_each_once(config_dir):
    typed = ["method=lora,random", "seed=0,x", "train.stps=1", "tune.learning_rate=[]", *RUN]
    with pytest.raises(ConfigError) as error:
        lay_out(words(typed), config_dir)
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "tune.learning_rate=[]",
        "train.stps=1",
        "seed=x",
    ]


@pytest.mark.parametrize(("follows", "map_seeds"), [([], [None, None]), (["task.map_seed=${seed}"], [0, 1])])
def test_runs_that_differ_in_their_seed_are_those_that_are_composed_alone(follows, map_seeds):
    typed = ["method=lora", *RUN, *follows]
    together = [cell.config for cell in lay_out(words([*typed, "seed=0,1"])).cells]
    assert together == [lay_out(words([*typed, f"seed={seed}"])).cells[0].config for seed in (0, 1)]
    assert [(config["seed"], config["task"]["map_seed"]) for config in together] == list(enumerate(map_seeds))


def test_a_seed_that_is_none_is_named_beside_good_ones():
    with pytest.raises(ConfigError) as error:
        lay_out(words(["method=lora", *RUN, "seed=0,x,1.0"]))
    assert error.value.problems == ["seed=x: expected an integer", "seed=1.0: expected an integer"]
