"""The pretrained model: loading it, reading its anatomy, and choosing where it runs.

The anatomy is here by name, since it needs neither torch nor transformers; the rest is imported from its own module.
"""

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Norm, Projection, Stack

__all__ = [
    "Attention",
    "Backbone",
    "Block",
    "FeedForward",
    "Norm",
    "Projection",
    "Stack",
]
