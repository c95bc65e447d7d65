"""The index of the studies in a results folder: index.html, and a block of its README.md.

A study is there if its folder has a page. What is said of it is read off the head of that page. Each report refreshes
the index of its results folder, but that of a published one, whose README.md has the block: it is under version
control, and is renewed only when somebody asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from rankbench.reporting.pages.page import environment

README, PAGE = "README.md", "index.html"
FACTS, FIGURE = ("question", "description", "runs", "date"), "figure"  # pages of older versions name no figure
BEGIN, END = "<!-- studies: rankbench report --index writes this block -->", "<!-- end of the studies -->"
UNNAMED = "sweep-"  # begins the folder of a sweep without an experiment
WIDTH = 260  # pixels of a thumbnail


@dataclass(frozen=True)
class ListedStudy:
    """A study as the index has it.

    Attributes:
        name: of its folder.
        question: what was asked.
        description: its headline.
        runs: how many are ok, in words.
        date: when it was declared; "" where that is not known.
        thumbnail: path of a figure from the results folder; "" where it has none.
    """

    name: str
    question: str
    description: str
    runs: str
    date: str
    thumbnail: str


class _Head(HTMLParser):
    """Reads the meta elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the name and the content of a meta element."""
        values = dict(attrs)
        if tag == "meta" and (name := values.get("name")) in (*FACTS, FIGURE):
            self.facts[str(name)] = values.get("content") or ""


def studies(results: Path) -> list[ListedStudy]:
    """The studies with a page, by name; pages that do not say what was asked are none of a report.

    A published index has studies with a name alone: those of a command line without an experiment stay on a machine.
    """
    listed, is_published = [], BEGIN in _readme(results)
    for page in sorted(results.glob(f"*/{PAGE}")):
        if is_published and page.parent.name.startswith(UNNAMED):
            continue
        head = _Head()
        head.feed(page.read_text().partition("<style>")[0])
        figure = head.facts.pop(FIGURE, "")
        if set(head.facts) == set(FACTS):
            file = page.parent / "figures" / f"{figure}.png"
            thumbnail = f"{page.parent.name}/figures/{file.name}" if file.is_file() else ""
            listed.append(ListedStudy(page.parent.name, thumbnail=thumbnail, **head.facts))
    return listed


def refresh(results: Path) -> None:
    """Renew the index after a report: in a folder of sweeps, and not where it is published."""
    if (results / "sweeps").is_dir() and BEGIN not in _readme(results):
        renew(results)


def renew(results: Path) -> Path:
    """Write index.html, and the block of README.md where that has one; the path of the first."""
    listed, text = studies(results), _readme(results)
    page = results / PAGE
    page.write_text(environment().get_template("studies.html.j2").render(studies=listed, width=WIDTH))
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        (results / README).write_text(f"{before}{BEGIN}\n\n{block(listed)}\n{END}{rest.partition(END)[2]}")
    return page


def _readme(results: Path) -> str:
    file = results / README
    return file.read_text() if file.is_file() else ""


def block(listed: list[ListedStudy]) -> str:
    """The studies as a Markdown table."""
    rows = ["| | study | asked or compared, and found | runs | declared |", "| --- | --- | --- | --- | --- |"]
    for study in listed:
        link = f"{study.name}/{PAGE}"
        image = f'<a href="{link}"><img src="{study.thumbnail}" width="{WIDTH}" alt=""></a>' if study.thumbnail else ""
        texts = [image, f"[{study.name}]({link})", f"{study.question} **{study.description}**", study.runs, study.date]
        rows.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
    return "\n".join(rows) + "\n"
