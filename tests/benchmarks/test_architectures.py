"""The table of architectures: what works is held against plain PEFT, what does not is named with its sentence."""

import re

import architectures
import pytest


@pytest.fixture(scope="module")
def table():
    return architectures.build(("decoder:gpt2", "decoder:xlnet"), ["lora", "l1ra"], lambda line: None)


def test_what_works_and_what_is_refused(table):
    gpt2, xlnet = table.rows["decoder"]
    assert gpt2 == ["gpt2", "8", "works", "works", ""]
    assert xlnet[:4] == ["xlnet", "-", "refused (1)", "refused (1)"]
    assert table.sentences[0].startswith("the model sees the future")


def test_the_page_has_a_table_per_kind_and_every_sentence_it_refers_to(table):
    page = table.write(["lora", "l1ra"])
    assert "| Decoders | sites | lora | l1ra | notes |" in page
    assert "2 architectures, each a tiny random model" in page
    assert "; 2 runs work." in page
    numbers = {int(number) for number in re.findall(r"\((\d+)\)", page)}
    assert numbers <= set(range(1, len(table.sentences) + 1))
    assert f"\n{len(table.sentences)}. {table.sentences[-1]}\n" in page
    assert "/tmp" not in page


def test_a_run_that_differs_from_plain_peft_is_seen(tmp_path, monkeypatch):
    """A loss off by a thousandth is no longer that of plain PEFT, which an encoder-decoder's otherwise is."""
    true = architectures.loss_of
    monkeypatch.setattr(architectures, "loss_of", lambda model, batch: true(model, batch) * 1.001)
    table = architectures.build(["encoder_decoder:t5"], ["lora"], lambda line: None)
    assert table.rows["encoder_decoder"][0][:3] == ["t5", "32", "differs (1)"]
    losses = re.fullmatch(r"a test item has loss (\d\.\d+), and (\d\.\d+) in plain PEFT", table.sentences[0])
    assert float(losses[2]) / float(losses[1]) == pytest.approx(1.001, abs=2e-5)
