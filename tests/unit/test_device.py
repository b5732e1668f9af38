"""The device and precision that a machine gets."""

from types import MappingProxyType

import pytest
import torch

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError
from adjudge.models.sources.device import has_fast_bfloat16, resolve_device, resolve_dtype


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "There is: auto|Did you mean"), ("cuda:99", "CUDA devices"), ("meta", "only auto, cpu, cuda")],
)
def test_missing_device_is_an_error(device, message):
    with pytest.raises(ModelError, match=message):
        resolve_device(RuntimeConfig(device=device))


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ({}, False),
        ({"avx2": True, "amx_bf16": False}, False),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
    ],
)
def test_cpu_gets_bfloat16_only_with_hardware_support(flags, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(flags), raising=False)
    assert has_fast_bfloat16() is fast
    expected = torch.bfloat16 if fast else torch.float32
    assert resolve_dtype(RuntimeConfig(), torch.device("cpu")) == expected
    assert resolve_dtype(RuntimeConfig(dtype="float16"), torch.device("cpu")) == torch.float16


def test_pytorch_without_cpu_flags_gets_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_dtype(RuntimeConfig(), torch.device("cpu")) == torch.float32
