"""`peftsearch subspace`: learn a subspace of prompts from many tasks, for the method ipt."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from peftsearch.errors import Diverged
from peftsearch.trainer.subspace_options import SubspaceOptions, check_subspace_options


def subspace(*, options: Annotated[SubspaceOptions, Parameter(name="*")]) -> int:
    """Learn a subspace of prompts from many tasks, for the method ipt of other commands (--subspace).

    Args:
        options: Tasks, sizes and the file to write.

    Returns:
        0, or 1 if a source training diverged, after which nothing is written.
    """
    check_subspace_options(options)  # before anything heavy is imported
    from peftsearch.trainer.subspace import learn_subspace

    try:
        learn_subspace(options, partial(print, flush=True))
    except Diverged as error:
        print(f"peftsearch: {error}; a lower --learning-rate may help", file=sys.stderr)
        return 1
    return 0
