"""model=auto: what a model is, follows from its files."""

import pytest
import torch
import transformers
from support.architectures import CONFIGS, HEADS
from support.harness import configure

from rankbench.core.seeding import Streams
from rankbench.models.errors import ModelError
from rankbench.models.inferred_settings import describe, resolve
from rankbench.models.loading import load, sites_of
from rankbench.models.random_model import byte_tokenizer
from rankbench.records.record import run_id

SAVED_AS = {  # type of model and class that its weights were saved from -> what it is read as
    ("gpt2", "AutoModelForCausalLM"): "decoder",
    ("gpt2", "AutoModel"): "decoder",
    ("gpt2", "AutoModelForSequenceClassification"): "encoder",
    ("mamba", "AutoModelForCausalLM"): "decoder",
    ("t5", "AutoModelForSeq2SeqLM"): "encoder_decoder",
    ("bart", "AutoModelForSeq2SeqLM"): "encoder_decoder",
    ("distilbert", "AutoModel"): "encoder",
    ("distilbert", "AutoModelForMaskedLM"): "encoder",
}


@pytest.fixture
def save(tmp_path):
    def folder(name: str, auto: str, called: str = "mine"):
        config = CONFIGS[name]()
        config.vocab_size = 264
        getattr(transformers, auto).from_config(config).save_pretrained(tmp_path / called)
        byte_tokenizer().save_pretrained(tmp_path / called)
        return tmp_path / called

    return folder


@pytest.mark.parametrize(("name", "auto"), SAVED_AS)
def test_architecture_and_head_follow_from_the_files(tmp_path, save, name, auto):
    section = configure(tmp_path, "model=auto", f"model.path={save(name, auto)}").model
    assert (section.name, section.architecture) == ("mine", "auto")
    config = resolve(section)
    assert config.architecture == SAVED_AS[name, auto]
    encoder = config.architecture == "encoder"
    loaded = load(config, 3 if encoder else None, "classification" if encoder else None, Streams(0))
    assert loaded.head == (tuple(HEADS[name]) if encoder else ())
    assert loaded.sites == sites_of(resolve(section, download=False))
    words = config.architecture.replace("_", "-")
    assert describe(loaded).startswith(f"{name} model read as {words}; adapted are its {len(loaded.sites)} matrices")


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_encoder_decoder_that_was_saved_with_a_head_is_a_classifier(tmp_path, save, name):
    folder = save(name, "AutoModelForSequenceClassification")
    assert resolve(configure(tmp_path, "model=auto", f"model.path={folder}").model).architecture == "encoder"


def test_a_head_for_spans_is_that_of_its_class(tmp_path, save):
    section = configure(tmp_path, "model=minilm-l6", f"model.path={save('distilbert', 'AutoModel')}").model
    section = section.replace(targets=["all-linear"])
    loaded = load(section, 2, "span", Streams(0))
    assert (loaded.head, loaded.task_type) == (("qa_outputs",), "QUESTION_ANS")
    ids = torch.arange(8)[None]
    assert loaded.model(ids).start_logits.shape == (1, 8)


def test_two_models_are_two_runs_and_one_is_one(tmp_path, save):
    first, other = save("gpt2", "AutoModelForCausalLM"), save("gpt2", "AutoModelForCausalLM", "theirs")
    one, two, hub = (
        run_id(configure(tmp_path, "model=auto", f"model.path={path}").plain()) for path in (first, other, "some/mine")
    )
    assert len({one, two, hub}) == 3
    assert run_id(configure(tmp_path, "model=auto", f"model.path={first}").plain()) == one


def test_a_path_that_is_no_folder_names_a_repository(tmp_path):
    section = configure(tmp_path, "model=auto", "model.path=some/model").model
    assert (section.name, section.hub, section.path) == ("model", "some/model", None)
    section = configure(tmp_path, "model=auto", "model.path=/no/such/folder").model
    with pytest.raises(ModelError, match=r"model.path=/no/such/folder does not exist"):
        resolve(section)


def test_a_model_that_reads_no_text_is_refused(tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").touch()
    byte_tokenizer().save_pretrained(tmp_path / "vit")
    section = configure(tmp_path, "model=auto", f"model.path={tmp_path / 'vit'}").model
    with pytest.raises(
        ModelError, match=r"type vit, which transformers has neither as a language model nor .* text model"
    ):
        resolve(section)
