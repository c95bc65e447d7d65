"""Summaries of news: XSum (Narayan et al. 2018), CNN/DailyMail (Hermann et al. 2015, See et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pydantic import Field

from rankbench.config.registry import register
from rankbench.tasks.text.dataset_files import Table, read
from rankbench.tasks.text.splits import divide
from rankbench.tasks.text_generation import GenerationConfig, TextGeneration, Writing

PROMPT = "{document}\nTL;DR:"  # what a decoder reads (Radford et al. 2019, section 3.6)


class SummaryConfig(GenerationConfig):
    """Settings of a task of summaries.

    Attributes:
        max_target_length: tokens of a summary that are learned; a longer one loses its end.
    """

    max_target_length: int = Field(ge=1)


class Summarization(TextGeneration[SummaryConfig]):
    """Summary of an article: an encoder-decoder reads the article alone, a decoder has it in a prompt.

    Class facts:
        article, summary: columns.
    """

    keeps = "start"  # news tell what matters first
    article: ClassVar[str]
    summary: ClassVar[str]

    def writings(self) -> tuple[dict[str, list[Writing]], str]:
        """Official splits, or carved out of train where there are none."""
        tables, data = read(self.config, (self.article, self.summary), ("train",), ("validation", "test"))
        parts = divide(tables, self.config).items()
        return {split: [self._writing(table, row) for row in rows] for split, (table, rows) in parts}, data

    def _writing(self, table: Table, row: int) -> Writing:
        values = table.rows[row]
        summary = values[self.summary]
        target = f" {summary}" if self._language.joins else summary
        return Writing(f"{table.split}/{row}", self._ask(), values[self.article], target, summary)

    def _ask(self) -> Callable[[str], str]:
        if not self._language.joins:
            return str
        return lambda document: PROMPT.format(document=document)

    def wording(self) -> tuple[str, ...]:
        """The prompt."""
        return (PROMPT,) if self._language.joins else ("{document}",)

    def target_limit(self, prompt_length: int) -> int:
        """The same for every article."""
        return self.config.max_target_length


@register("task", "xsum")
class XSum(Summarization):
    """One sentence on a BBC article."""

    source = "EdinburghNLP/xsum"
    article = "document"
    summary = "summary"


@register("task", "cnn-dailymail")
class CnnDailyMail(Summarization):
    """The highlights of an article, a few sentences."""

    source = "abisee/cnn_dailymail"
    article = "article"
    summary = "highlights"
