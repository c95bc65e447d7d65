"""Command lines with mistakes: each is named, all at once, before any work."""

import pickle
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from rankbench.config import registry
from rankbench.config.overrides import mistakes, one_run
from rankbench.config.schema import ConfigError
from rankbench.config.validation import build
from rankbench.config.yaml_files import CONF_DIR

BASE = ["method=lora", "model=tiny", "task=planted"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", list(overrides))


def chosen(*overrides: str) -> list[str]:
    """Mistakes of the base run with these choices and values instead."""
    keys = [override.partition("=")[0] for override in overrides]
    return mistakes([*(entry for entry in BASE if entry.partition("=")[0] not in keys), *overrides])


def test_the_built_configuration_is_typed_and_frozen() -> None:
    config = build(composed(*BASE, "train.learning_rate=1"))
    assert type(config.train.learning_rate) is float
    with pytest.raises(ValidationError, match="frozen"):
        config.train.steps = 1  # type: ignore[misc]


def test_build_raises_with_every_mistake() -> None:
    raw = composed(*BASE)
    OmegaConf.update(raw, "train.steps", 0)
    OmegaConf.update(raw, "adapter.alpha", -1)
    with pytest.raises(ConfigError, match="2 mistakes in the configuration, nothing was run") as caught:
        build(raw)
    assert caught.value.problems == [
        "train.steps=0: expected a number >= 1",
        "adapter.alpha=-1: expected a number > 0",
    ]


OF_SWEEPS = ("experiment", "scale")  # tests/sweeps/test_experiment.py looks at these

GROUPS = [folder.name for folder in CONF_DIR.iterdir() if folder.is_dir() and folder.name not in OF_SWEEPS]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_shipped_choice_is_a_valid_configuration(group: str) -> None:
    """But three, which say what they need."""
    needs = {
        "transplant": ["method.source_run"],
        "auto": ["model.path"],
        "text": ["task.data_dir", "task.form", "task.template", "task.answer"],
    }
    for file in sorted((CONF_DIR / group).glob("*.yaml")):
        missing = [f"{key}: missing; give {key}=" for key in needs.get(file.stem, [])]
        assert [problem.partition("<")[0] for problem in chosen(f"{group}={file.stem}")] == missing, file


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=shuffled", "method=shuffled: unknown method; it is called permuted now."),
        ("method=igux", "method=igux: unknown method; did you mean igu, igu_code? known are adalora, "),
        ("model=tini", "model=tini: unknown model; did you mean tiny? known are "),
        ("task=planed", "task=planed: unknown task; did you mean planted? known are "),
        ("budget=r8x", "budget=r8x: unknown budget; did you mean r8?"),
        ("budget=true", "budget=true: unknown budget; did you mean true_ranks?"),
        ("train=null", "train=null: unknown train; known are default, "),
        ("tracking=wndb", "tracking=wndb: unknown tracking; did you mean wandb?"),
        ("train.stps=5", "train.stps=5: unknown key; did you mean steps? known are batch_size, "),
        ("+train.stps=5", "train.stps=5: unknown key; did you mean steps?"),
        ("train={stps: 5}", "train.stps=5: unknown key; did you mean steps?"),
        ("methd.name=lora", "methd={'name': 'lora'}: unknown key; did you mean method?"),
        ("learning_rate=0.1", "learning_rate=0.1: unknown key; known are adapter, "),
        ("train.steps=abc", "train.steps=abc: expected an integer"),
        ("train.steps=2.5", "train.steps=2.5: expected an integer"),
        ("train.steps=0", "train.steps=0: expected a number >= 1"),
        ("train.learning_rate=0", "train.learning_rate=0: expected a number > 0"),
        ("train.precision=fp16", "train.precision=fp16: expected one of fp32, tf32, bf16"),
        ("train.schedule=step", "train.schedule=step: expected one of linear, cosine, constant"),
        ("train.steps.x=1", "train.steps={'x': 1}: expected an integer"),
        ("~train.steps", "train.steps: missing; give train.steps=<an integer>"),
        ("train.steps=???", "train.steps: missing; give train.steps=<an integer>"),
        ("adapter.scale_rule=alive", "adapter.scale_rule=alive: expected one of fixed, live, rslora"),
        ("adapter.dropout=1", "adapter.dropout=1: expected a number >= 0 and < 1"),
        ("budget.match=end", "budget.match=end: expected one of final, peak"),
        ("seed=x", "seed=x: expected an integer"),
        ("seed=0,1", "seed=0,1: several values; add -m to run a job for each"),
        ("+seed=1", "+seed=1: the key is there already; write it without +"),
        ("model.targets=q_proj", "model.targets=q_proj: expected a list, each item a string"),
        ("model.path=[", "model.path=[: cannot be read; write key=value"),
        ("lora", "lora: cannot be read; write key=value"),
        ("train.steps=${train.nothing}", "train.steps: Interpolation key 'train.nothing' not found"),
        ("method.name=foo", "method.name=foo: method 'foo' is unknown; known are adalora, "),
        ("train.micro_batch_size=5", "train.micro_batch_size=5: must divide train.batch_size=16"),
        ("train.head_learning_rate=0.1", "train.head_learning_rate=0.1: the model is a decoder and trains no head;"),
        ("tracking.name=wandb", "tracking.project=null: must be given with tracking=wandb"),
        ("results_dir=7", "results_dir=7: expected a string"),
        ("results_dir=", "results_dir='': is empty; give a folder"),
        ("model.path=", "model.path='': is empty; give a folder"),
        ("train.steps=${oc.env:RANKBENCH_TEST_WORD}", "train.steps=2.5: expected an integer"),
        ("hydra.job.chdr=1", None),  # Hydra's own keys are Hydra's affair
    ],
)
def test_a_mistake_is_named_with_key_value_and_way_out(
    override: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKBENCH_TEST_WORD", "2.5")
    found = chosen(override)
    assert [sentence.startswith(message or "") for sentence in found[:1]] == ([True] if message else [])


def test_a_text_from_the_environment_is_the_number_that_it_spells(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"STEPS": "70", "RATE": "1e-3", "BEFORE": "false", "DIR": "17"}
    for name, value in values.items():
        monkeypatch.setenv(f"RANKBENCH_TEST_{name}", value)
    keys = {"train.steps": "STEPS", "train.learning_rate": "RATE", "train.evaluate_before": "BEFORE"}
    words = [f"{key}=${{oc.env:RANKBENCH_TEST_{name}}}" for key, name in {**keys, "results_dir": "DIR"}.items()]
    config = one_run([*BASE, *words]).config
    train = config.train
    assert (train.steps, train.learning_rate, train.evaluate_before) == (70, 1e-3, False)
    assert config.results_dir == "17"
    assert chosen("train.steps='70'") == ["train.steps=70: expected an integer"]  # typed as a text


def test_the_key_of_another_method_names_its_owners() -> None:
    (sentence,) = chosen("method=lora", "method.beta1=0.9")
    assert sentence.startswith("method.beta1=0.9: unknown key; known are ")
    assert sentence.endswith("beta1 belongs to method=adalora, igu, igu_code, increlora.")


def test_a_key_without_its_section_names_the_section() -> None:
    assert chosen("learning_rate=0.1")[0].endswith("train.learning_rate exists.")


def test_all_mistakes_of_all_kinds_come_at_once() -> None:
    found = chosen("method=igux", "train.stps=5", "train.steps=abc", "seed=x", "budget.reference_rank=4", "oops")
    keys = [sentence.partition(":")[0].partition("=")[0] for sentence in found]
    assert keys == ["oops", "method", "train.stps", "train.steps", "seed", "budget.reference_rank"]


def test_every_job_of_a_sweep_is_checked_and_a_mistake_is_said_once() -> None:
    """Beside a choice that does not exist, the keys of methods and tasks, whose classes load torch, wait."""
    sweep = [
        "method=lora,lra,igu",
        "method.beta1=0.5,2",
        "model=tiny",
        "task=planted",
        "seed=0,a",
        "budget=glob(r1*)",
    ]
    found = mistakes(sweep, sweep=True)
    assert [sentence.partition(";")[0] for sentence in found] == [
        "method=lra: unknown method",
        "seed=a: expected an integer",
    ]
    assert [sentence.partition(";")[0] for sentence in mistakes(["method=lora,igu", *sweep[1:]], sweep=True)] == [
        "method.beta1=0.5: unknown key",
        "seed=a: expected an integer",
        "method.beta1=2: unknown key",
        "method.beta1=2: expected a number >= 0 and < 1",
    ]


def test_planted_brings_its_own_budget_unless_one_is_named() -> None:
    assert composed("task=planted").budget.name == "true_ranks"
    assert composed("task=planted", "budget=r4").budget.name == "r4"
    assert composed("model=tiny").budget.name == "r8"


def test_tiny_fixes_one_thread_unless_another_number_is_named() -> None:
    for words in ([], ["train=smoke"], ["task=planted"]):
        assert composed("model=tiny", *words).train.threads == 1
    assert composed("model=tiny", "train.threads=null").train.threads is None
    assert composed("model=smollm2-135m").train.threads is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["budget=r8", "budget.reference_rank=0"],
            "budget.reference_rank=0: must be >= 1; for a frozen base there is ",
        ),
        (
            ["budget=r8", "budget.reference_rank=null"],
            "budget.reference_rank=null: must be a rank with budget.source=uni",
        ),
        (
            ["budget=true_ranks", "budget.reference_rank=4"],
            "budget.reference_rank=4: must be null with budget.source=tru",
        ),
    ],
)
def test_a_budget_that_means_nothing_is_refused(overrides: list[str], message: str) -> None:
    (sentence,) = chosen(*overrides)
    assert sentence.startswith(message)


@pytest.mark.parametrize("overrides", [["method=oracle"], ["budget=true_ranks"]])
def test_true_ranks_need_a_task_that_knows_them(overrides: list[str]) -> None:
    (sentence,) = chosen("task=arithmetic", *overrides)
    assert (
        sentence == f"{overrides[0]} with task=arithmetic: needs a task whose true ranks are known; take task=planted"
    )
    assert chosen("task=planted", *overrides) == []


def test_a_class_may_refuse_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = staticmethod(lambda section: [f"method.name={section.name}: not today"])
    monkeypatch.setattr(registry.get("method", "lora"), "check", refuse, raising=False)
    assert chosen("method=lora") == ["method.name=lora: not today"]


def test_a_results_dir_in_a_files_way_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (sentence,) = chosen(f"results_dir={tmp_path}/file/runs")
    assert sentence.startswith(
        f"results_dir={tmp_path}/file/runs: cannot be written ({tmp_path}/file: Not a directory)"
    )
    assert chosen(f"results_dir={tmp_path}/new/deep") == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_choices_from_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.yaml").write_text("defaults:\n  - default\n  - _self_\nsteps: 7\nstps: 8\n")
    (sentence,) = mistakes([*BASE, "train=mine"], config_dir=tmp_path)
    assert sentence.startswith("train.stps=8: unknown key")


def test_a_configuration_can_be_sent_to_another_process():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = build(compose("config", ["method=igu", "model=tiny", "task=planted"]))
    copy = pickle.loads(pickle.dumps(config))
    assert copy.plain() == config.plain()
    assert type(copy.method) is type(config.method)


def test_how_a_method_is_displayed_is_no_setting():
    for words in (["method.display.title=A"], ["+method.display.foo=1"], ["method.display=3"]):
        assert any("method.display" in problem for problem in mistakes(["method=lora", *words])), words
