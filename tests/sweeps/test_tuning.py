"""Learning rates on equal terms: validation decides, and no trial can use the test split."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pandas as pd
import pytest
from support.records import sweep

from rankbench.analysis import frame as frames
from rankbench.analysis import learning_rates
from rankbench.analysis.frame import SelectionError, frame
from rankbench.analysis.learning_rates import best_rates, rate_curves
from rankbench.sweeps.tuning import Choice, choose, widened

CURVE = {1e-4: [0.5, 0.7], 1e-3: [0.2, 0.4], 1e-2: [0.9, 0.1]}  # means 0.6, 0.3, 0.5; on test the opposite


def as_trials(found):
    """Without a test split, as trials leave them."""
    return [replace(record, metrics={**record.metrics, "test": None}) for record in found]


def test_the_best_mean_over_the_trials_is_chosen_and_the_curve_kept():
    trials = as_trials(sweep(CURVE))
    choice = choose([trials], "validation/loss", [0, 1])
    assert choice == Choice(
        chosen=1e-3,
        metric="validation/loss",
        seeds=[0, 1],
        curve=[[1e-4, pytest.approx(0.6), 0], [1e-3, pytest.approx(0.3), 0], [1e-2, 0.5, 0]],
        edge=False,
        missing=0,
        trials=[record.run_id for record in trials],
    )


def test_more_is_better_where_it_is():
    assert choose([as_trials(sweep(CURVE, "accuracy"))], "validation/accuracy", [0, 1]).chosen == 1e-4


def test_a_test_split_that_says_the_opposite_moves_nothing():
    with_test = sweep(CURVE)
    assert best_rates(frame(with_test), "validation/loss", [0, 1])["learning_rate"].tolist() == [1e-3]
    assert choose([with_test], "validation/loss", [0, 1]) == choose([as_trials(with_test)], "validation/loss", [0, 1])
    worst = max(CURVE, key=lambda rate: -sum(CURVE[rate]))
    assert choose([with_test], "validation/loss", [0, 1]).chosen == worst  # the worst on test


def test_the_frame_that_trials_give_has_no_test_column(monkeypatch):
    seen = []

    def looking(data: pd.DataFrame, *rest):
        seen.append(data)
        return rate_curves(data, *rest)

    monkeypatch.setattr(learning_rates, "rate_curves", looking)
    choose([as_trials(sweep(CURVE))], "validation/loss", [0, 1])
    assert [column for column in seen[0] if "test" in str(column)] == []
    assert "validation/loss" in seen[0]


class Sealed:
    """A cell that may be moved about, and not looked at."""

    def _refuse(self, *_: object) -> bool:
        raise AssertionError("somebody looked at the test split")

    __float__ = __bool__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __hash__ = _refuse  # type: ignore[assignment]
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __truediv__ = __array__ = __int__ = _refuse


def test_nobody_looks_at_a_test_column_while_a_rate_is_chosen(monkeypatch):
    def sealed(found, names=None):
        data = frame(found, names=names)
        assert "test/loss" in data
        data["test/loss"] = pd.Series([Sealed() for _ in range(len(data))], dtype=object)
        return data

    monkeypatch.setattr(frames, "frame", sealed)
    assert choose([sweep(CURVE)], "validation/loss", [0, 1]).chosen == 1e-3
    with pytest.raises(AssertionError, match="looked at the test split"):
        sealed(sweep(CURVE))["test/loss"].mean()  # the seal holds


@pytest.mark.parametrize("metric", ["test/loss", "loss", "validation/step", "validation/kl"])
def test_only_a_metric_of_validation_that_is_there_can_choose(metric):
    with pytest.raises(SelectionError, match="rates are chosen on validation alone"):
        choose([sweep(CURVE)], metric, [0, 1])


def test_a_trial_that_failed_is_told_and_its_rate_is_not_chosen():
    trials = as_trials(sweep(CURVE))
    broken = [
        replace(t, status="nan", metrics=None) if (t.config["train"]["learning_rate"], t.seed) == (1e-3, 1) else t
        for t in trials
    ]
    choice = choose([broken], "validation/loss", [0, 1])
    assert (choice.chosen, choice.edge, choice.missing) == (1e-2, True, 0)
    assert choice.curve[1] == [1e-3, 0.2, 1]
    gone = [replace(t, status="oom", metrics=None) if t.config["train"]["learning_rate"] == 1e-3 else t for t in trials]
    assert choose([gone], "validation/loss", [0, 1]).curve[1] == [1e-3, None, 2]


SMALL, LARGE = {1e-3: [0.001, 0.001], 1e-2: [0.01, 0.01]}, {1e-3: [5.0, 5.0], 1e-2: [1.0, 1.0]}


def test_losses_of_several_points_are_averaged_by_their_logarithms():
    """The larger losses would choose 1e-2 alone: five times better there, ten times worse at the other point."""
    points = [as_trials(sweep(SMALL)), as_trials(sweep(LARGE))]
    pooled = choose(points, "validation/loss", [0, 1], ["task.map"])
    assert pooled.curve == [[1e-3, pytest.approx(0.005**0.5), 0], [1e-2, pytest.approx(0.1), 0]]
    assert (pooled.chosen, pooled.pooled, len(pooled.trials)) == (1e-3, ["task.map"], 8)
    shares = [as_trials(sweep(curve, "accuracy")) for curve in ({1e-3: [0.1], 1e-2: [0.2]}, {1e-3: [0.9], 1e-2: [0.7]})]
    assert choose(shares, "validation/accuracy", [0]).curve == [[1e-3, 0.5, 0], [1e-2, pytest.approx(0.45), 0]]


def test_a_rate_that_fails_at_one_point_is_not_chosen_for_all():
    points = [as_trials(sweep(SMALL)), as_trials(sweep(LARGE))]
    points[1] = [
        replace(t, status="nan", metrics=None) if t.config["train"]["learning_rate"] == 1e-3 else t for t in points[1]
    ]
    choice = choose(points, "validation/loss", [0, 1])
    assert (choice.chosen, choice.curve[0]) == (1e-2, [1e-3, None, 2])
    with pytest.raises(SelectionError, match=r"validation/loss: 0 has no logarithm"):
        choose([points[0], as_trials(sweep({1e-3: [0.0, 0.0], 1e-2: [1.0, 1.0]}))], "validation/loss", [0, 1])


def choice(chosen: float, edge: bool, missing: int = 0) -> Choice:
    return Choice(chosen, "validation/loss", [0], [], edge, missing, [])


GRID = [1e-3, 3e-3, 1e-2]


@pytest.mark.parametrize(
    ("grid", "choices", "expected"),
    [
        (GRID, [choice(3e-3, False)], None),
        (GRID, [choice(1e-2, True)], [*GRID, 3.33e-2]),
        (GRID, [choice(1e-3, True)], [3.33e-4, *GRID]),
        (GRID, [choice(3e-3, False), choice(1e-2, True), choice(1e-3, True)], [3.33e-4, *GRID, 3.33e-2]),
        (GRID, [choice(1e-2, True, missing=1)], None),
        ([1e-3], [choice(1e-3, True)], None),
        ([1e-4, 1e-3], [choice(1e-3, True)], [1e-4, 1e-3, 1e-2]),
    ],
)
def test_a_grid_grows_where_a_choice_lies_at_its_end(grid, choices, expected):
    assert widened(grid, choices) == expected


def test_a_choice_can_be_kept_in_a_record():
    plain = dataclasses.asdict(choose([as_trials(sweep(CURVE))], "validation/loss", [0, 1]))
    assert Choice(**plain).chosen == 1e-3
    assert {type(value) for value in plain.values()} == {float, str, list, bool, int}
