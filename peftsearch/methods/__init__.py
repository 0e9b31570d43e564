"""The table of methods: to add one, write its file and its line here.

Order matters where methods act on the same module. The order of the table is the order in which hooks are
registered, whatever the order in an architecture: a projection's output passes through LoRA, then the bias delta,
then the serial adapter; the parallel adapter, which reads the network's input, adds last. Prefix changes the attention
function alone and commutes with the others.
"""

from __future__ import annotations

from peftsearch.errors import MethodError, unknown_name
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.adapter_parallel import ParallelAdapter
from peftsearch.methods.bitfit import BitFit
from peftsearch.methods.lora import LoRA
from peftsearch.methods.method import Attachment, Method
from peftsearch.methods.prefix import Prefix

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        LoRA(),
        BitFit(),
        Adapter(),
        Adapter(name="adapter_pfeiffer", paper="2005.00247", places_in_block=("ffn",)),
        ParallelAdapter(),
        Prefix(),
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
