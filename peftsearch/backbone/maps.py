"""Common parts of detection and users' descriptions: widths, counts, checks, and errors that name the next step.

Widths come from `in_features` and `out_features` (`nx` and `nf` of transformers' Conv1D) and never from a weight's
shape, since quantised layers pack their weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from peftsearch.backbone.anatomy import Attention, FeedForward, Norm, Projection, Words
from peftsearch.backbone.private_transformers import calls_attention_functions
from peftsearch.errors import BackboneError, one_line

ANATOMY_HINT = (
    "describe it by hand with --anatomy FILE (keys: blocks, query, key, value, output, ffn_in, ffn_out, heads; "
    "optional: kv_heads, head_dim, causal, norms, head, base)"
)


def unreadable(model: nn.Module, wanted: str, found: str, hint: str = ANATOMY_HINT) -> BackboneError:
    """Make the error for a model whose anatomy cannot be read: expected structure, actual structure, next step."""
    return BackboneError(
        f"{type(model).__name__}: looked for {one_line(wanted, 200)}, found {one_line(found, 240) or 'nothing'}; {hint}"
    )


def join(*parts: str) -> str:
    """Join dotted paths, skipping empty parts."""
    return ".".join(part for part in parts if part)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map: `nn.Linear`, a quantised subclass of it, or transformers' Conv1D."""
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def widths(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map."""
    pair: Any = (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (module.nx, module.nf)
    return int(pair[0]), int(pair[1])


def read_projection(
    model: nn.Module, path: str, start: int = 0, d_out: int | None = None, n_pieces: int = 1
) -> Projection:
    """Read a linear map, or the slice `[start, start + d_out)` of its outputs, spread over `n_pieces` pieces."""
    module = model.get_submodule(path)
    d_in, d_module = widths(module)
    return Projection(
        path=path,
        d_in=d_in,
        d_out=d_module if d_out is None else d_out,
        start=start,
        d_module=0 if d_out in (None, d_module) else d_module,
        n_pieces=n_pieces,
        bias=getattr(module, "bias", None) is not None,
    )


def read_norm(model: nn.Module, path: str) -> Norm | None:
    """Read a normalisation layer, whose only weight is a vector, the gain; None where the module is not a norm."""
    module = model.get_submodule(path)
    weight = getattr(module, "weight", None)
    if next(module.children(), None) is not None or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    return Norm(path=path, width=weight.numel(), bias=getattr(module, "bias", None) is not None)


def count_params(root: nn.Module, without: Iterable[nn.Module] = ()) -> int:
    """Count parameters: shared ones once, packed ones of quantised linear maps by their real number.

    Args:
        root: The module to count.
        without: Submodules to leave out.
    """
    seen = {id(p) for module in without for p in module.parameters()}
    total = 0
    for module in root.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                if isinstance(module, nn.Linear) and name == "weight":
                    total += module.in_features * module.out_features  # numel of a quantised weight is packed bytes
                else:
                    total += parameter.numel()
    return total


def find_words(model: nn.Module, last_block: str) -> Words | None:
    """Find the word embeddings of a single-stack model; None where its input is not words."""
    library: Any = model
    try:
        words = library.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # not a transformers model, or not one that reads words
        return None
    if not isinstance(words, nn.Embedding):
        return None
    path = next(path for path, module in model.named_modules() if module is words)
    return Words(path=path, width=words.embedding_dim, last_block=last_block)


def writes_tokens(model: nn.Module) -> bool:
    """Whether a model has an output map to its vocabulary, which belongs to the backbone and stays frozen."""
    library: Any = model
    try:
        return isinstance(library.get_output_embeddings(), nn.Module)
    except (AttributeError, NotImplementedError):  # not a transformers model, or one that writes nothing
        return False


def list_head(model: nn.Module, base: nn.Module) -> tuple[str, ...]:
    """Name the top-level modules outside the base that share nothing with it; an output map of tokens is not a head."""
    if base is model or writes_tokens(model):
        return ()
    own = {id(p) for p in base.parameters()}
    return tuple(
        name
        for name, child in model.named_children()
        if child is not base and any(True for _ in child.parameters()) and not own & {id(p) for p in child.parameters()}
    )


def uses_interface(model: nn.Module, attention: nn.Module) -> bool:
    """Whether an attention uses transformers' AttentionInterface, and its model can switch implementations."""
    return hasattr(model, "set_attn_implementation") and calls_attention_functions(type(attention))


def check_widths(attention: Attention, ffn: FeedForward, hidden: int) -> list[str]:
    """List the widths of a block that do not fit together."""
    wanted = {
        "query input": (attention.query.d_in, hidden),
        "query output": (attention.query.d_out, attention.n_heads * attention.head_dim),
        "key output": (attention.key.d_out, attention.d_kv),
        "value output": (attention.value.d_out, attention.d_kv),
        "attention output's input": (attention.output.d_in, attention.query.d_out),
        "attention output": (attention.output.d_out, hidden),
        "ffn output": (ffn.output.d_out, hidden),
    }
    for i, projection in enumerate(ffn.inputs):
        wanted[f"ffn input {i}"] = (projection.d_in, hidden)
        wanted[f"ffn inner width {i}"] = (projection.d_out, ffn.d_ff)
    faults = [f"{name} {got} instead of {want}" for name, (got, want) in wanted.items() if got != want]
    if not attention.n_kv_heads or attention.n_heads % attention.n_kv_heads:
        faults.append(f"{attention.n_heads} heads over {attention.n_kv_heads} key/value heads")
    return faults
