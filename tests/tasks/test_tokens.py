"""Token ids that are kept on disk: the same ids, and never those of anything else."""

import gzip
import multiprocessing
import random
from pathlib import Path

import pytest
from support.texts import WORDS, byte_tokenizer, loaded, word_tokenizer, write_classification

from rankbench.tasks.text import tokens
from rankbench.tasks.text.tokens import encode


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """A cache of its own, in which everything is kept."""
    monkeypatch.setenv("RANKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "KEPT_FROM", 0)
    return tmp_path / "cache" / "tokens"


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


class Counted:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer, self.calls = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *texts, **settings):
        self.calls += 1
        return self._tokenizer(*texts, **settings)


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ([sentences(50)], {"add_special_tokens": False}),
        ([sentences(50)], {"add_special_tokens": True}),
        ([sentences(50), sentences(50, 1)], {}),
        ([sentences(50), sentences(50, 1)], {"truncation": "longest_first", "max_length": 9}),
        ([["", "é 猫", "the\0cat"]], {}),
    ],
)
def test_what_is_read_back_is_what_the_tokenizer_says(cache, columns, settings):
    counted = Counted(word_tokenizer())
    fresh, kept = (encode(counted, columns, **settings) for _ in range(2))
    assert counted.calls == 1
    assert len(list(cache.iterdir())) == 1
    straight = word_tokenizer()(*columns, **settings)
    assert fresh == kept == {key: straight[key] for key in ("input_ids", "token_type_ids")}


def other_vocabulary():
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["mouse"])
    return tokenizer


def other_class():
    class Fast(type(word_tokenizer())):
        pass

    tokenizer = word_tokenizer()
    tokenizer.__class__ = Fast
    return tokenizer


def specials_as_text():
    tokenizer = word_tokenizer()
    tokenizer.split_special_tokens = True
    return tokenizer


BEFORE = (["the cat", "sat"],)


@pytest.mark.parametrize(
    ("tokenizer", "columns", "settings"),
    [
        (word_tokenizer, [["the cat", "ran"]], {}),
        (word_tokenizer, [["sat", "the cat"]], {}),
        (word_tokenizer, [["the", "cat sat"]], {}),
        (word_tokenizer, [["the cat"], ["sat"]], {}),
        (word_tokenizer, BEFORE, {"add_special_tokens": False}),
        (word_tokenizer, BEFORE, {"truncation": True, "max_length": 3}),
        (byte_tokenizer, BEFORE, {}),
        (other_vocabulary, BEFORE, {}),
        (other_class, BEFORE, {}),
        (specials_as_text, BEFORE, {}),
    ],
)
def test_what_could_change_the_ids_is_kept_apart(cache, tokenizer, columns, settings):
    encode(word_tokenizer(), BEFORE)
    encode(tokenizer(), columns, **settings)
    assert len(list(cache.iterdir())) == 2


def test_another_version_of_the_library_tokenises_anew(cache, monkeypatch):
    encode(word_tokenizer(), BEFORE)
    monkeypatch.setattr("tokenizers.__version__", "99")
    encode(word_tokenizer(), BEFORE)
    assert len(list(cache.iterdir())) == 2


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        flip,
        lambda content: content[:-9],
        lambda content: b"",
        lambda content: b"no gzip",
        lambda c: gzip.compress(b"{"),
    ],
    ids=["a bit", "cut off", "empty", "foreign", "no JSON"],
)
def test_a_broken_file_is_ignored_and_written_again(cache, spoil):
    counted = Counted(word_tokenizer())
    columns = [sentences(50)]
    first = encode(counted, columns)
    (file,) = cache.iterdir()
    whole = gzip.decompress(file.read_bytes())
    file.write_bytes(spoil(file.read_bytes()))
    assert encode(counted, columns) == first
    assert counted.calls == 2
    assert list(cache.iterdir()) == [file]
    assert gzip.decompress(file.read_bytes()) == whole
    assert encode(counted, columns) == first
    assert counted.calls == 2


def keep(columns, gate) -> None:
    gate.wait()
    for _ in range(20):
        encode(word_tokenizer(), columns)
        for file in tokens.folder().iterdir():
            file.unlink(missing_ok=True)


def test_processes_that_write_the_same_file_at_once_do_not_disturb_each_other(cache):
    columns = [sentences(50)]
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    writers = [context.Process(target=keep, args=(columns, gate)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert not list(cache.glob(".*"))
    assert encode(word_tokenizer(), columns)["input_ids"] == word_tokenizer()(columns[0])["input_ids"]


def test_few_texts_are_not_kept(cache, monkeypatch):
    texts = sentences(9)
    monkeypatch.setattr(tokens, "KEPT_FROM", sum(map(len, texts)) + 1)
    encode(word_tokenizer(), [texts])
    assert not cache.exists()
    monkeypatch.setattr(tokens, "KEPT_FROM", sum(map(len, texts)))
    encode(word_tokenizer(), [texts])
    assert len(list(cache.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_told_and_stops_nothing(cache, capsys):
    cache.parent.mkdir()
    cache.write_text("a file")
    made = encode(word_tokenizer(), BEFORE)
    assert made["input_ids"] == word_tokenizer()(BEFORE[0])["input_ids"]
    said = f"token ids are not kept: {cache}: File exists; RANKBENCH_CACHE=DIR names another place"
    assert capsys.readouterr().out.strip() == said


@pytest.mark.parametrize(("name", "architecture"), [("glue-rte", "encoder"), ("boolq", "decoder")])
def test_a_task_makes_the_same_examples_of_what_was_kept(cache, tmp_path, monkeypatch, name, architecture):
    section = {**write_classification(tmp_path, name), "max_length": 9 if architecture == "encoder" else 60}
    kept, read_back = (loaded(name, architecture, **section) for _ in range(2))
    monkeypatch.setattr(tokens, "KEPT_FROM", 10**9)
    straight = loaded(name, architecture, **section)
    assert kept.splits == read_back.splits == straight.splits
    assert kept.revision == straight.revision
    assert "train 0" not in straight.revision["truncated"]
    assert list(cache.iterdir())
