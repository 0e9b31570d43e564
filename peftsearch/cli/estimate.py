"""`peftsearch estimate`: estimate the memory of a training step, part by part, from a model's config alone."""

from __future__ import annotations

import json as json_text
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.named import check_model
from peftsearch.backbone.packing import PACKINGS, PLAIN
from peftsearch.cli.terminal import terminal
from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import S4_PAPER, uniform
from peftsearch.design.budget import check_budget, parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.design.memory import FLOATS, Memory, Step, blocks_passed, hidden_state_bytes
from peftsearch.design.memory import estimate as estimate_memory
from peftsearch.design.shares import n_changed
from peftsearch.errors import BudgetError, ConfigError, unknown_name
from peftsearch.files import read_yaml
from peftsearch.methods import get_method
from peftsearch.methods.abilities import count_placed, sharing_key
from peftsearch.options import HYPHEN, OptionGroup, TunedModelOptions, group
from peftsearch.study.best import Best, StoredModel, read_best
from peftsearch.units import show_bytes

if TYPE_CHECKING:
    from peftsearch.backbone.outline import Outline

MOST = {"--batch": 1_000_000, "--seq": 10_000_000}
"""Largest accepted numbers; anything above is a typing error."""
SEQ = 128
"""Default number of tokens per text, which is also the default limit of `run`."""
FULL = "full fine-tuning"
PARTS = {
    "context": "CUDA context",
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states (AdamW)",
    "hidden_states": "hidden states",
    "logits": "logits",
    "total": "total",
    "fp32_copies": "fp32 copies of gradients (maybe, not in the total)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateOptions(OptionGroup):
    """The model, the architecture and the training step to estimate."""

    what: Annotated[Path | None, Parameter(parse=False)] = None
    """A found architecture (best.yaml), or the folder of its run."""
    budget: Annotated[str | None, HYPHEN] = None
    """Trainable parameters, excluding the task head: 0.1%, 22.7k, 1M."""
    design: str | None = None
    """lora, adapter+prefix, s4-paper or a YAML file (default: lora); for a run, the name of a confirmed design."""
    batch: int = 16
    """Examples per step."""
    seq: int | None = None
    """Tokens per example (default: 128, or the model's positions if fewer)."""
    dtype: str = "fp32"
    """Data type of everything: fp32, bf16 or fp16."""
    quantize: str | None = None
    """Packed frozen weights: nf4, int8 or none (default: the run's)."""
    kind: Literal["generation", "tagging", "question_answering"] | None = None
    """Kind of the task (default: that of the run, or classification)."""
    full: bool = False
    """Also estimate full fine-tuning; without a budget, only that."""
    model: Annotated[TunedModelOptions, group("Model (default: that of the run, or the embedded MiniLM-L6)")] = field(
        default_factory=TunedModelOptions
    )


def estimate(
    what: Path | None = None,
    /,
    options: Annotated[EstimateOptions | None, Parameter(name="*")] = None,
    *,
    json: bool = False,
) -> int:
    """Estimate the memory of a training step, part by part, from a model's config alone.

    Args:
        what: A found architecture (best.yaml), or the folder of its run.
        options: The model, the architecture and the step.
        json: Print JSON, in bytes.

    Raises:
        PeftSearchError: The options, the model, the budget or the `best.yaml` are invalid.
    """
    options = replace(options or EstimateOptions(), what=what)
    _check(options)
    best = None if what is None else read_best(what, options.design)[1]
    if options.quantize is None and best is not None:
        options = replace(options, quantize=best.model.quantize)
    elif options.quantize == PLAIN:
        options = replace(options, quantize=None)
    check_model(options.model)
    from peftsearch.backbone.outline import read_outline

    found_on = None if best is None else best.model.name
    if options.kind is None and best is not None and best.task.kind in ("generation", "tagging", "question_answering"):
        options = replace(options, kind=best.task.kind)  # type: ignore[arg-type]  # one of these
    outline = read_outline(replace(options.model, name=options.model.name or found_on), options.kind)
    n_tokens = outline.n_tokens if options.kind == "generation" else 0
    step = _step(options, outline)
    architecture, name = _architecture(options, best, outline.backbone)
    columns: dict[str, Memory] = {}
    if architecture is not None:
        columns[name] = _of_architecture(outline, architecture, step, options.quantize, n_tokens)
    if options.full:
        n_params = outline.weights.n_params
        columns[FULL] = estimate_memory(
            outline.weights, outline.backbone.blocks, step, n_trained=n_params, n_tokens=n_tokens
        )
    notes = _notes(options, outline, architecture, step)
    if json:
        print(json_text.dumps(_json(options, outline, architecture, step, columns, notes), ensure_ascii=False))
        return 0
    _print(options, outline, step, columns, notes)
    return 0


def _check(options: EstimateOptions) -> None:
    """Check everything that needs no model: numbers, names, and that the architecture has one source."""
    for option, most in MOST.items():
        value = getattr(options, option.removeprefix("--"))
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{option} must be from 1 to {most:,}, got {value:,}")
    if options.dtype not in FLOATS:
        raise ConfigError(f"--dtype: {unknown_name('dtype', options.dtype, FLOATS)}")
    if options.quantize not in (None, PLAIN, *PACKINGS):
        raise ConfigError(f"--quantize: {unknown_name('quantization', options.quantize, (*PACKINGS, PLAIN))}")
    if options.what is not None and options.budget is not None:
        raise ConfigError(f"--budget: {options.what} already fixes all sizes; give one or the other")
    if options.budget is not None:
        check_budget(options.budget)
    elif options.what is None and (options.design is not None or not options.full):
        raise BudgetError(
            "estimate needs --budget, such as --budget 0.1%; or a best.yaml; or --full alone for full fine-tuning"
        )


def _step(options: EstimateOptions, outline: Outline) -> Step:
    """The requested step; by default with the text length of `run`, within the model's positions, or an image's."""
    most = outline.n_positions if outline.n_positions is not None else MOST["--seq"]
    if options.seq is not None and options.seq > most:
        raise ConfigError(f"--seq {options.seq}: {outline.backbone.name} has positions for {most} tokens")
    return Step(
        batch=options.batch,
        seq=options.seq or (outline.n_positions if outline.reads_images else None) or min(SEQ, most),
        float_bytes=FLOATS[options.dtype],
        attention="eager" if outline.attention == "eager" else "documented",
    )


def _architecture(options: EstimateOptions, best: Best | None, backbone: Backbone) -> tuple[Architecture | None, str]:
    """The architecture to estimate, and its name; None if only full fine-tuning is requested."""
    if best is not None and options.what is not None:
        architecture = Architecture.from_dict(best.architecture)
        _require_same_model(options.what, best.model, architecture, backbone)
        return architecture, best.name
    if options.budget is None:
        return None, ""
    budget = parse_budget(options.budget, backbone.n_params)
    design, name = _design(options.design or "lora")
    return fit(design, backbone, budget), f"{name}, {budget.text}"


def _design(text: str) -> tuple[Design, str]:
    """The design that the user names, and its title: a YAML file, `s4-paper`, or methods joined by `+`."""
    if text.endswith((".yaml", ".yml")):
        return Design.from_dict(read_yaml(Path(text))), Path(text).stem
    if text == "s4-paper":
        return S4_PAPER, text
    methods = tuple(name.strip() for name in text.split("+"))
    for name in methods:
        get_method(name)
    return uniform(*methods), f"{'+'.join(methods)} on all blocks"


def _require_same_model(path: Path, model: StoredModel, architecture: Architecture, backbone: Backbone) -> None:
    """Check that the model of a best.yaml is this one, and that the architecture fits it.

    Raises:
        ConfigError: They differ; the message names the first difference.
    """
    here = {
        "model_type": backbone.model_type,
        "stacks": backbone.depths,
        "n_params": backbone.n_params,
    }
    for key, value in here.items():
        there = getattr(model, key)
        if there != value:
            raise ConfigError(
                f"{path}: was found on another model: {key} is {there} there and {value} in {backbone.name}; give "
                "that model, or a --budget to size a design for this one"
            )
    blocks = {(block.stack, block.index): block for block in backbone.blocks}
    seen: set[Hashable] = set()
    for p in architecture.placements:
        where = f"{path}: {p.stack} block {p.block}, {p.method}"
        block, method = blocks.get((p.stack, p.block)), get_method(p.method)
        if block is None:
            raise ConfigError(f"{where}: {backbone.name} has no such block")
        together = sharing_key(method, p.stack, p.group)
        is_first = together not in seen
        seen.add(together)
        if not 1 <= p.size <= method.max_size(block) or count_placed(method, block, p.size, is_first) != p.n_params:
            raise ConfigError(f"{where}: {method.knob} {p.size} does not have {p.n_params} parameters on {block.path}")


def _of_architecture(
    outline: Outline, architecture: Architecture, step: Step, quantize: str | None, n_tokens: int
) -> Memory:
    return estimate_memory(
        outline.weights,
        blocks_passed(architecture, outline.backbone),
        step,
        n_trained=architecture.n_params + outline.n_head,
        n_added=architecture.n_params,
        quantize=quantize,
        n_tokens=n_tokens,
    )


def _notes(options: EstimateOptions, outline: Outline, architecture: Architecture | None, step: Step) -> list[str]:
    """Notes on the parts that the figures include or leave out, with numbers."""
    blocks = outline.backbone.blocks if architecture is None else blocks_passed(architecture, outline.backbone)
    none, one, heads = (
        hidden_state_bytes(blocks, Step(batch=step.batch, seq=step.seq, float_bytes=step.float_bytes, attention=kind))
        for kind in ("fused", "documented", "eager")
    )
    notes = []
    if architecture is not None:
        notes.append(
            f"Trainable parameters: {architecture.n_params:,}, excluding the head ({outline.n_head:,}); changed in the "
            f"result: {n_changed(architecture, outline.backbone):,}."
        )
    notes.append("On a CPU, there is no CUDA context.")
    if step.attention == "eager":
        notes.append(
            f"Attention is eager: hidden states include {show_bytes(heads - none)} of attention weights of all heads."
        )
    else:
        notes.append(
            f"Attention is {outline.attention}: a fused kernel keeps no attention weights, so hidden states take "
            f"{show_bytes(one - none)} less than shown; unfused attention (eager, or on a CPU with dropout in the "
            f"attention) keeps those of all heads, so hidden states take {show_bytes(heads - one)} more."
        )
    if architecture is not None:
        notes.append(
            "With fused attention, hidden states are an upper estimate: a frozen map keeps no input. They cover "
            f"{len(blocks)} of {len(outline.backbone.blocks)} blocks: from the first tuned one to the output."
        )
        if step.float_bytes < 4:
            n_trained = architecture.n_params + outline.n_head
            notes.append(
                f"peftsearch keeps injected parameters in fp32: gradients, optimizer states and parameters take up to "
                f"{show_bytes((4 - step.float_bytes) * 4 * n_trained)} more."
            )
    if options.quantize is not None and options.full:
        notes.append(f"Full fine-tuning is shown without {options.quantize}: packed weights cannot be trained.")
    if any(block.cross_attention is not None for block in outline.backbone.blocks):
        notes.append("The decoder's cross-attention is not counted.")
    notes.append("Left out: hidden states outside the blocks, temporary buffers of kernels, rounding by the allocator.")
    return notes


def _json(
    options: EstimateOptions,
    outline: Outline,
    architecture: Architecture | None,
    step: Step,
    columns: Mapping[str, Memory],
    notes: list[str],
) -> dict[str, Any]:
    return {
        "model": outline.backbone.name,
        "n_params": outline.backbone.n_params,
        "n_head": outline.n_head,
        "batch": step.batch,
        "seq": step.seq,
        "dtype": options.dtype,
        "quantize": options.quantize,
        "attention": outline.attention,
        "architecture": None if architecture is None else architecture.to_dict(),
        "n_changed": None if architecture is None else n_changed(architecture, outline.backbone),
        "bytes": {name: asdict(memory) | {"total": memory.total} for name, memory in columns.items()},
        "notes": notes,
    }


def _print(
    options: EstimateOptions, outline: Outline, step: Step, columns: Mapping[str, Memory], notes: list[str]
) -> None:
    packed = f", {options.quantize} weights" if options.quantize else ""
    table = Table(
        title=f"{outline.backbone.name}: {outline.backbone.n_params:,} parameters, a training step of {step.batch} x "
        f"{step.seq} tokens, {options.dtype}{packed}",
        title_justify="left",
    )
    table.add_column("memory")
    for name in columns:
        table.add_column(name, justify="right")
    for part, label in PARTS.items():
        values = [getattr(memory, part) for memory in columns.values()]
        if part not in ("fp32_copies", "logits") or any(values):
            last = "logits" if options.kind == "generation" else "hidden_states"
            table.add_row(label, *map(show_bytes, values), end_section=part == last)
    console = terminal()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
