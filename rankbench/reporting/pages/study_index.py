"""The index of the studies in a results folder: index.html, and a block of its README.md; each report refreshes them.

A study is there if its folder has a page. What is said of it is read off the head of that page.
"""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from rankbench.reporting.pages.page import environment

README, PAGE, FACTS = "README.md", "index.html", ("question", "description", "runs", "date")
BEGIN, END = "<!-- studies: rankbench report writes this block -->", "<!-- end of the studies -->"
THUMBNAILS = ("forest", "found-against-gain", "curves", "cost")  # the first of these figures that a study has
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
        if tag == "meta" and (name := values.get("name")) in FACTS:
            self.facts[str(name)] = values.get("content") or ""


def studies(results: Path) -> list[ListedStudy]:
    """The studies with a page, by name; pages that do not say what was asked are none of a report."""
    listed = []
    for page in sorted(results.glob(f"*/{PAGE}")):
        head = _Head()
        head.feed(page.read_text().partition("<style>")[0])
        if set(head.facts) == set(FACTS):
            figures = [page.parent / "figures" / f"{name}.png" for name in THUMBNAILS]
            figure = next((f"{page.parent.name}/figures/{file.name}" for file in figures if file.is_file()), "")
            listed.append(ListedStudy(page.parent.name, thumbnail=figure, **head.facts))
    return listed


def refresh(results: Path) -> None:
    """Write index.html, and the block of README.md where that has one; only in a folder of sweeps or with the block."""
    readme = results / README
    text = readme.read_text() if readme.is_file() else ""
    if BEGIN not in text and not (results / "sweeps").is_dir():
        return
    listed = studies(results)
    (results / PAGE).write_text(environment().get_template("studies.html.j2").render(studies=listed, width=WIDTH))
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        readme.write_text(f"{before}{BEGIN}\n\n{block(listed)}\n{END}{rest.partition(END)[2]}")


def block(listed: list[ListedStudy]) -> str:
    """The studies as a Markdown table."""
    rows = ["| | study | asked and found | runs | declared |", "| --- | --- | --- | --- | --- |"]
    for study in listed:
        link = f"{study.name}/{PAGE}"
        image = f'<a href="{link}"><img src="{study.thumbnail}" width="{WIDTH}" alt=""></a>' if study.thumbnail else ""
        texts = [image, f"[{study.name}]({link})", f"{study.question} **{study.description}**", study.runs, study.date]
        rows.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
    return "\n".join(rows) + "\n"
