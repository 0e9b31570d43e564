"""Reference points of a study: the model's own weights trained in place, all of them or only the top blocks'.

References are outside the budget: the designs are compared with them, and a reference is never picked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.errors import ConfigError, one_line, unknown_name

if TYPE_CHECKING:
    from peftsearch.backbone.anatomy import Backbone
    from peftsearch.backbone.load import LoadedBackbone

FULL = "full"
"""Name of full fine-tuning."""
FULL_LEARNING_RATE = 5e-5
"""Learning rate of weights trained in place, the largest that BERT's authors try (1810.04805, app. A.3)."""
_TOP = re.compile(r"top-([1-9][0-9]{0,3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A choice of a model's own weights to train."""

    name: str
    """`full`, or `top-2` for the last two blocks."""
    modules: tuple[str, ...]
    """Paths of the trained modules, including the head's; one empty path is the whole model."""
    n_params: int
    """Number of trained parameters, excluding the head; shared ones count once."""

    @property
    def detail(self) -> str:
        """The trained weights, in words."""
        n_blocks = n_top(self.name)
        if n_blocks is None:
            return "all weights of the model"
        return "the weights of the last block" if n_blocks == 1 else f"the weights of the last {n_blocks} blocks"


def n_top(name: str | None) -> int | None:
    """Number of blocks in a name such as `top-2`; None for other names."""
    found = None if name is None else _TOP.fullmatch(name)
    return None if found is None else int(found[1])


def is_in_place(name: str | None) -> bool:
    """Whether a name means training the model's own weights in place."""
    return name == FULL or n_top(name) is not None


def parse_references(text: str | None) -> tuple[str, ...]:
    """Parse the names of `--baselines`, keeping their order.

    Args:
        text: Names separated by commas; None means no references.

    Raises:
        ConfigError: A name is empty, unknown, or given twice.
    """
    names = () if text is None else tuple(part.strip() for part in text.split(","))
    for name in names:
        if not name:
            raise ConfigError(f"--baselines {one_line(text, 60)!r} has an empty entry; write full,top-2")
        if not is_in_place(name):
            raise ConfigError(
                f"--baselines: {unknown_name('reference', name, (FULL, 'top-1', 'top-2'))}, or any other number of "
                "blocks; single methods are always compared"
            )
        if names.count(name) > 1:
            raise ConfigError(f"--baselines {one_line(text, 60)!r} names {name!r} twice; name it once")
    return names


def require_blocks(name: str, backbone: Backbone, option: str = "--baselines") -> None:
    """Check that the backbone has the blocks of a reference.

    Raises:
        ConfigError: The backbone's last stack has fewer blocks.
    """
    stack, n_blocks = backbone.stacks[-1], n_top(name)
    if n_blocks is not None and n_blocks > len(stack.blocks):
        raise ConfigError(
            f"{option} {name}: the {stack.name} of {backbone.name} has {len(stack.blocks)} blocks; "
            f"give at most top-{len(stack.blocks)}"
        )


def make_reference(name: str, loaded: LoadedBackbone, option: str = "--baselines") -> Reference:
    """Resolve the name of a reference in a model.

    Blocks are counted from the end of the last stack. The head is trained with them; embeddings, other stacks and
    modules between the last block and the head stay frozen.

    Args:
        name: `full` or `top-2`.
        loaded: The model.
        option: The option that gave the name, for the message.

    Raises:
        ConfigError: The model has fewer blocks, or its weights are packed.
    """
    from peftsearch.backbone.quantised import quantised_maps

    model, backbone, n_blocks = loaded.model, loaded.backbone, n_top(name)
    require_blocks(name, backbone, option)
    blocks = () if n_blocks is None else backbone.stacks[-1].blocks[-n_blocks:]
    modules = ("",) if n_blocks is None else (*(block.path for block in blocks), *backbone.head)
    inside = ("",) if n_blocks is None else tuple(f"{block.path}." for block in blocks)
    packed = next((path for path, _ in quantised_maps(model) if path.startswith(inside)), None)
    if packed is not None:
        raise ConfigError(
            f"{option} {name} trains the model's own weights, and those of {backbone.name} are packed ({packed}); "
            f"leave {name} out, or give a model that is not packed"
        )
    head = {id(p) for path in backbone.head for p in model.get_submodule(path).parameters()}
    sizes = {id(p): p.numel() for path in modules for p in model.get_submodule(path).parameters()}
    return Reference(name=name, modules=modules, n_params=sum(n for key, n in sizes.items() if key not in head))


def notes_on(references: Sequence[Reference], limited: bool) -> tuple[str, ...]:
    """Notes for the user on references, before they are trained.

    Args:
        references: References of the study.
        limited: Whether the study has limits for its designs.
    """
    if not references:
        return ()
    each = ", ".join(f"{r.name} {r.n_params:,}" for r in references)
    holds = "neither the budget nor the limits apply" if limited else "the budget does not apply"
    return (f"references train the model's own weights ({each}): {holds} to them, and a copy is kept meanwhile",)
