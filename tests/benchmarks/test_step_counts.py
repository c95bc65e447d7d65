"""What the step counts say of a method on the default task."""

from step_counts import count


def test_reads_and_operators_of_steps_with_and_without_a_scoring_pass():
    line = count("igu", "tiny", batch_size=1)
    assert (line["sites"], line["goal"], line["met"]) == (14, 4, True)
    assert sorted(line["reads"]) == [3, 3, 4, 4]
    plain, scoring = sorted(line["operators"])[1:3]
    assert scoring > 1.5 * plain
