"""The headline of a report: its sentence, what it rests on, what comes next, and the badges."""

from __future__ import annotations

import functools
import re

from support.studies import declared, study

from rankbench.analysis.labels import arm_title
from rankbench.reporting.headline import Claim, _who_wins, make_headline
from rankbench.reporting.report_data import ReportData, gather
from rankbench.statistics.decision import Decision, Outcome
from rankbench.statistics.estimates import PairedDifference


@functools.cache
def gathered(seeds: int, tasks: tuple[str, ...] = ("glue-rte",)) -> ReportData:
    return gather(study(declared(tasks=tasks, seeds=range(seeds)), lost=0.0, failed=0.0))


def test_an_arm_that_works_is_named_with_all_that_it_beats():
    headline = make_headline(gathered(8))
    assert headline.sentence == (
        "IGU-LoRA beats LoRA (uniform), its own permuted ranks and random ranks; 1 other arm does not."
    )
    assert headline.badges["worthwhile gain"] == {"igu": ""}
    assert headline.certainty[:2] == [
        "n = 8 seeds, paired with LoRA (uniform).",
        "Intervals of 4 comparisons hold together with 95 %.",
    ]
    assert headline.next_steps == [("56 seeds would tell FIM-LoRA with 80 % probability.", "")]


def test_arms_that_beat_different_controls_are_said_to_beat_what_both_beat():
    def claim(arm: str, *controls: str) -> Claim:
        gains = {name: PairedDifference(8, 1.0, 0.5, 1.5) for name in ("lora", *controls)}
        return Claim(arm, "here", Decision("works", "", gains), [], 1)

    wins = [claim("igu", "its own permuted ranks", "random ranks"), claim("fim", "random ranks")]
    assert _who_wins(wins, wins) == "IGU-LoRA and FIM-LoRA beat LoRA (uniform) and random ranks."


def test_an_arm_that_wins_here_and_loses_there_is_said_to_lose():
    def claim(arm: str, place: str, outcome: Outcome) -> Claim:
        return Claim(arm, place, Decision(outcome, "", {"lora": PairedDifference(8, 1.0, 0.5, 1.5)}), [], 1)

    every = [
        *(claim("igu", "here", "works"), claim("igu", "there", "harmful"), claim("igu", "beyond", "harmful")),
        *(claim("fim", "here", "harmful"), claim("fim", "there", "open"), claim("fim", "beyond", "open")),
    ]
    assert _who_wins(every[:1], every) == (
        "IGU-LoRA beats LoRA (uniform) on 1 of 3 panels; 1 other arm does not; elsewhere IGU-LoRA (2) is worse."
    )


def test_no_seeds_are_asked_for_a_control():
    """Also in a study that declares no controls, where a control is compared like any other arm."""
    report = {**declared().plain()["report"], "controls": {}}
    made = study(declared(seeds=range(3), vary={}, grid={}, report=report), lost=0.0, failed=0.0)
    shown = make_headline(gather(made))
    steps = " ".join(step for step, _ in shown.next_steps)
    open_arms = shown.badges["open"]
    assert "random" in open_arms or "igu ranks permuted" in open_arms
    assert "seeds would tell" in steps
    assert not any(arm_title(arm) in steps for arm in ("random", "igu ranks permuted"))


def test_over_several_panels_places_are_counted():
    headline = make_headline(gathered(10, ("glue-rte", "glue-cola")))
    assert " on 2 of 2 panels; 1 other arm does not." in headline.sentence
    assert headline.badges["worthwhile gain"]["igu"] == "2 of 2"


def test_an_open_question_says_what_could_have_been_found():
    headline = make_headline(gathered(3))
    assert headline.sentence.startswith("Open: with 3 seeds, no gain")
    assert " over LoRA (uniform) below 0.0" in headline.sentence
    assert " in accuracy would have been found reliably" in headline.sentence


def test_what_is_missing_comes_first_of_what_is_next():
    headline = make_headline(gather(study(declared(seeds=range(2)), lost=1.0)))
    assert headline.sentence == "Nothing can be compared with LoRA (uniform) yet: 0 of 46 runs are done."
    assert headline.next_steps == [("46 of 46 runs are still to be made:", "rankbench -m experiment=made_up")]
    assert headline.badges == {}


def test_lost_seeds_withhold_the_answer_and_say_why():
    made = study(declared(seeds=range(6), vary={}, grid={}), lost=0.0, failed=0.0)
    for record in made.records.values():
        if record.seed == 5 and record.method == "lora" and not record.config.get("trial"):
            record.status, record.metrics = "nan", None
    assert make_headline(gather(made)).sentence.startswith("No verdict: 5 pairs with LoRA (uniform)")


def test_a_study_of_settings_alone_says_what_they_are_worth():
    plain = declared(seeds=range(6)).plain()
    made = declared(seeds=range(6), report={**plain["report"], "controls": {}})
    headline = make_headline(gather(study(made, lost=0.0, failed=0.0)))
    assert headline.sentence.startswith("Against IGU-LoRA, ")
    assert ": quadrature steps M" in headline.sentence
    assert re.search(r"Against FIM-LoRA, [\w ,]*open[\w ,]*: batches x power", headline.sentence)
    assert headline.is_on_settings
    assert headline.beside == "IGU-LoRA and FIM-LoRA"  # and the rest of the first screen is on the same comparisons
    assert headline.certainty[0] == "n = 6 seeds, paired with IGU-LoRA and FIM-LoRA."
    assert not {"igu", "fim", "lora"} & set().union(*headline.badges.values())


def test_one_word_for_an_arm_everywhere():
    """The finding of an arm with controls is its verdict, also where the reference alone is beaten."""
    report_data = gathered(8)
    (comparison,) = report_data.comparisons.values()
    for kind, arms in make_headline(report_data).badges.items():
        assert {comparison.findings[arm].kind for arm in arms} == {kind}
