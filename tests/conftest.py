"""The whole suite stays off the network and on one thread: tiny tensors are slower on several."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("suite", deadline=None, derandomize=True)  # no verdict by the clock, the same examples always
settings.load_profile("suite")
