"""What a device can do."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def fast_bf16(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 faster than in fp32, rather than imitate it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Matrix units; vector instructions alone gain little. The library has no public question for it.
    return torch.device(device).type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
