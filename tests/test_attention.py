"""Attention whose gradient is quick on a processor in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch.backends import cuda

from hf_mdft.core.attention import quick_attention


CPU = torch.device("cpu")


def state() -> tuple[bool, ...]:
    """What PyTorch may compute attention with, and whether in half precision."""
    enabled = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()
    return *enabled, cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_only_a_processor_in_bfloat16_is_changed_and_everything_is_put_back():
    before = state()
    for device, bf16 in ((CPU, False), (torch.device("cuda"), True)):
        with quick_attention(device, bf16):
            assert state() == before
    with pytest.raises(KeyError), quick_attention(CPU, True):
        assert state() == (False, False, True, True)
        raise KeyError
    assert state() == before


def test_the_gradient_is_that_of_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 17, 16, generator=generator, requires_grad=True) for _ in range(3))

    def gradients(bf16: bool) -> list[torch.Tensor]:
        with quick_attention(CPU, bf16), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = torch.nn.functional.scaled_dot_product_attention(
                *(tensor.bfloat16() if bf16 else tensor for tensor in (query, key, value))
            )
        return [g.float() for g in torch.autograd.grad(found.float().square().sum(), (query, key, value))]

    for quick, plain in zip(gradients(True), gradients(False), strict=True):
        assert (quick - plain).norm() < 0.02 * plain.norm()


def test_training_takes_it(monkeypatch):
    from hf_mdft.trainers.base import PhaseTrainer

    seen = []
    monkeypatch.setattr("transformers.Trainer.training_step", lambda *_: seen.append(state()))
    trainer = object.__new__(PhaseTrainer)
    for bf16 in (True, False):
        trainer.args = type("Arguments", (), {"device": CPU, "bf16": bf16})()
        trainer.training_step(None, {})
    assert seen[0][:3] == (False, False, True) and seen[1] == state()
