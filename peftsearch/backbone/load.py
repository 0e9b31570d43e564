"""Load a pretrained model from the hub, a folder or the embedded demo, with a new task head or for generation.

Only safetensors and GGUF are read, never pickles. No other module loads models.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.auto import model_class, reads_images
from peftsearch.backbone.demo import DEMO
from peftsearch.backbone.describe import describe
from peftsearch.backbone.detect import detect
from peftsearch.backbone.device_map import check_map, require_on_gpus
from peftsearch.backbone.folder import (
    CONVERT,
    cached_commit,
    check_folder,
    demo_folder,
    find_folder,
    find_gguf,
    fingerprint_folder,
)
from peftsearch.backbone.images import ImageReader, check_reading
from peftsearch.backbone.maps import count_params
from peftsearch.backbone.packing import check_quantisation
from peftsearch.backbone.private_transformers import has_adapter, initialise
from peftsearch.backbone.quantised import (
    forget_quantiser,
    quantised_maps,
    quantised_settings,
    require_wide_maps,
    settle,
)
from peftsearch.backbone.quiet import quiet
from peftsearch.errors import BackboneError, PeftSearchError, one_line

_HUB_SECONDS = 4.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedBackbone:
    """A model in memory, its tokenizer or image processor, and its anatomy."""

    model: Any
    """The transformers model with its task head, in evaluation mode."""
    tokenizer: Any
    """The model's tokenizer, with a padding token, or its image processor."""
    backbone: Backbone

    @property
    def reads_images(self) -> bool:
        """Whether the model takes images instead of texts."""
        return reads_images(self.model)


def load_backbone(
    name_or_path: str | PathLike[str] | None,
    *,
    num_labels: int,
    problem_type: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    anatomy: Mapping[str, Any] | str | PathLike[str] | None = None,
    quantize: str | None = None,
    compute_dtype: torch.dtype | None = None,
    device_map: str | None = None,
) -> LoadedBackbone:
    """Load a model for classification (of texts or images) or regression, or a causal or seq2seq language model.

    Args:
        name_or_path: A hub id, a folder or a GGUF file; None, `demo` or `minilm` for the embedded MiniLM-L6.
        num_labels: Outputs of the head; not used for generation, where only the methods are trained.
        problem_type: `regression`, `generation`, `tagging` (a head on every token), `question_answering`,
            `multi_label`, or None for single-label classification; those of transformers' configs too.
        dtype: Type of the weights, where `compute_dtype` is None.
        device: Device for the model.
        trust_remote_code: Whether code that comes with the model may run.
        revision: Branch, tag or commit of a hub model.
        local_files_only: Whether to avoid the network.
        anatomy: The user's description, see `describe`; None detects the anatomy.
        quantize: `nf4` or `int8` packs the linear maps of the blocks while loading; see `quantised`.
        compute_dtype: Precision that autocast multiplies in. The frozen weights are kept in it, so that no step has to
            convert them and they take half of the memory; the head, which is trained, stays in float32. None is
            float32.
        device_map: `auto`, `balanced` or `sequential` spreads the layers over all GPUs, see transformers; inputs go to
            `device`, and outputs come back there. None puts the whole model on `device`.

    Raises:
        BackboneError: The model cannot be found, loaded, read, or packed.
        ConfigError: The user's description is malformed, the quantisation is unknown or not installed, or the device
            map is unknown or goes with a single GPU.
    """
    check_quantisation(quantize)
    check_map(device_map, torch.device(device))
    name = DEMO if name_or_path in (None, "demo") else str(name_or_path)
    folder = demo_folder() if name == DEMO else find_folder(name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if folder is None:
        options |= {"revision": revision, "local_files_only": local_files_only or not _is_hub_reachable()}
    else:
        gguf = find_gguf(folder)
        options |= {"gguf_file": gguf.name} if gguf else {}
        if gguf is None:
            check_folder(name, folder)
    source = str((folder.parent if folder.is_file() else folder) if folder else name)
    labels = _labels(num_labels, problem_type)
    packing = partial(quantised_settings, quantize, device=device, compute_dtype=compute_dtype) if quantize else None
    settings = {**labels, "dtype": compute_dtype or dtype}
    model, tokenizer, info = _load(name, source, options, settings, packing, problem_type, device_map)
    require_on_gpus(name, model, torch.device(device))
    if has_adapter(model):  # of the hub, whose files are not looked at before
        raise BackboneError(f"model {name!r}: comes with an adapter of HF peft; merge it first (merge_and_unload)")
    require_wide_maps(name, model)
    settle(model)
    if "gguf_file" in options:
        forget_quantiser(model)  # its weights are plain floats now, which transformers would otherwise refuse to save
    if reads_images(model):
        check_reading(name, model, tokenizer)
    else:
        _set_padding(name, model, tokenizer)
    fingerprint = fingerprint_folder(folder) if folder else cached_commit(name, revision)
    backbone = detect(model, name, fingerprint) if anatomy is None else describe(model, anatomy, name, fingerprint)
    if problem_type == "generation":  # also where the user described a head
        backbone = replace(backbone, head=(), n_params=count_params(model))
    _check_weights(name, backbone, info)
    _refuse_packed_head(name, model, backbone)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # no generation here, and a cache in every forward pass costs memory
    _settle_precision(model, backbone.head, compute_dtype or dtype)
    return LoadedBackbone(
        model=(model if device_map else model.to(device)).eval(), tokenizer=tokenizer, backbone=backbone
    )


def _labels(num_labels: int, problem_type: str | None) -> dict[str, Any]:
    """The settings of a config for its head."""
    problem = {"multi_label": "multi_label_classification", None: "single_label_classification"}
    if problem_type in ("generation", "tagging", "question_answering"):
        return {"num_labels": num_labels}
    return {"num_labels": num_labels, "problem_type": problem.get(problem_type, problem_type)}


def _refuse_packed_head(name: str, model: nn.Module, backbone: Backbone) -> None:
    """Refuse a model whose head is packed."""
    packed = next((path for path, _ in quantised_maps(model) if f"{path}.".startswith(_below(backbone.head))), None)
    if packed is not None:
        raise BackboneError(
            f"model {name!r}: its head {packed} is packed, and packed weights cannot be trained; pack the model "
            "without its head (llm_int8_skip_modules), or take the unpacked one with --quantize"
        )


def _settle_precision(model: nn.Module, head: Sequence[str], dtype: torch.dtype) -> None:
    """Keep the weights that are not packed in one precision, which transformers gives a packed model in part only."""
    packed = {id(module.weight) for _, module in quantised_maps(model)}
    for parameter in model.parameters():
        if parameter.is_floating_point() and id(parameter) not in packed:
            parameter.data = parameter.data.to(dtype)
    for path in head:
        model.get_submodule(path).float()


def _below(head: Sequence[str]) -> tuple[str, ...]:
    """Beginnings of the names of a head's weights."""
    return tuple(f"{path}." for path in head)


def decoder_start(loaded: LoadedBackbone) -> int | None:
    """The token that the decoder of a seq2seq model starts with; None for other models."""
    config = loaded.model.config
    if not getattr(config, "is_encoder_decoder", False):
        return None
    start = getattr(config, "decoder_start_token_id", None)
    return int(loaded.tokenizer.pad_token_id if start is None else start)


def n_head_params(loaded: LoadedBackbone) -> int:
    """Number of parameters of the task head, which are trained outside the budget."""
    modules = (loaded.model.get_submodule(path) for path in loaded.backbone.head)
    return sum(p.numel() for module in modules for p in module.parameters())


def max_positions(loaded: LoadedBackbone) -> int | None:
    """Number of tokens that a loaded model has positions for; None where there is no limit."""
    return n_positions(loaded.model)


def n_positions(model: Any) -> int | None:
    """Number of tokens that a model, on any device, has positions for; None where there is no limit.

    For a model of images, the tokens of an image: its patches, and the special tokens before them.
    """
    if reads_images(model):
        places = (p for name, p in model.named_parameters() if name.endswith("position_embeddings") and p.dim() == 3)
        return next((int(p.shape[1]) for p in places), None)
    stated: Any = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(stated, int) or stated <= 0:
        return None
    for name, module in model.named_modules():
        offset = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and offset is not None:
            return int(stated - offset - 1)  # RoBERTa's positions start after the padding index
    return stated


def reset_head(model: nn.Module, backbone: Backbone, seed: int) -> None:
    """Reinitialise the head, equal for equal seeds on every device, without touching the global generator.

    Args:
        model: The loaded model.
        backbone: The model's anatomy, which names the head.
        seed: Seed of the initial values.

    Raises:
        BackboneError: A module of the head has no way to initialise itself.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for path in backbone.head:
            module = model.get_submodule(path)
            # Drawn on the CPU, since a GPU's generator gives different numbers. Drawn on a copy, since transformers
            # does not reinitialise parameters that it marked as loaded, and copies have no mark.
            fresh = copy.deepcopy(module).to("cpu")
            for part in fresh.modules():
                _initialise(model, path, part)
            module.load_state_dict(fresh.state_dict())


def _initialise(model: nn.Module, path: str, part: nn.Module) -> None:
    if initialise(model, part):
        return
    if callable(reset := getattr(part, "reset_parameters", None)):
        reset()
    elif any(True for _ in part.parameters(recurse=False)):
        raise BackboneError(f"head {path}: {type(part).__name__} has no reset_parameters; give it one")


def _is_hub_reachable() -> bool:
    """Try to reach the hub once, since its client's own retries take most of a minute without a network."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # whatever error the HTTP library raises, the cache is the fallback
        return False
    return True


def _load(
    name: str,
    source: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    packing: Callable[[nn.Module], dict[str, Any]] | None,
    kind: str | None,
    device_map: str | None,
) -> tuple[Any, Any, Mapping[str, Any]]:
    """Load tokenizer and model; weights missing from the files are drawn with a fixed seed.

    Args:
        name: The user's name for the model.
        source: Hub id or folder.
        options: Arguments for loading both tokenizer and model.
        settings: Arguments for the model only.
        packing: Maps the model without weights to the settings that pack it; None packs nothing.
        kind: Kind of the task.
        device_map: How the layers are spread over GPUs; None leaves them on the CPU.
    """
    from transformers import AutoConfig

    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            loader = model_class(name, AutoConfig.from_pretrained(source, **options), kind)
            tokenizer = _reader(loader).from_pretrained(source, **options)
            own = {"dtype": settings["dtype"]} if kind == "generation" else dict(settings)
            if packing is not None:
                own |= packing(_skeleton(loader, source, options, settings))
            if device_map is not None:
                own["device_map"] = device_map
            model, info = loader.from_pretrained(
                source,
                **options,
                **own,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # replaces a head of another size; `_check_weights` refuses the rest
            )
    except BackboneError:
        raise
    except PeftSearchError as error:
        raise BackboneError(f"model {name!r}: {error}") from error
    except Exception as error:  # files from outside raise anything: OSError, ValueError, KeyError, SafetensorError
        raise BackboneError(f"model {name!r}: {_explain(error, options)}") from error
    return model, tokenizer, info


def _reader(loader: Any) -> Any:
    """The loader of the tokenizer, or of the image processor, for a class of models."""
    from transformers import AutoModelForImageClassification, AutoTokenizer

    return ImageReader if loader is AutoModelForImageClassification else AutoTokenizer


def _skeleton(loader: Any, source: str, options: dict[str, Any], settings: dict[str, Any]) -> nn.Module:
    """The model without weights."""
    from transformers import AutoConfig

    labels = {key: value for key, value in settings.items() if key != "dtype"}
    config = AutoConfig.from_pretrained(source, **options, **labels)
    trust = {"trust_remote_code": options["trust_remote_code"]}
    with torch.device("meta"):
        skeleton: nn.Module = loader.from_config(config, **trust)
    return skeleton


def _explain(error: Exception, options: Mapping[str, Any]) -> str:
    """Explain a loading error, with the next step."""
    text = str(error)
    if "trust_remote_code" in text:
        return "it brings its own code; add --trust-remote-code if you trust its authors, after reading the code"
    if "gated repo" in text:
        return "access on the hub requires accepting its terms; accept them there and run `hf auth login`"
    if "use_safetensors" in text:
        return f"the hub has no safetensors of it; {CONVERT}"
    if "Unrecognized configuration class" in text:
        kinds = {
            "SequenceClassification": "classification of texts or images",
            "TokenClassification": "head on every token",
        }
        what = next((told for end, told in kinds.items() if end in text), "language model")
        return f"transformers has no {what} for this architecture; choose another model"
    if options.get("local_files_only") and isinstance(error, OSError):
        return (
            "no such folder, and not in the local cache while the hub cannot be reached (or is switched off); check "
            "the name and the network, give a folder, or leave --model out for the embedded MiniLM"
        )
    if "is not a valid model identifier" in text or "is not a local folder" in text:
        return "no such folder and no such model on the hub; check the spelling, or log in if it is private"
    return f"cannot be loaded: {type(error).__name__}: {one_line(error, 200)}; check that the files are whole"


def _check_weights(name: str, backbone: Backbone, info: Mapping[str, Any]) -> None:
    """Refuse files that lack weights of the backbone, since missing weights would be random."""
    absent = [*info.get("missing_keys", ()), *(key[0] for key in info.get("mismatched_keys", ()))]
    lacking = sorted(key for key in absent if not key.startswith(_below(backbone.head)))
    pooler = [key for key in lacking if ".pooler." in f".{key}"]
    if len(lacking) > len(pooler):
        first = next(key for key in lacking if key not in pooler)
        raise BackboneError(
            f"model {name!r}: its files lack {len(lacking)} weights of the backbone, or have them in other sizes "
            f"(first: {first}); check that config.json belongs to the weights, and the model to the task"
        )
    if pooler:
        _log.warning("model %r: its files have no pooler; it stays at random values drawn with a fixed seed", name)


def _set_padding(name: str, model: Any, tokenizer: Any) -> None:
    """Give decoders, which often lack one, a padding token: the classification head finds the last token by it."""
    if tokenizer.pad_token is None:
        substitute = tokenizer.eos_token or tokenizer.unk_token
        if substitute is None:
            raise BackboneError(f"model {name!r}: its tokenizer has no padding, end or unknown token; set pad_token")
        tokenizer.pad_token = substitute
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers 5 makes an empty one if files are missing
        raise BackboneError(
            f"model {name!r}: its tokenizer has no vocabulary; add tokenizer.json or the vocabulary files"
        )
    kinds = getattr(model.config.get_text_config(), "type_vocab_size", None)
    if isinstance(kinds, int) and kinds <= 1:  # a tokenizer may number segments that the model has no embeddings for
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    # A decoder's head finds the last token by this id, so it must be the id that batches are padded with.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    n_embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > n_embeddings:
        raise BackboneError(
            f"model {name!r}: its tokenizer has {len(tokenizer):,} tokens and the model {n_embeddings:,}; "
            "take both from one source"
        )
