"""What a study asks: the question of its experiment; where nobody asked one, what was compared with what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rankbench.analysis.labels import arm_title, listed, model_title, setting_text, setting_title, task_title
from rankbench.studies.panels import Panel, report_of
from rankbench.studies.study import Study

NAMED = 5  # arms, tasks or values that a sentence names; more are counted


def question_of(study: Study, all_panels: Sequence[Panel]) -> str:
    """The question of its experiment, or the arms and axes of its panels in one sentence.

    "LoRA (uniform) and FIM-LoRA on Arithmetic, SmolLM2-135M, budget r4 and r8, 3 seeds."
    """
    if study.sweep.experiment is not None:
        return study.sweep.experiment.question
    runs = [run for panel in all_panels for run in [*panel.runs, *panel.trials]]
    seeds = len({run.seed for run in runs if run.seed is not None})
    tasks = _some("tasks", map(task_title, _facts(all_panels, "task")))
    parts = [
        f"{_arms(all_panels, report_of(study).reference)} on {tasks}",
        _some("models", map(model_title, _facts(all_panels, "model"))),
        _values("budget", _facts(all_panels, "budget")),
        *_axes(all_panels),
        *([f"{seeds} seed{'s' * (seeds > 1)}"] if seeds else []),
    ]
    return f"{', '.join(parts)}."


def _facts(all_panels: Sequence[Panel], key: str) -> list[str]:
    return list(dict.fromkeys(panel.facts[key] for panel in all_panels))


def _arms(all_panels: Sequence[Panel], reference: str) -> str:
    """The arms by their names; of many, how many there are beside the reference."""
    arms = list(dict.fromkeys(arm for panel in all_panels for arm in panel.arms))
    if len(arms) <= NAMED:
        return listed([arm_title(arm) for arm in arms])
    beside = f" beside {arm_title(reference)}" if reference in arms else ""
    return f"{len(arms) - (reference in arms)} arms{beside}"


def _axes(all_panels: Sequence[Panel]) -> list[str]:
    """The values of each axis but model, task and budget."""
    values: dict[str, list[str]] = {}
    for key, _, value in (point.partition("=") for panel in all_panels for point in panel.rest):
        values.setdefault(key, []).append(value)
    return [_values(key, list(dict.fromkeys(several))) for key, several in values.items()]


def _values(key: str, values: Sequence[str]) -> str:
    """The values of a setting, which is named once: "budget r4 and r8"."""
    if len(values) > NAMED:
        return f"{len(values)} values of {setting_title(key)}"
    texts = [setting_text(key, value) for value in values]
    title = f"{setting_title(key)} "
    named = title if all(text.startswith(title) for text in texts) else ""
    return named + listed([text.removeprefix(named) for text in texts])


def _some(kind: str, titles: Iterable[str]) -> str:
    names = list(titles)
    return listed(names) if len(names) <= NAMED else f"{len(names)} {kind}"
