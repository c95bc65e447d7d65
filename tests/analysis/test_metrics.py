"""The table of metrics: direction, unit and display name."""

from __future__ import annotations

import pytest

from rankbench.analysis.metrics import directions, higher_is_better, is_share, title_of
from rankbench.config.yaml_files import CONF_DIR, content


def test_higher_is_better_but_for_losses():
    names = ("validation/loss", "kl", "validation/accuracy", "matthews", "test/accuracy_mismatched")
    assert [higher_is_better(name) for name in names] == [False, False, True, True, True]
    assert higher_is_better("validation/regret") is None


def test_only_shares_of_the_main_part_have_its_number_of_items():
    assert [is_share(name) for name in ("accuracy", "test/exact_match", "f1", "loss", "accuracy_mismatched")] == [
        *(True, True),
        *(False, False, False),
    ]


@pytest.mark.parametrize(
    ("column", "title"),
    [
        ("test/accuracy", "test accuracy"),
        ("validation/loss", "validation loss, nats"),
        ("kl", "KL divergence, nats"),
        ("test/perplexity", "test perplexity"),
        ("rougeL", "ROUGE-L"),
        ("test/accuracy_mismatched", "test accuracy mismatched"),
        ("test/regret", "test/regret"),
    ],
)
def test_a_figure_names_the_split_the_metric_and_its_unit(column, title):
    assert title_of(column) == title


def test_every_metric_that_a_report_shows_by_default_is_in_the_table():
    shown = content(CONF_DIR / "report.yaml")["metrics"].values()
    assert all(higher_is_better(column) is not None for column in shown)


def test_a_message_can_name_all_directions():
    assert directions().startswith("higher is better of accuracy, exact_match")
    assert directions().endswith("lower of kl, loss, perplexity")
