"""Numbers that the processor computes, and those that it would emulate."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from m2vsl import processor


@pytest.mark.parametrize("computed", [True, False])
def test_bfloat16_is_used_where_it_is_computed_alone(computed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "has_bfloat16", lambda kind: computed)
    x = torch.ones(2, 2)
    with processor.autocast("cpu", "bf16"):
        assert (x @ x).dtype == (torch.bfloat16 if computed else torch.float32)
    with processor.autocast("cpu", "fp32"):
        assert (x @ x).dtype == torch.float32


def test_an_old_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not processor.has_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert processor.has_bfloat16()


def test_denormals_are_zero_inside_alone() -> None:
    small = torch.tensor(1e-40)
    with processor.without_denormals():
        assert float(small * 1) == 0
    assert float(small * 1) > 0


FAULTS = """
import resource, torch
from m2vsl.processor import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
with kept_memory():
    faults()
    with kept_memory():
        pass
    inside = faults()
print(inside, faults())
"""


@pytest.mark.skipif(sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc alone can be told")
@pytest.mark.parametrize("own", [False, True])
def test_freed_memory_is_used_again_inside_alone(own: bool) -> None:
    """Inside it hardly asks the kernel for pages; after it, or where the environment has its own setting, it does."""
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "1048576"} if own else {})
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    inside, after = map(int, done.stdout.split())
    most = max(inside, after)
    assert after > most / 2
    assert inside > most / 2 if own else inside < most / 20
