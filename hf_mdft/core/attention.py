"""Attention whose gradient is quick on a processor in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda  # the flag's home, though it serves every device
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def quick_attention(device: torch.device, bf16: bool) -> Iterator[None]:
    """Around a forward pass whose gradient will be asked for: attention by plain products of matrices, where `device`
    is a processor and computes in bfloat16.

    PyTorch's fused attention, which transformers takes by default, is quick forward there and slow backward: forward
    and backward in 6.2 ms of 32 images of 17 tokens (3 heads of 64) and 118 ms of 64 images of 50 (12 heads), plain
    products in 1.7 and 53 ms; with 197 and 257 tokens 151 and 146 against 127 and 106, with 577 about equal (torch
    2.13, one thread of an AMD EPYC). In fp32 the fused one is no slower.
    """
    if not bf16 or device.type != "cpu":
        yield
        return
    allowed = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)  # else it computes in fp32
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(allowed)
