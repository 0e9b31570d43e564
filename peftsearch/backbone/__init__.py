"""The pretrained model: load it, read its anatomy, and choose its device.

Only the anatomy is exported here, since it needs neither torch nor transformers; import the rest from its modules.
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
