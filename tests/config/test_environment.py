"""Nothing in the environment changes a number unseen: variables have no effect, are refused, or are written down."""

import pwd
from pathlib import Path

import pytest
import torch
from support.harness import configure, perform

from rankbench.config.environment import base_dtype
from rankbench.config.schema import ConfigError
from rankbench.files import FolderError, default_cache, expanded
from rankbench.records.record import run_id

WITHOUT_EFFECT = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "ACCELERATE_FP8_BACKEND": "TE",
}


def numbers(folder):
    record = perform(configure(folder, "method=igu"))
    return record["status"], record["ranks"], record["metrics"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return numbers(tmp_path_factory.mktemp("undisturbed"))


def test_settings_of_accelerate_have_no_effect(tmp_path, monkeypatch, undisturbed):
    for name, value in WITHOUT_EFFECT.items():
        monkeypatch.setenv(name, value)
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
    assert numbers(tmp_path) == undisturbed
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "XLA_USE_BF16", "PYTORCH_TUNABLEOP_ENABLED"])
def test_what_changes_the_arithmetic_is_refused_by_name(tmp_path, monkeypatch, name):
    config = configure(tmp_path)
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"{name}=1: this environment variable changes the arithmetic"):
        configure(tmp_path)
    record = perform(config)  # frozen on another machine
    assert record["status"] == "error"
    assert f"{name}=1" in record["reason"]


def test_what_changes_the_last_digits_is_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    record = perform(configure(tmp_path, "train.steps=1"))
    assert record["provenance"]["environment"]["MKL_CBWR"] == "COMPATIBLE"


def test_without_a_home_directory_a_cache_is_asked_for(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("RANKBENCH_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(FolderError, match=r"no home directory .* set RANKBENCH_CACHE to a folder that can be written"):
        default_cache()
    assert expanded("~/models") == Path("~/models")


@pytest.mark.parametrize(
    ("accelerator", "on_cpu", "units", "dtype"),
    [
        (False, "", False, "float32"),
        (False, "", True, "bfloat16"),
        (True, "", False, "bfloat16"),
        (True, "true", False, "float32"),  # as `accelerate launch --cpu` says it
    ],
)
def test_auto_is_the_dtype_that_the_machine_multiplies(tmp_path, monkeypatch, accelerator, on_cpu, units, dtype):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: accelerator)
    monkeypatch.setenv("ACCELERATE_USE_CPU", on_cpu)
    monkeypatch.setattr("rankbench.config.environment.cpu_multiplies_bfloat16", lambda: units)
    assert base_dtype("auto") == dtype
    assert [base_dtype(other) for other in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    inferred, named = (configure(tmp_path, f"model.dtype={word}").plain() for word in ("auto", dtype))
    assert inferred["model"]["dtype"] == dtype
    assert run_id(inferred) == run_id(named)
