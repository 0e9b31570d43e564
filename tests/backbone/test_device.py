"""Device and dtype on a machine without CUDA, or on one that claims to have it."""

from __future__ import annotations

import pytest
import torch

from peftsearch.backbone import device as module
from peftsearch.backbone.device import choose_device, choose_dtype, hardware, settle_threads
from peftsearch.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def n_gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    n = int(request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    return n


@pytest.mark.parametrize(("n_gpus", "expected"), [(0, "cpu"), (2, "cuda")], indirect=["n_gpus"])
def test_default_device(n_gpus: int, expected: str) -> None:
    assert choose_device() == choose_device("auto") == torch.device(expected)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("n_gpus", [2], indirect=True)
def test_numbered_device(n_gpus: int) -> None:
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"'cuda:2': torch .* sees 2 CUDA devices; use cpu or auto"):
        choose_device("cuda:2")


@pytest.mark.parametrize("n_gpus", [0], indirect=True)
@pytest.mark.parametrize(
    ("name", "message"), [("cuda", "sees 0 CUDA"), ("cpuu", "did you mean 'cpu'"), ("mps", "unknown")]
)
def test_refused_devices(n_gpus: int, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_device(name)


@pytest.mark.parametrize("fast", [True, False])
def test_dtype_on_a_cpu(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(module, "_cpu_flags", lambda: {"avx2", "avx512_bf16"} if fast else {"avx2", "avx512f"})
    assert choose_dtype(CPU) is choose_dtype(CPU, "auto") is choose_dtype(CPU, "fp32") is None
    if fast:
        monkeypatch.setattr(module, "_cpu_flags", lambda: {"avx512_bf16", "amx_bf16", "amx_tile"})
        assert choose_dtype(CPU) is choose_dtype(CPU, "auto") is torch.bfloat16
        assert choose_dtype(CPU, "fp32") is None
    if fast:
        assert choose_dtype(CPU, "bf16") is torch.bfloat16
    else:
        with pytest.raises(ConfigError, match=r"'bf16': .* has no fast bf16; use fp32"):
            choose_dtype(CPU, "bf16")
    with pytest.raises(ConfigError, match="unknown dtype 'fp8'"):
        choose_dtype(CPU, "fp8")


@pytest.mark.parametrize("native", [True, False])
def test_dtype_on_cuda(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert choose_dtype(torch.device("cuda")) is (torch.bfloat16 if native else None)
    assert choose_dtype(torch.device("cuda"), "float32") is None


def test_hardware_names_the_cores() -> None:
    assert hardware(CPU).endswith(("core", "cores"))
    assert "\n" not in hardware()


class TestThreads:
    @pytest.fixture(autouse=True)
    @staticmethod
    def machine(monkeypatch):
        """Four cores, whose threads nobody asked for."""
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(module, "_own_threads", lambda: 4)
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize(("free", "n"), [(3.9, 4), (2.6, 3), (1.2, 1), (0.1, 1)])
    def test_they_follow_the_cores_that_are_free(self, monkeypatch, free, n):
        monkeypatch.setattr(module, "_free_cores", lambda: free)
        notes = settle_threads(None, CPU)
        assert torch.get_num_threads() == n
        assert bool(notes) == (n < 4)
        assert all(f"{n} of 4 threads" in note for note in notes)

    def test_what_the_user_or_the_environment_says_holds(self, monkeypatch):
        monkeypatch.setattr(module, "_free_cores", lambda: 0.0)
        assert settle_threads(2, CPU) == ()
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert settle_threads(None, CPU) == ()
        assert torch.get_num_threads() == 2, "untouched"
        with pytest.raises(ConfigError, match="--threads must be at least 1, got 0"):
            settle_threads(0, CPU)

    def test_what_began_goes_on_with_as_many(self, monkeypatch):
        monkeypatch.setattr(module, "_free_cores", lambda: 4.0)
        assert settle_threads(None, CPU, begun=2) == ()
        assert torch.get_num_threads() == 2
        settle_threads(None, CPU, begun=64)
        assert torch.get_num_threads() == 4, "of another machine"
