"""MMLU: questions of 57 subjects with four answers (Hendrycks et al. 2021, arXiv:2009.03300)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from rankbench.config.registry import register
from rankbench.tasks.base import DataError
from rankbench.tasks.multiple_choice import LETTERS, MultipleChoice, lettered, texts_of
from rankbench.tasks.text.answer_scoring import Item
from rankbench.tasks.text.dataset_config import HubConfig, refuse_test_from_train
from rankbench.tasks.text.dataset_files import Table, choose, read
from rankbench.tasks.text.file_formats import Row

SUBJECTS = {  # the authors' categories; EleutherAI's harness counts anatomy as stem
    "stem": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORY = {subject: category for category, subjects in SUBJECTS.items() for subject in subjects.split()}


class MmluConfig(HubConfig):
    """Settings of MMLU.

    Attributes:
        shots: solved questions of the subject before each question of validation and test, the first ones of the split
            "dev", which has five; a prompt too long loses the first of them.
    """

    shots: int = Field(ge=0, le=5)


@register("task", "mmlu")
class Mmlu(MultipleChoice[MmluConfig]):
    """Accuracy over all questions and by category; worded as in EleutherAI's evaluation harness.

    Trained on the official auxiliary questions, which have no subject and so no examples before them; validated on the
    official validation split.
    """

    source = "cais/mmlu all"
    texts = ("question", "subject")
    lists = ("choices",)
    label = "answer"
    labels = LETTERS[:4]
    template = "{shots}{question}\nAnswer:"
    options = tuple(f" {letter}" for letter in LETTERS[:4])
    cut = "shots"
    test = "test"
    parts_of_whole = True

    check = staticmethod(refuse_test_from_train)

    def read_items(self) -> tuple[dict[str, list[Item]], str]:
        """Official splits: auxiliary_train, validation, test, and dev for the examples."""
        splits = ("auxiliary_train", "validation", "test", "dev")
        tables, data = read(self.config, self.texts, splits, (), (*self.lists, self.label))
        auxiliary, validation, test = (tables[split] for split in splits[:3])
        self._shots = self._solved(tables["dev"])
        return {
            "train": self._items(auxiliary, choose(auxiliary, self.config, "train_size")),
            "validation": self._items(validation, choose(validation, self.config, "validation_size"), "subject"),
            "test": self._items(test, choose(test, self.config), "subject"),
        }, data

    def _solved(self, dev: Table) -> dict[str, list[str]]:
        """Subject -> its questions with their answers."""
        solved = defaultdict(list)
        for number, row in enumerate(dev.rows):
            place = dev.at(number)
            _, letter = self._gold(row[self.label], place)
            solved[row["subject"]].append(f"{self._asked(row, place)}\nAnswer: {letter}\n\n")
        return solved

    def _asked(self, row: Row, place: str) -> str:
        return lettered(row["question"], texts_of(row, "choices", 4, place))

    def _items(self, table: Table, rows: Sequence[int], part: str = "") -> list[Item]:
        """Items with their category as part, where a part is asked for."""
        items = super()._items(table, rows)
        if not part:
            return items
        return [replace(item, part=CATEGORY[table.rows[row]["subject"]]) for item, row in zip(items, rows, strict=True)]

    def fields(self, row: Row, place: str) -> dict[str, str]:
        """The question with its answers, and what stands before it.

        Raises:
            DataError: a subject is none of the 57, or has too few examples.
        """
        subject, shots = row["subject"], self.config.shots
        if not subject:  # the auxiliary questions
            about, solved = "", []
        elif subject not in CATEGORY:
            raise DataError(f"{place}: subject={subject!r} is none of MMLU's 57 (abstract_algebra, ...); mend the row")
        elif len(self._shots[subject]) < shots:
            raise DataError(
                f"{place}: the split dev has {len(self._shots[subject])} questions of subject {subject}, fewer than "
                f"task.shots={shots}; make that smaller"
            )
        else:
            about, solved = f" about {subject.replace('_', ' ')}", self._shots[subject][:shots]
        heading = f"The following are multiple choice questions (with answers){about}.\n\n"
        return {"shots": heading + "".join(solved), "question": self._asked(row, place)}
