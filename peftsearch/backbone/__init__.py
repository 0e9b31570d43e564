"""The pretrained model: loading it, reading its anatomy, and choosing where it runs."""

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Norm, Projection, Stack
from peftsearch.backbone.describe import describe
from peftsearch.backbone.detect import detect
from peftsearch.backbone.device import choose_device, choose_dtype, hardware
from peftsearch.backbone.load import LoadedBackbone, load_backbone, n_head_params, reset_head

__all__ = [
    "Attention",
    "Backbone",
    "Block",
    "FeedForward",
    "LoadedBackbone",
    "Norm",
    "Projection",
    "Stack",
    "choose_device",
    "choose_dtype",
    "describe",
    "detect",
    "hardware",
    "load_backbone",
    "n_head_params",
    "reset_head",
]
