"""What a study asks, or in its place what was compared."""

from __future__ import annotations

from dataclasses import replace

from support.studies import declared, study

from rankbench.studies.panels import panels
from rankbench.studies.study import Study
from rankbench.studies.study_question import question_of

NONE = {"vary": {}, "grid": {}, "tune": None}


def unasked(**axes) -> Study:
    """A study as a command line without an experiment makes it: its words name the axes."""
    made = study(declared(**axes, **NONE), lost=0.0, failed=0.0)
    words = [f"{key}={','.join(map(str, values))}" for key, values in made.sweep.experiment.axes.items()]
    return replace(made, sweep=replace(made.sweep, experiment=None, words=words, tune=None))


def sentence(made: Study) -> str:
    return question_of(made, panels(made))


def test_the_question_of_an_experiment_is_its_own():
    made = study(declared(seeds=range(2), question="Is it?"))
    assert sentence(made) == "Is it?"


def test_without_a_question_it_is_what_was_compared_and_on_what():
    assert sentence(unasked(seeds=range(3))) == ("6 arms beside LoRA (uniform) on RTE, MiniLM-L6, budget r8, 3 seeds.")


def test_few_arms_are_named_and_an_axis_is_named_once():
    made = unasked(budgets=("r4", "r8"), tasks=("glue-rte", "planted"), seeds=[0])
    jobs = [job for job in made.sweep.jobs if job.arm in ("lora", "fim", "igu")]
    few = replace(made, sweep=replace(made.sweep, jobs=jobs))
    assert sentence(few) == (
        "LoRA (uniform), IGU-LoRA and FIM-LoRA on RTE and Planted ranks, MiniLM-L6, budget r4 and r8, 1 seed."
    )


def test_other_axes_are_said_and_long_ones_counted():
    made = unasked(seeds=[0])
    axis = {"train.steps": ["10", "20", "30", "40", "50", "60"], "task.map": ["few", "type"]}
    jobs = [
        replace(
            job, run_id=f"{number}{job.run_id}", overrides=(*job.overrides, f"train.steps={steps}", f"task.map={kind}")
        )
        for job in made.sweep.jobs[:2]
        for number, (steps, kind) in enumerate(
            (steps, kind) for steps in axis["train.steps"] for kind in axis["task.map"]
        )
    ]
    words = [*made.sweep.words, *(f"{key}={','.join(values)}" for key, values in axis.items())]
    several = replace(made, records={}, sweep=replace(made.sweep, jobs=jobs, words=words))
    assert ", 6 values of steps, few sites and some types, 1 seed." in sentence(several)
