"""Numbers that the processor computes, and those that it would emulate."""

from __future__ import annotations

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
