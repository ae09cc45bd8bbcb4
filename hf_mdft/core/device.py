"""What a device can do, and when it is done."""

from __future__ import annotations

import os
import time

import torch


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def fast_bf16(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 faster than in fp32, rather than imitate it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.device(device).type != "cpu":
        return False
    # Matrix units, or vector instructions for products of bfloat16 (on an AMD EPYC with the latter, one thread and the
    # tower of pool B: 1.6 times as fast forward, 1.3 times with backward). The library has no public question for it.
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def now() -> float:
    """Seconds on a clock that only measures spans, once the accelerator has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on another device, which is not waited for.

    (A copy to a CUDA device from memory that is not pinned waits for all that the device has been given.)
    """
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def join_on_cpu() -> None:
    """Have accelerate join the processes of a launch on a machine without accelerators, whatever `use_cpu` says: else
    it takes each of them for the only one."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and best_device().type == "cpu":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
