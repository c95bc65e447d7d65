"""budget=rN for any N: the budgets that have files are as they were, the others are like them."""

import pytest
from omegaconf import OmegaConf

from rankbench.config.budget_names import is_numbered, section, text
from rankbench.config.overrides import compose, mistakes
from rankbench.config.yaml_files import CONF_DIR, content

FILES = sorted(file.stem for file in (CONF_DIR / "budget").glob("r*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_a_budget_with_a_file_is_what_the_file_says(name):
    assert section(name) == content(CONF_DIR / "budget" / f"{name}.yaml")
    assert is_numbered("budget", name)
    assert OmegaConf.to_container(OmegaConf.create(text(name))) == section(name)


@pytest.mark.parametrize("name", ["r4", "r3", "r100"])
def test_a_budget_of_any_rank_is_composed(name):
    budget = compose(["method=lora", "model=tiny", "task=planted", f"budget={name}"]).budget
    assert (budget.name, budget.reference_rank, budget.unit) == (name, int(name[1:]), "params")


def test_a_sweep_takes_budgets_of_any_rank_and_names_what_is_none():
    typed = ["method=lora", "model=tiny", "task=planted"]
    assert mistakes([*typed, "budget=r3,r5,r8"], sweep=True) == []
    (mistake,) = mistakes([*typed, "budget=r3,r0"], sweep=True)
    assert mistake.startswith("budget=r0: unknown budget; did you mean r8")
    (mistake,) = mistakes([*typed, "budget=r3", "budget.match=peek"])
    assert mistake.startswith("budget.match")


@pytest.mark.parametrize("option", ["r0", "r03", "r-1", "r1.5", "8", "true_ranks"])
def test_what_is_no_rank_is_no_budget(option):
    assert not is_numbered("budget", option)


def test_other_groups_have_no_numbered_options():
    assert not is_numbered("model", "r3")
