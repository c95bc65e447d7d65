"""The picture of a terminal shows what stays on it."""

from terminal_session import last_seen

BAR = "\r\x1b[2Kstep 1/3\r\x1b[2Kstep 3/3\r\n"
TABLE = "arm\r\nlora 1\r\x1b[2K\x1b[1A\x1b[2Karm\r\nlora 2\r\n"


def test_a_table_that_is_drawn_again_is_seen_once():
    assert last_seen(f"first\r\n{TABLE}\x1b[?25hlast\r\n") == "first\narm\nlora 2\nlast"


def test_progress_is_left_out_and_colours_stay():
    assert last_seen(f"{BAR}\x1b[1mdone\x1b[0m\r\n") == "\x1b[1mdone\x1b[0m"
