"""What a training refuses of the processes that accelerate starts."""

import pytest

from peftsearch.errors import ConfigError
from peftsearch.trainer.processes import Processes


@pytest.mark.parametrize(
    ("name", "told"), [("ACCELERATE_USE_FSDP", "FSDP shards"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed shards")]
)
def test_sharded_weights_are_refused_with_the_ways_out(name, told, monkeypatch):
    monkeypatch.setenv(name, "true")
    with pytest.raises(ConfigError, match=rf"{told} the weights.*DistributedDataParallel.*--device-map auto"):
        Processes("cpu", unused=False)
    monkeypatch.setenv(name, "false")
    assert Processes("cpu", unused=False).n == 1
