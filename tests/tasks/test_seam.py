"""The seam between prompt and target: tokens as in pretraining, for every kind of tokenizer."""

import pytest
from support.texts import byte_tokenizer, task, word_tokenizer, write_gsm8k
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text import tokens
from rankbench.tasks.text.tokens import fitted, seam

SPECIALS = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
TEXTS = [
    f"Question: What is {a} times {a + 2}?\nAnswer: {a}*2=<<{a}*2={2 * a}>>\n#### {2 * a}\n" for a in range(10, 99)
]
TEXTS += ["The answer is yes", "Answer: no"] * 9
PAIRS = [("Question: What is 12 times 2?\nAnswer:", " 12*2=<<12*2=24>>\n#### 24\n"), ("12 =", " -7\n"), ("The", " yes")]

READ = "rankbench.tasks.worked_problems.losses_and_answers"


def wrap(backend, bos=True, eos=False):
    """The tokenizer with <s> before and </s> after a text."""
    around = [("<s>", 1)] * bos + [("</s>", 2)] * eos
    if around:
        single = f"{'<s> ' * bos}$A{' </s>' * eos}"
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def byte_level(regex=True, **around):
    """Like GPT-2; without the regular expression a token may hold a blank with what is on both sides of it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn = trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, learn)
    return wrap(backend, **around)


def llama(scheme, **around):
    """Like Llama-2 and Mistral: a blank mark before the text, bytes for what has no token of its own."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    learn = trainers.BpeTrainer(vocab_size=330, special_tokens=[*SPECIALS, *BYTES], show_progress=False)
    backend.train_from_iterator([text.replace("\n", " ") for text in TEXTS], learn)
    if scheme == "never":  # the older files: the mark is a matter of normalisation
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return wrap(backend, **around)


def unigram(texts=TEXTS):
    """Like T5: blanks and line breaks are one mark, an end token after every text."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    learn = trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", special_tokens=SPECIALS, show_progress=False)
    backend.train_from_iterator(texts, learn)
    return wrap(backend, bos=False, eos=True)


def wordpiece():
    """Like BERT: lower case, and blanks between all pieces."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    learn = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIALS, show_progress=False)
    backend.train_from_iterator(TEXTS, learn)
    return wrap(backend, eos=True)


KINDS = {
    "bytes": lambda: byte_level(bos=False),
    "bytes, eos": lambda: byte_level(eos=True),
    "blank mark first": lambda: llama("first"),
    "blank mark always, eos": lambda: llama("always", eos=True),
    "blank mark by normalisation": lambda: llama("never"),
    "unigram": unigram,
    "wordpiece": wordpiece,
    "spanning": lambda: byte_level(regex=False),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param, KINDS[request.param]()


@pytest.mark.parametrize(("prompt", "target"), PAIRS)
def test_prompt_and_target_are_the_tokens_of_the_whole_text(kind, prompt, target):
    name, tokenizer = kind
    ((asked, (answer,)),) = seam(tokenizer, [prompt], [[target]])
    before = (1,) if tokenizer("a")["input_ids"][0] == 1 else ()
    assert asked + answer == before + tuple(tokenizer(prompt + target, add_special_tokens=False)["input_ids"])
    assert not {1, 2} & {*asked[1:], *answer}
    if name != "spanning":
        context = before + tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert asked == context  # so the target is what lm-evaluation-harness scores: whole[len(context):]
    if name == "blank mark by normalisation":  # alone, the target would begin with one mark more
        alone = tokenizer.convert_ids_to_tokens(tokenizer(target, add_special_tokens=False)["input_ids"])
        assert alone == ["▁", *tokenizer.convert_ids_to_tokens(answer)]


def test_a_model_that_reads_them_apart_gets_the_prompt_with_its_end_and_the_bare_target(kind):
    _, tokenizer = kind
    prompt, target = PAIRS[0]
    ((asked, (answer,)),) = seam(tokenizer, [prompt], [[target]], joins=False)
    assert list(asked) == tokenizer(prompt)["input_ids"]
    assert list(answer) == tokenizer(target, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("joins", [True, False])
def test_options_that_all_prompts_share_are_encoded_once_and_alike(kind, joins):
    _, tokenizer = kind
    prompts = [f"Question: What is {a} times 2?\nAnswer:" for a in range(70, 200)]
    options = [(" yes", " no", " 24")] * len(prompts)
    assert seam(tokenizer, prompts, options, joins) == tokens._cut(tokenizer, prompts, options, joins)


def test_options_that_depend_on_the_prompt_are_encoded_with_each(monkeypatch):
    tokenizer = byte_level(regex=False)
    prompts = [f"What is {a} times {a}?\n#" for a in range(10, 60)] + ["Answer"] * 50
    options = [("### 24", ": 24")] * len(prompts)
    rows = seam(tokenizer, prompts, options)
    assert rows == tokens._cut(tokenizer, prompts, options, True)
    assert len({row for _, row in rows}) > 1


def test_a_template_that_writes_the_first_token_itself_does_not_double_it():
    ((asked, _),) = seam(byte_level(), ["<s>The"], [[" yes"]])
    assert asked.count(1) == 1


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("wordpiece", "spanning")])
def test_gsm8k_ends_no_prompt_and_keeps_every_gold(name, tmp_path):
    made, tokenizer = task("gsm8k", **write_gsm8k(tmp_path)), KINDS[name]()
    made.load(tokenizer, "decoder", Streams(0))
    for example in (example for split in made.splits.values() for example in split):
        assert 2 not in example.input_ids[:-1]  # it ends a solution that has no line break
        assert made.answer(tokenizer.decode(example.input_ids[example.prompt_length :])) == example.item["gold"]


def test_a_tokenizer_that_cannot_write_the_answer_is_refused(tmp_path):
    made = task("gsm8k", **write_gsm8k(tmp_path))
    with pytest.raises(
        DataError,
        match=r"train/\d+: the model's tokenizer writes the solution as '.*# # # # \d+', whose answer is None instead "
        r"of '\d+'; task=gsm8k needs a model whose tokenizer keeps every character",
    ):
        made.load(wordpiece(), "decoder", Streams(0))


def test_a_solution_ends_in_the_end_token_where_a_tokenizer_writes_no_line_break(monkeypatch):
    made, ends = task("arithmetic", train_size=4, validation_size=2, test_size=2), []
    stripping = byte_level()._tokenizer
    stripping.normalizer = normalizers.Strip()
    for backend, last in ((stripping, {2}), (byte_level()._tokenizer, {201})):
        made.load(wrap(backend), "decoder", Streams(0))
        assert {example.labels[-1] for example in made.splits["train"]} == last
        monkeypatch.setattr(READ, lambda *rest: ends.append(2 in rest[5]) or ([], []))
        made._read(None, made.splits["test"], 3)
    assert ends == [True, True]


def test_an_unknown_token_that_solutions_hold_does_not_end_an_answer(tmp_path, monkeypatch):
    made, ends = task("gsm8k", **write_gsm8k(tmp_path)), []
    for tokenizer in (unigram(), unigram([text.replace("<", "") for text in TEXTS])):
        made.load(tokenizer, "encoder_decoder", Streams(0))
        monkeypatch.setattr(READ, lambda *rest: ends.append(set(rest[5])) or ([], []))
        made._read(None, made.splits["test"], 3)
    assert ends == [{0, 1, 2}, {1, 2}]


def test_a_text_is_cut_even_where_its_first_token_is_a_mark_alone():
    tokenizer = llama("always")
    texts = {"question": "12 times 2 is what?"}
    (full,), _ = fitted(tokenizer, "{question} A:", [texts], "question", [[" 24"]], ["test/0"], 99)
    for limit in range(6, len(full[0]) + len(full[1][0])):
        ((prompt, (answer,)),), count = fitted(
            tokenizer, "{question} A:", [texts], "question", [[" 24"]], ["test/0"], limit
        )
        assert len(prompt) + len(answer) <= limit
        assert count == 1
        assert tokenizer.decode(prompt).endswith(" A:")


def test_nothing_moves_for_tokenizers_that_encode_each_part_alike():
    for tokenizer in (byte_tokenizer(), byte_level(bos=False), word_tokenizer()):
        prompt, target = "the cat sat:", " on the mat"
        ((asked, (answer,)),) = seam(tokenizer, [prompt], [[target]])
        bare = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, target)]
        assert [list(asked)[-len(bare[0]) :], list(answer)] == bare
