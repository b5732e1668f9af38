"""The processor's features as PyTorch names them, read without PyTorch."""

import platform
import sys

import pytest
import torch

from adjudge.runs.environment import FLAGS
from adjudge.system import processor

INTEL = "flags\t\t: fpu fma avx2 avx512f avx512vl avx512bw avx512dq avx512_bf16 amx_tile amx_bf16 amx_int8\n"


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="Linux on x86 lists its features")
def test_they_are_those_that_pytorch_sees():
    features, seen = processor.features(), torch.cpu.get_capabilities()
    assert {name: bool(features.get(name)) for name in FLAGS} == {name: bool(seen[name]) for name in FLAGS}
    assert processor.kernels(features) == torch.backends.cpu.get_cpu_capability()


def test_a_processor_with_amx(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{INTEL}\nprocessor\t: 1\n{INTEL}")
    features = processor.features()
    assert [name for name in FLAGS if features.get(name)] == ["avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16"]
    assert processor.has_fast_bfloat16(features)
    assert processor.kernels(features) == "AVX512"
    assert processor.kernels(features, "avx2") == "AVX2"
    assert processor.kernels({"fma": True, "avx2": True}) == "AVX2"


def test_an_unknown_system_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor.features() == {}
    assert processor.kernels({}) == "DEFAULT"
    assert not processor.has_fast_bfloat16({})
