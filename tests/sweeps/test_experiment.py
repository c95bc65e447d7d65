"""Experiments: how a file becomes cells, what is refused, and that every file in conf/experiment can start."""

from __future__ import annotations

import functools
import itertools
import json

import pytest

from rankbench.config.overrides import examiner
from rankbench.config.registry import names as registered
from rankbench.config.schema import ConfigError
from rankbench.published import numbers
from rankbench.sweeps import experiment_files
from rankbench.sweeps.cells import parts
from rankbench.sweeps.experiment import arms, rates_of
from rankbench.sweeps.experiment_files import load, read, tune
from rankbench.sweeps.grid import GridCell, cells_of, spell
from rankbench.sweeps.selection import at_scale, with_arms

FILES = sorted(experiment_files.names())

REPORT = {"reference": "lora"}
SMALLEST = {
    "name": "x",
    "question": "Does it?",
    "source": "a paper",
    "arms": {"lora": {"method": "lora"}, "igu": {"method": "igu", "method.beta1": 0.9}},
    "axes": {"task": ["a", "b"], "seed": [0, 1]},
    "report": REPORT,
}


def made(**changes):
    return read({**SMALLEST, **changes}, "x.yaml")


def laid_out(found, **typed):
    """(arm, overrides) of each cell."""
    return [(cell.arm, cell.overrides) for cell in cells_of(found, typed)]


def test_arms_vary_fastest_and_axes_in_their_order():
    found = laid_out(made())
    assert found[:3] == [
        ("lora", ["task=a", "seed=0", "method=lora"]),
        ("igu", ["task=a", "seed=0", "method=igu", "method.beta1=0.9"]),
        ("lora", ["task=a", "seed=1", "method=lora"]),
    ]
    assert len(found) == 8


def test_a_cell_knows_where_it_stands():
    assert cells_of(made(), {})[-1] == GridCell(
        "igu",
        {"task": "task=b", "seed": "seed=1"},
        {"task": "task=b", "seed": "seed=1", "method": "method=igu", "method.beta1": "method.beta1=0.9"},
    )


def test_settings_come_first_and_an_arm_wins_over_them():
    found = made(settings={"model": "tiny", "method.beta1": 0.5, "train.steps": 7})
    assert laid_out(found)[1] == (
        "igu",
        ["model=tiny", "method.beta1=0.9", "train.steps=7", "task=a", "seed=0", "method=igu"],
    )


def test_what_is_typed_once_wins_over_axis_arm_and_condition():
    found = made(when={"task=z": {"train.steps": 9}}, settings={"train.steps": 7})
    typed = {"task": ["task=z"], "method.beta1": ["method.beta1=0.1"], "seed": ["seed=5"]}
    assert laid_out(found, **typed) == [
        ("lora", ["train.steps=9", "method=lora", "task=z", "method.beta1=0.1", "seed=5"]),
        ("igu", ["train.steps=9", "method=igu", "method.beta1=0.1", "task=z", "seed=5"]),
    ]
    assert "train.steps=3" in laid_out(found, **typed, **{"train.steps": ["train.steps=3"]})[0][1]


def test_several_typed_values_take_the_place_of_an_axis_or_make_one_more():
    found = cells_of(made(), {"seed": ["seed=7", "seed=8", "seed=9"], "budget": ["budget=r2", "budget=r4"]})
    assert len(found) == 2 * 2 * 3 * 2
    assert {cell.point["seed"] for cell in found} == {"seed=7", "seed=8", "seed=9"}
    assert {cell.point["budget"] for cell in found} == {"budget=r2", "budget=r4"}


def test_each_varied_value_is_an_arm_that_differs_in_it_alone():
    found = made(vary={"igu": {"method.beta1": [0.5], "method.score": ["ratio", "product"]}})
    assert arms(found) == {
        **SMALLEST["arms"],
        "igu beta1=0.5": {"method": "igu", "method.beta1": 0.5},
        "igu score=ratio": {"method": "igu", "method.beta1": 0.9, "method.score": "ratio"},
        "igu score=product": {"method": "igu", "method.beta1": 0.9, "method.score": "product"},
    }
    assert rates_of(found) == dict.fromkeys(["igu beta1=0.5", "igu score=ratio", "igu score=product"], "igu")


def test_a_grid_has_an_arm_for_each_combination():
    found = made(grid={"igu": {"method.beta1": [0.5, 0.7], "method.every": [1, 2]}})
    assert [arm for arm in arms(found) if " " in arm] == [
        "igu beta1=0.5 every=1",
        "igu beta1=0.5 every=2",
        "igu beta1=0.7 every=1",
        "igu beta1=0.7 every=2",
    ]
    assert arms(found)["igu beta1=0.7 every=2"] == {"method": "igu", "method.beta1": 0.7, "method.every": 2}


@pytest.mark.parametrize(
    ("condition", "holding"),
    [
        ("task=a", [("a", "lora"), ("a", "igu")]),
        ("method=igu", [("a", "igu"), ("b", "igu")]),
        ("method=igu task=b", [("b", "igu")]),
        ("model=tiny", [("a", "lora"), ("a", "igu"), ("b", "lora"), ("b", "igu")]),  # of the settings
        ("train=default", [("a", "lora"), ("a", "igu"), ("b", "lora"), ("b", "igu")]),  # of conf/config.yaml
        ("model=tiny task=c", []),
        ("method.beta1=0.9", [("a", "igu"), ("b", "igu")]),
    ],
)
def test_a_condition_holds_where_all_its_words_do(condition, holding):
    found = made(settings={"model": "tiny"}, axes={"task": ["a", "b"]}, when={condition: {"train.steps": 9}})
    marked = [cell for cell in cells_of(found, {}) if "train.steps" in cell.settings]
    assert [(cell.point["task"].removeprefix("task="), cell.arm) for cell in marked] == holding


def test_later_conditions_win_and_all_win_over_settings_but_not_over_axes_and_arms():
    when = {"task=a": {"train.steps": 8, "seed": 99, "method.beta1": 0.1}, "method=igu": {"train.steps": 9}}
    found = dict(zip(("lora", "igu"), cells_of(made(settings={"train.steps": 7}, when=when), {}), strict=False))
    assert found["lora"].settings["train.steps"] == "train.steps=8"
    assert found["igu"].settings["train.steps"] == "train.steps=9"
    assert found["igu"].settings["seed"] == "seed=0"
    assert found["igu"].settings["method.beta1"] == "method.beta1=0.9"


def test_a_key_that_adds_to_a_section_keeps_its_mark():
    found = made(arms={"lora": {"+method.settings.batches": 4}})
    assert cells_of(found, {})[0].settings["method.settings.batches"] == "+method.settings.batches=4"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.85, "0.85"),
        (None, "null"),
        (True, "true"),
        ([2, 3], "[2,3]"),
        ({"a": 1}, "{a:1}"),
        ("", "''"),
        ("{igu}", "'{igu}'"),
        ("a b", "'a b'"),
        ("it's", r"'it\'s'"),
        (r"\d+.dense", r"'\d+.dense'"),
        ("DIR/${task.subset}", "DIR/${task.subset}"),
    ],
)
def test_a_setting_is_spelt_as_it_is_typed(value, text):
    assert spell("key", value) == f"key={text}"
    with examiner() as examine:
        assert examine.values([f"task.data_dir={text}"], sweep=False)[1] == []


SCALED = {
    "settings": {"model": "big", "train.steps": 1000},
    "when": {"task=a": {"train.steps": 2000}},
    "tune": {"learning_rate": [1e-4]},
    "scales": {"tiny": {"settings": {"train.steps": 5}, "when": {}, "axes": {"task": [], "budget": ["r2"]}}},
}


def test_a_scale_takes_the_place_of_settings_and_conditions_as_a_whole_and_of_axes_one_by_one():
    small = at_scale(made(**SCALED), "tiny")
    assert (small.settings, small.when) == ({"train.steps": 5}, {})
    assert small.axes == {"seed": [0, 1], "budget": ["r2"]}
    assert small.tune == made(**SCALED).tune


def test_a_scale_keeps_what_it_leaves_out():
    whole = made(**{**SCALED, "scales": {"tiny": {}}})
    small = at_scale(whole, "tiny")
    assert (small.settings, small.when, small.axes) == (whole.settings, whole.when, whole.axes)
    assert at_scale(whole, "full") is whole


def test_a_scale_may_run_some_arms_and_tune_on_a_grid_of_its_own():
    part = {"arms": ["lora"], "tune": {"learning_rate": [1.0, 2.0], "widen": 0}}
    small = at_scale(made(tune={"learning_rate": [3.0]}, scales={"tiny": part}), "tiny")
    assert list(arms(small)) == ["lora"]
    assert (small.tune.learning_rate, small.tune.widen, small.tune.seeds) == ([1.0, 2.0], 0, [100, 101, 102])


def test_an_unknown_scale_is_named():
    with pytest.raises(
        ConfigError, match=r"scale=tny: experiment=x has no such scale; did you mean tiny\? known are full"
    ):
        at_scale(made(**SCALED), "tny")


RICH = {
    "vary": {"igu": {"method.beta1": [0.5]}},
    "arms": {**SMALLEST["arms"], "random": {"method": "random"}, "mine": {"method": "lora"}},
    "shares": {"mine": "igu"},
    "report": {
        **REPORT,
        "controls": {"igu": {"random": "random", "permuted": "mine"}, "mine": {"random": "random"}},
        "published": [{"file": "igu", "table": "1", "arms": {"lora": "LoRA", "igu": "IGU-LoRA"}}],
        "map_effect": {"all": ["igu", "random", "mine"], "two": ["mine", "igu"]},
        "positive_control": {"arm": "mine", "where": ["task=planted"]},
    },
    "scales": {"tiny": {"arms": ["lora", "igu", "random"]}},
}


def test_some_arms_keep_what_the_report_says_of_them():
    some = with_arms(made(**RICH), ["igu", "random", "igu beta1=0.5"])
    assert list(arms(some)) == ["igu", "random", "igu beta1=0.5"]
    assert rates_of(some) == {"igu beta1=0.5": "igu"}
    assert some.report.reference == "igu"  # its own is not there
    assert some.report.controls == {"igu": {"random": "random", "uniform": "lora"}}  # which is not there to be beaten
    assert some.report.published[0].arms == {"igu": "IGU-LoRA"}
    assert some.report.map_effect == {"all": ["igu", "random"]}
    assert some.report.positive_control.arm == "mine"  # which is not there to win: nothing is judged without it
    assert some.scales["tiny"].arms == ["igu", "random"]
    assert read(some.plain(), "again") == some


def test_a_control_of_several_arms_is_those_that_are_chosen():
    controls = {"igu": {"permuted": ["mine", "random"], "random": ["random"]}}
    whole = made(**{**RICH, "report": {**REPORT, "controls": controls}})
    assert whole.report.controls_of("igu")["permuted"] == ["mine", "random"]
    assert with_arms(whole, ["lora", "igu", "mine"]).report.controls == {"igu": {"permuted": "mine"}}


def test_an_arm_whose_rate_is_taken_has_to_stay_or_its_taker_tunes_itself():
    assert rates_of(with_arms(made(**RICH), ["lora", "mine"])) == {}
    assert rates_of(with_arms(made(**RICH), ["igu", "mine"])) == {"mine": "igu"}


def test_an_arm_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"arms: experiment=x has no arm 'ig'; did you mean igu"):
        with_arms(made(), ["lora", "ig"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, r"x.yaml: question=null: expected a string"),
        ({"armes": {}}, r"x.yaml: armes=.*unknown key; did you mean arms"),
        ({"arms": {"lora": 3}}, r"x.yaml: arms.lora=3: expected a mapping"),
        ({"vary": {"ig": {"method.beta1": [1]}}}, r"x.yaml: vary.ig: no such arm; did you mean igu"),
        ({"grid": {"ig": {"method.beta1": [1]}}}, r"x.yaml: grid.ig: no such arm; did you mean igu"),
        ({"shares": {"igu": "lra"}}, r"x.yaml: shares: no arm 'lra'; did you mean lora"),
        ({"report": {"reference": "lra"}}, r"x.yaml: report.reference: no arm 'lra'; did you mean lora"),
        ({"report": {}}, r"x.yaml: report.reference: missing; give report.reference=<a string>"),
        ({"report": {**REPORT, "margin": 0}}, r"x.yaml: report.margin=0: expected a number > 0"),
        ({"report": {**REPORT, "margins": {"boolq": 0}}}, r"x.yaml: report.margins.boolq=0: expected a number > 0"),
        (
            {"report": {**REPORT, "controls": {"igu": {"shuffled": "igu"}}, "beats": ["rndom"]}},
            r"report.beats: no control 'rndom'; did you mean random.*\n.*controls.igu: no control 'shuffled'; it is "
            "called permuted now",
        ),
        (
            {"report": {**REPORT, "controls": {"igu": {"permuted": "permuted igu"}}}},
            r"x.yaml: report.controls.igu: no arm 'permuted igu'",
        ),
        (
            {"report": {**REPORT, "published": [{"file": "igu", "table": "Table 4", "arms": {"dora": "DoRA"}}]}},
            r"x.yaml: report.published \(Table 4\): no arm 'dora'; did you mean lora",
        ),
        (
            {"report": {**REPORT, "map_effect": {"all": ["lora", "dora"]}}},
            r"x.yaml: report.map_effect \(all\): no arm 'dora'; did you mean lora",
        ),
        ({"report": {**REPORT, "map_effect": {"one": ["lora"]}}}, r"x.yaml: report.map_effect.one=\['lora'\]"),
        (
            {"report": {**REPORT, "positive_control": {"arm": "lora", "where": ["few"]}}},
            r"x.yaml: report.positive_control.where: 'few' is no key=value",
        ),
        ({"report": {**REPORT, "positive_control": {"arm": "lora", "where": []}}}, r"positive_control.where=\[\]"),
        ({"report": {**REPORT, "published": [{"table": "1"}]}}, r"report.published\[0\].file: missing"),
        ({"scales": {"tiny": {"arms": ["dora"]}}}, r"x.yaml: scales.tiny.arms: no arm 'dora'"),
        ({"scales": {"tiny": {"arm": ["lora"]}}}, r"x.yaml: scales.tiny.arm=.*unknown key; did you mean arms"),
        ({"when": {"tiny": {"seed": 1}}}, r"x.yaml: when: 'tiny' is no key=value; write model=tiny"),
        ({"scales": {"tiny": {"when": {"a=1 b": {}}}}}, r"x.yaml: scales.tiny.when: 'b' is no key=value"),
        ({"tune": {"learning_rate": [1e-3], "widen": -1}}, r"x.yaml: tune.widen=-1: expected a number >= 0"),
        ({"tune": {}}, r"x.yaml: tune.learning_rate: missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(changes, message):
    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_all_mistakes_come_together():
    with pytest.raises(ConfigError) as caught:
        made(question=1, source=2)
    assert len(caught.value.problems) == 2


def test_tuning_as_typed_wins_over_the_file():
    base = made(tune={"learning_rate": [1e-3], "widen": 1}).tune
    assert tune({}, base) is base
    assert tune({}, None) is None
    found = tune({"learning_rate": [1e-2, 1], "seeds": [7]}, base)
    assert (found.learning_rate, found.seeds, found.widen, found.metric) == ([0.01, 1.0], [7], 1, "validation/loss")
    assert tune({"learning_rate": [0.1]}, None).widen == 2


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"learning_rate": 0.1}, r"tune.learning_rate=0.1: expected a list, each item a number"),
        ({"seeds": [1]}, r"tune.learning_rate: missing"),
        ({"learning_rate": [0.1], "rates": 1}, r"tune.rates=1: unknown key"),
    ],
)
def test_a_mistake_in_typed_tuning_is_named(typed, message):
    with pytest.raises(ConfigError, match=message):
        tune(typed, None)


def test_a_task_has_its_own_metric_and_margin_or_the_default():
    report = made(report={**REPORT, "metrics": {"boolq": "test/loss"}, "margins": {"boolq": 0.1}}).report
    assert [report.metric_of(task) for task in ("boolq", "glue-cola", "another")] == [
        "test/loss",
        "test/matthews",
        "test/accuracy",
    ]
    assert (report.margin_of("boolq"), report.margin_of("another")) == (0.1, 0.005)


@pytest.fixture
def folder(tmp_path):
    """A --config-dir with files of experiments and scales."""

    def write(name, text, group="experiment"):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


TEXT = """\
question: q
source: s
arms: {lora: {method: lora}}
axes: {seed: [0], task: [boolq]}
report: {reference: lora}
"""


def test_files_of_config_dir_are_read_and_win(folder):
    place = folder("mine", TEXT)
    assert load("mine", place).name == "mine"
    assert load("igu_ablation", folder("igu_ablation", TEXT)).question == "q"


def test_a_scale_stands_over_what_all_small_scales_share(folder):
    when = "{seed=0: {c: 3}, seed=1: {c: 4}}"
    shared = f"{{settings: {{a: 1, b: 2}}, axes: {{task: []}}, when: {when}, tune: {{learning_rate: [1.0]}}}}"
    place = folder("tiny", shared, "scale")
    own = "scales: {tiny: {settings: {b: 5}, when: {seed=0: {d: 6}}}}\ntune: {learning_rate: [2.0]}\n"
    small = at_scale(load("mine", folder("mine", TEXT + own)), "tiny")
    assert small.settings == {"a": 1, "b": 5}
    assert small.when == {"seed=0": {"d": 6}, "seed=1": {"c": 4}}
    assert small.axes == {"seed": [0]}
    assert small.tune.learning_rate == [1.0]
    untuned = load("mine", folder("mine", TEXT + "scales: {tiny: {}}\n"))
    assert at_scale(untuned, "tiny").tune is None
    assert load("mine", place).scales.keys() == {"tiny"}


def test_an_unknown_experiment_and_a_broken_file_are_named(folder):
    with pytest.raises(ConfigError, match=r"experiment=igu_glu: unknown experiment; did you mean igu_glue"):
        load("igu_glu")
    with pytest.raises(ConfigError, match=r"mine.yaml: not YAML \(mapping values are not allowed here.*line 1"):
        load("mine", folder("mine", "question: this: that\n"))


def test_the_positive_control_of_a_file_is_one_of_its_arms(folder):
    report = "report: {reference: lora, positive_control: {arm: lra, where: [seed=0]}}"
    with pytest.raises(ConfigError, match=r"report.positive_control.arm: no arm 'lra'; did you mean lora"):
        load("mine", folder("mine", TEXT.replace("report: {reference: lora}", report)))


# The files of conf/experiment.

loaded = functools.cache(load)


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is_and_survives_being_frozen(name):
    first = experiment_files.names()[name].read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    found = loaded(name)
    assert found.question.endswith("?")
    assert found.source
    for scale in ("full", *found.scales):
        assert read(at_scale(found, scale).plain(), name) == at_scale(found, scale)


@pytest.mark.parametrize("name", FILES)
def test_an_arm_whose_run_another_takes_its_ranks_from_is_there(name):
    for scale in ("full", *loaded(name).scales):
        there = arms(at_scale(loaded(name), scale))
        sources = [settings.get("method.source_run") for settings in there.values()]
        taken = [source for source in sources if source and not source.startswith("maps/")]  # maps: see below
        assert {source.strip("{}") for source in taken} <= there.keys()


@pytest.mark.parametrize("name", FILES)
def test_every_condition_holds_somewhere(name):
    """A condition on a value that no run has is a typing mistake."""
    found = loaded(name)
    for scale in ("full", *found.scales):
        several = parts(at_scale(found, scale)).values()
        words = {word for part in several for condition in part.when for word in condition.split()}
        settings = {word for part in several for cell in cells_of(part, {}) for word in cell.settings.values()}
        assert {word for word in words if not word.startswith("model=")} <= settings


@pytest.mark.parametrize("name", FILES)
def test_published_tables_are_there_with_the_names_given(name):
    for table in loaded(name).report.published:
        rows = numbers.load(table.file)
        rows = rows[(rows["table"] == table.table) & (rows["model"].isin([table.model]) | (table.model is None))]
        assert len(rows), table
        assert set(table.arms.values()) <= set(rows["method"])
        assert {word for words in table.budgets.values() for word in words} <= set(rows["rank_or_budget"])


@pytest.fixture(scope="module")
def examine(tmp_path_factory):
    """The check of a job, where the environment names the data that equal_terms reads from a file."""
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [json.dumps({"output": f"answer{i}", "instruction": f"Why {i}?"}) for i in range(400)]
    file.write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch, examiner() as found:
        patch.setenv("ARC_FILE", str(file))
        yield found


def covering(found, typed):
    """Runs in which every arm and every setting but the seed occurs."""
    seen = set()
    for cell in (cell for part in parts(found).values() for cell in cells_of(part, typed)):
        own = {cell.arm, *(override for key, override in cell.settings.items() if key != "seed")}
        if not own <= seen:
            yield cell
        seen |= own


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_cells_are_valid_configurations_at_every_scale(name, examine):
    """Of the other miniatures the first cells: their arms are those of model=tiny. The maps of conf/maps are there."""
    found = loaded(name)
    chosen = list(covering(found, {}))
    if "small" in found.scales:
        chosen += covering(at_scale(found, "small"), {"model": ["model=tiny"]})
        for typed in ({}, {"model": ["model=minilm-l6"]}):  # without a model: smollm2-135m
            chosen += itertools.islice(covering(at_scale(found, "small"), typed), 2)
    for cell in chosen:
        assert examine.job(cell.overrides)[1] == [], cell


def test_every_file_but_a_few_has_controls_or_says_what_it_is_for():
    """Tables of quality are nothing without the permuted and the random arm."""
    for name in FILES:
        if name.endswith(("_glue", "_ablation", "_reasoning", "_commonsense")):
            assert all("random" in controls for controls in loaded(name).report.controls.values())
            assert any("permuted" in controls for controls in loaded(name).report.controls.values())


def test_tasks_of_the_files_exist():
    tasks = {task for name in FILES for task in loaded(name).axes.get("task", [])}
    assert tasks <= set(registered("task"))
