"""The table of methods.

To add a method, write its file here, the file of its layers in `layers/`, and one line in the table. The table needs
neither torch nor transformers: a method imports its layers when it is attached.

Order matters where methods act on the same module. The order of the table is the order in which hooks are
registered, whatever the order in an architecture: a projection's output passes through DoRA, whose norm is that of the
pretrained weight, then what adds to the weight (LoRA to SAID), then the bias delta, then the scales of IA3, then the
serial adapters one after the other (AdaMix directly behind `adapter_pfeiffer`, which it becomes), then the parallel
adapter and KronA_res, which read the network's input, then the parts of MAM and UniPELT, then the ladder. LayerNorm
shares its modules with BitFit only, and the two commute. Prefixes change the attention function alone; prefixes of
several methods are stacked, the last outermost. A prompt is put in front of the input and removed after all of these.
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
from peftsearch.methods.dora import DoRA
from peftsearch.methods.far import Far
from peftsearch.methods.fishmask import FishMask
from peftsearch.methods.ia3 import IA3
from peftsearch.methods.krona import KronA
from peftsearch.methods.krona_res import KronARes
from peftsearch.methods.ladder import Ladder
from peftsearch.methods.layernorm import LayerNorm
from peftsearch.methods.lora import LoRA
from peftsearch.methods.mam import MixAndMatch
from peftsearch.methods.method import Method
from peftsearch.methods.phm import PHM
from peftsearch.methods.prefix import Prefix
from peftsearch.methods.prefix_mlp import PrefixMLP
from peftsearch.methods.prompt import Prompt
from peftsearch.methods.ptuning import PTuning
from peftsearch.methods.said import Said
from peftsearch.methods.unipelt import UniPelt

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        DoRA(),
        LoRA(),
        KronA(),
        FishMask(),
        DiffPruning(),
        Far(),
        Said(),
        BitFit(),
        LayerNorm(),
        IA3(),
        Adapter(),
        Adapter(name="adapter_pfeiffer", paper="2005.00247", places_in_block=("ffn",)),
        AdaMix(),
        PHM(),
        Compacter(),
        Compacter(name="compacter_pp", paper="2106.04647, sec. 4.3", places_in_block=("ffn",), lr_scale=3.0),
        SparseAdapter(),
        ParallelAdapter(),
        KronARes(),
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


__all__ = ["METHODS", "Method", "get_method"]
