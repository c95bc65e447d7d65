"""Instructions and responses: OpenOrca, Open-Platypus, Magpie-Pro, or any file that is laid out like one of them."""

from __future__ import annotations

from collections.abc import Callable

from rankbench.config.registry import register
from rankbench.tasks.text.conversations import LISTS, Message, Writer, conversation
from rankbench.tasks.text.dataset_files import read
from rankbench.tasks.text.splits import Part, divide
from rankbench.tasks.text_generation import GenerationConfig, TextGeneration, Writing


@register("task", "openplatypus")
@register("task", "openorca")
@register("task", "magpie-pro")
@register("task", "instruction")
class Instruction(TextGeneration[GenerationConfig]):
    """Response to an instruction, in the form of the tokenizer's chat template; the loss is on the last response."""

    source = "a data set of instructions"

    def writings(self) -> tuple[dict[str, list[Writing]], str]:
        """Official splits; one that the data set does not have is carved out of train."""
        self._writer = Writer(self._tokenizer)
        tables, data = read(self.config, None, ("train",), ("validation", "test"), labels=LISTS)
        parts = divide(tables, self.config)
        return {split: self._of_part(part) for split, part in parts.items()}, data

    def _of_part(self, part: Part) -> list[Writing]:
        table, rows = part
        return [self._writing(table.rows[row], f"{table.split}/{row}", table.at(row)) for row in rows]

    def _writing(self, row: dict[str, object], item: str, place: str) -> Writing:
        messages = conversation(row, place)
        *before, answer = messages
        target = self._writer.answer(messages, place)
        return Writing(item, _asking(self._writer, before), before[-1]["content"], target, answer["content"])

    def wording(self) -> tuple[str, ...]:
        """The chat template, or the headings."""
        return self._writer.wording

    def target_limit(self, prompt_length: int) -> int:
        """What the prompt leaves of max_length, at least half of it."""
        return max(self.config.max_length // 2, self.config.max_length - prompt_length)


def _asking(writer: Writer, messages: list[Message]) -> Callable[[str], str]:
    """The prompt with another text in its last message."""
    return lambda text: writer.prompt([*messages[:-1], {**messages[-1], "content": text}])
