"""Conversations: where data sets write who says what, and how a model's tokenizer writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_files import is_text

Message = dict[str, str]  # {"role": "system", "user" or "assistant", "content": text}

ROLES = {
    **{"system": "system", "user": "user", "human": "user"},
    **{"assistant": "assistant", "gpt": "assistant", "model": "assistant"},
}
LISTS = ("messages", "conversations")  # columns with a list of turns
KEYS = (("role", "from"), ("content", "value"))  # of a turn, in OpenAI's form and in ShareGPT's
PLAIN = {
    "system": "{content}\n\n",
    "user": "### Instruction:\n{content}\n\n",
    "assistant": "### Response:\n{content}\n\n",
}  # Stanford Alpaca's headings, where the tokenizer has no chat template
OPENING = "### Response:\n"
# Some templates write today's date, so that prompts would differ from day to day; Llama 3.1's writes this one without.
TODAY = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}"


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of data set.

    Attributes:
        instruction: column of what is asked.
        response: column of the answer.
        system, input: columns that may be missing or empty: what the model is; what the instruction is about.
    """

    instruction: str
    response: str
    system: str
    input: str = "input"


LAYOUTS = (
    Layout("question", "response", "system_prompt"),  # OpenOrca
    Layout("instruction", "output", "system"),  # Alpaca, Open-Platypus
    Layout("instruction", "response", "system"),  # Magpie
    Layout("prompt", "response", "system"),
    Layout("prompt", "completion", "system"),
)


def conversation(row: Mapping[str, Any], place: str) -> list[Message]:
    """The messages of a row, the last one the assistant's.

    Raises:
        DataError: no layout that is known, a value that is no text, a role that is unknown, or no answer at the end.
    """
    layout = next((layout for layout in LAYOUTS if layout.instruction in row and layout.response in row), None)
    if layout is not None:
        return _from_columns(row, layout, place)
    column = next((column for column in LISTS if column in row), None)
    if column is None:
        pairs = ", ".join(f"{layout.instruction} and {layout.response}" for layout in LAYOUTS)
        raise DataError(
            f"{place}: no conversation in its columns {', '.join(row)}; expected {pairs}, or a list in "
            f"{' or '.join(LISTS)}"
        )
    return _from_list(row[column], f"{place}, column {column}")


def _from_columns(row: Mapping[str, Any], layout: Layout, place: str) -> list[Message]:
    system, extra = (row.get(column) or "" for column in (layout.system, layout.input))
    texts = {
        **{layout.system: system, layout.instruction: row[layout.instruction]},
        **{layout.input: extra, layout.response: row[layout.response]},
    }
    for column, text in texts.items():
        if not is_text(text):
            raise DataError(f"{place}, column {column}: {text!r} is no text; mend or remove the row")
    question = f"{texts[layout.instruction]}\n\n{extra}" if extra else texts[layout.instruction]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": texts[layout.response]}]
    return [{"role": "system", "content": system}, *messages] if system else messages


def _from_list(turns: Any, place: str) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{place}: {turns!r} is no list of turns; mend or remove the row")
    messages = []
    for number, turn in enumerate(turns, start=1):
        role, content = (turn.get(key) if turn.get(key) is not None else turn.get(other) for key, other in KEYS)
        if role not in ROLES or not is_text(content):
            raise DataError(
                f"{place}, turn {number}: {turn!r} is no turn; it needs role (or from), one of {', '.join(ROLES)}, and "
                "content (or value), a text"
            )
        messages.append({"role": ROLES[role], "content": content})
    roles = [message["role"] for message in messages]
    if roles[-2:] != ["user", "assistant"]:
        raise DataError(f"{place}: the turns are {', '.join(roles) or 'none'}; they must end in user, assistant")
    return messages


class Writer:
    """How a tokenizer writes conversations: by its chat template, or under Alpaca's headings where it has none.

    Attributes:
        wording: the template, for the hash of the prompts.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._chat = tokenizer, tokenizer.chat_template is not None
        tokenizer.split_special_tokens = not self._chat  # a template writes special tokens
        self.wording = (tokenizer.get_chat_template(),) if self._chat else (*PLAIN.values(), OPENING)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The messages as a model reads them that is to answer."""
        if self._chat:
            return self._render(messages, add_generation_prompt=True)
        return "".join(PLAIN[message["role"]].format(**message) for message in messages) + OPENING

    def answer(self, messages: Sequence[Message], place: str) -> str:
        """The last message as it follows the prompt of those before it, with the template's mark of its end.

        Raises:
            DataError: the template refuses the messages, or writes those before it otherwise once there is an answer.
        """
        if not self._chat:
            return messages[-1]["content"]
        import jinja2  # transformers' own, for templates

        try:
            prompt, whole = self.prompt(messages[:-1]), self._render(messages, add_generation_prompt=False)
        except jinja2.TemplateError as error:
            raise DataError(f"{place}: the tokenizer's chat template refuses the conversation: {error}") from error
        if not whole.startswith(prompt):
            raise DataError(
                f"{place}: the tokenizer's chat template writes the prompt {prompt[-40:]!r} otherwise once it is "
                "answered; use a model with another template"
            )
        return whole[len(prompt) :].rstrip()

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The template filled in; without a system turn of its own, it has the system's text in the first user's."""
        import jinja2  # transformers' own, for templates

        settings: dict[str, Any] = {
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": False,  # else Qwen3's has an empty thought in the answer, and none in the prompt
            "chat_template": f"{TODAY}{self._tokenizer.get_chat_template()}",
        }
        try:
            text: str = self._tokenizer.apply_chat_template(list(messages), **settings)
            if messages[0]["role"] != "system" or messages[0]["content"].strip() in text:
                return text
        except jinja2.TemplateError:
            if messages[0]["role"] != "system":
                raise
        system, user, *rest = messages
        merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        text = self._tokenizer.apply_chat_template([merged, *rest], **settings)
        return text
