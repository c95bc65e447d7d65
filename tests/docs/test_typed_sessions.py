"""What README and quick start say is printed, is printed."""

import pytest
import typed_sessions
from typed_sessions import agrees, renewed, shown, typed

SESSION = """Text.

```console
$ rankbench one=1
...
last
$ rankbench two
```
"""


def test_commands_are_read_with_what_stands_below_them():
    assert typed(SESSION) == {"rankbench one=1": "...\nlast\n", "rankbench two": ""}


def test_a_page_is_filled_anew_and_keeps_what_it_leaves_out():
    text = renewed(SESSION, {"rankbench one=1": "first\nnew last\n", "rankbench two": "a\nb\n"})
    assert text == SESSION.replace("last", "new last").replace("two\n", "two\na\nb\n")
    assert shown("first\nlast\n", "") == "first\nlast\n"


def test_numbers_times_breaks_and_order_may_differ_and_nothing_else():
    assert agrees("b  3 s\n\na -1.5e-3, run d231b9232da0  (about 2 min left)\n", "a 2, run\n0123456789ab\nb 7.1 min\n")
    assert not agrees("2 open", "2 better")
    assert not agrees("a 1\n", "a 1\na 1\n")
    assert agrees("...\na 1\n", "b\na 2\n")
    assert not agrees("...\na 1\n", "b\n")


@pytest.mark.slow
def test_what_is_typed_prints_what_the_pages_say(tmp_path):
    """Run `python docs/typed_sessions.py` if this fails."""
    pages = {page: typed(page.read_text()) for page in typed_sessions.PAGES}
    assert all(pages.values())
    commands = dict.fromkeys(command for session in pages.values() for command in session)
    outputs = typed_sessions.printed(commands, tmp_path)
    for session in pages.values():
        for command, text in session.items():
            assert agrees(text, outputs[command]), f"{command}\n{outputs[command]}"
