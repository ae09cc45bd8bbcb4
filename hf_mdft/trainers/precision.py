"""The precision that a phase computes in, unless one is asked for."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from ..core.device import fast_bf16


def choose_precision(args: TrainingArguments) -> None:
    """Set `bf16`, where it is `None`, to whether the device computes in bfloat16 faster than in fp32.

    To be called before transformers' own `__post_init__`.
    """
    if args.bf16 is not None:
        return
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = "cpu" if args.use_cpu or other is None else other.type
    args.bf16 = not args.fp16 and fast_bf16(device)
    if args.bf16 and device == "cpu":
        args.use_cpu = True  # transformers refuses bfloat16 on a processor without it
