"""The one formula of the adapter."""

import torch


def combine(start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """`start + sum_k coefficients[k] * vectors[k]`, in fp32 whatever the autocast, returned in `start`'s dtype.

    One matrix-vector product forward and one backward over the K stacked vectors: both only read the stack once, and
    the graph holds no copy of it.

    Args:
        start: `(*shape)`.
        vectors: `(K, *shape)`, never differentiated.
        coefficients: `(K,)`.
    """
    with torch.autocast(start.device.type, enabled=False):
        flat = torch.addmv(start.float().flatten(), vectors.flatten(1).t().float(), coefficients.float())
        return flat.view(start.shape).to(start.dtype)
