"""Imports of every job of a sweep, done once by the process that jobs are forked from.

Nothing here computes: a process that has run threads must not be forked.
"""

from __future__ import annotations

import gc
import os
import threading
from importlib import import_module

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from rankbench.config import registry
from rankbench.training import run
from rankbench.training.code_identity import own_sources
from rankbench.training.provenance import code, libraries

# Modules that a run imports on the way: for data, tables, adapters, metrics, and the architectures in conf/model.
LATER = (
    "datasets",
    "rich._emoji_codes",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.deberta_v2.modeling_deberta_v2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.roberta.modeling_roberta",
    "peft.tuners.lora.eva",
    "peft.tuners.lora.model",
    "peft.utils.transformers_weight_conversion",
    "rankbench.core.peft_variant",
    "scipy.optimize",
    "scipy.stats",
)

# Asked for CUDA, torch would start its driver, after which no forked process could use it; NVML only counts devices.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # of Arrow, which datasets brings: no thread
for kind in registry.PACKAGES:
    registry.import_all(kind)
for module in LATER:
    import_module(module)
# The lock of datasets' progress bars: by default a semaphore between processes, which a job would leave behind.
import_module("tqdm").tqdm.set_lock(threading.RLock())
get_checkpoint_conversion_mapping("llama")  # type: ignore[no-untyped-call]  # peft asks for it: a thousand patterns
code()  # the commit that is imported here is the one the records name, whatever is checked out meanwhile
own_sources()  # and so is the code, whatever is edited meanwhile
libraries()  # and so are the versions
assert run  # imported for its own sake
gc.freeze()  # no job looks through a million objects of modules for garbage, which would also copy their memory
