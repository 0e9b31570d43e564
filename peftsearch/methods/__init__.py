"""The table of methods: to add one, write its file and its line here.

Order matters where methods act on the same module. The order of the table is the order in which hooks are
registered, whatever the order in an architecture: a projection's output passes through LoRA, then the bias delta,
then the serial adapter; the parallel adapter, which reads the network's input, adds last. Prefix changes the attention
function alone and commutes with the others.
"""

from __future__ import annotations

from peftsearch.errors import MethodError, unknown_name
from peftsearch.methods.adamix import AdaMix
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.adapter_parallel import ParallelAdapter
from peftsearch.methods.adapter_sparse import SparseAdapter
from peftsearch.methods.bitfit import BitFit
from peftsearch.methods.compacter import Compacter
from peftsearch.methods.diffpruning import DiffPruning
from peftsearch.methods.far import Far
from peftsearch.methods.fishmask import FishMask
from peftsearch.methods.ladder import Ladder
from peftsearch.methods.lora import LoRA
from peftsearch.methods.mam import MixAndMatch
from peftsearch.methods.method import Attachment, Method
from peftsearch.methods.prefix import Prefix
from peftsearch.methods.prefix_mlp import PrefixMLP
from peftsearch.methods.prompt import Prompt
from peftsearch.methods.ptuning import PTuning
from peftsearch.methods.said import Said
from peftsearch.methods.unipelt import UniPelt

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        LoRA(),
        FishMask(),
        DiffPruning(),
        Far(),
        Said(),
        BitFit(),
        Adapter(),
        Adapter(name="adapter_pfeiffer", paper="2005.00247", places_in_block=("ffn",)),
        Compacter(),
        Compacter(name="compacter_pp", paper="2106.04647, sec. 4.3", places_in_block=("ffn",)),
        SparseAdapter(),
        AdaMix(),
        ParallelAdapter(),
        Prefix(),
        PrefixMLP(),
        MixAndMatch(),
        UniPelt(),
        Ladder(),
        Prompt(),
        PTuning(),
    )
}


def get_method(name: str) -> Method:
    """Look a method up by its name.

    Raises:
        MethodError: There is no such method; the message names the nearest.
    """
    if name not in METHODS:
        raise MethodError(unknown_name("method", name, METHODS))
    return METHODS[name]


__all__ = ["METHODS", "Attachment", "Method", "get_method"]
