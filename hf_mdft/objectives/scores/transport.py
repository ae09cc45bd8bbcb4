"""COT: the error that predictions must have, given how frequent classes are."""

from __future__ import annotations

import torch

from .base import SCORES, Evidence, evenly


MOST = 1000
"""Images that are assigned; the time grows with their square."""


@SCORES.register("transport")
def transport(evidence: Evidence) -> float:
    """Estimated error that was removed: the expert's minus the specialist's, by optimal transport between predictions
    and labels drawn from the class prior (COT, Lu et al. 2023, https://huggingface.co/papers/2305.15640). It does not
    prefer a collapsed model, which leaves most labels of the prior without an image.

    The paper takes the prior of the training data; here it is estimated from the expert, and the labels are as many of
    each class as it says, not drawn.
    """
    prior = evidence.prior
    return -evidence.gain(lambda probabilities: transport_error(probabilities, prior))


def transport_error(probabilities: torch.Tensor, prior: torch.Tensor) -> float:
    """Half the L1 transport cost, in [0, 1]: the mean of `1 - p(c)` over images, at the best assignment of classes c.

    Args:
        probabilities: Predictions `(N, C)`; `MOST` of them, evenly spaced, are used.
        prior: Class prior `(C,)`.
    """
    rows = evenly(probabilities, MOST).double().cpu()
    classes = assign(rows, label_counts(prior.double().cpu(), len(rows)))
    return 1 - rows.gather(1, classes[:, None]).mean().item()


def label_counts(prior: torch.Tensor, count: int) -> torch.Tensor:
    """How many of `count` labels each class has, `(C,)`: rounded so that they sum to it (largest remainders)."""
    wanted = prior / prior.sum() * count
    whole = wanted.floor().long()
    order = (wanted - whole).argsort(descending=True, stable=True)
    whole[order[: count - int(whole.sum())]] += 1
    return whole


def assign(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Class of each image, `(N,)`, such that class c has `counts[c]` images and the sum of their values is largest.

    Exact, by successive shortest paths: every image starts at its best class; then, from classes with too many to
    those with too few, images are moved along the path of classes that costs least.

    Args:
        values: Value of every image in every class, `(N, C)`.
        counts: Images of every class, `(C,)`; they sum to N.
    """
    held = values.argmax(dim=-1)
    classes = values.shape[-1]
    excess = torch.bincount(held, minlength=classes) - counts
    # Loss of moving the image that loses least from class a to class b, and which image that is.
    loss = torch.full((classes, classes), torch.inf, dtype=values.dtype)
    which = torch.zeros((classes, classes), dtype=torch.long)

    def renew(a: int) -> None:
        rows = (held == a).nonzero().squeeze(1)
        loss[a] = torch.inf
        if len(rows):
            loss[a], best = (values[rows, a, None] - values[rows]).min(dim=0)
            which[a] = rows[best]

    for a in range(classes):
        renew(a)
    while (excess > 0).any():
        path = _shortest_path(loss, excess)
        moved = [(int(which[a, b]), b) for a, b in path]
        for image, b in moved:
            held[image] = b
        excess[path[0][0]] -= 1
        excess[path[-1][1]] += 1
        for a in {*(a for a, _ in path), path[-1][1]}:
            renew(a)
    return held


def _shortest_path(loss: torch.Tensor, excess: torch.Tensor) -> list[tuple[int, int]]:
    """Steps `(a, b)` of the path that loses least from a class with too many images to one with too few."""
    classes = len(excess)
    distance = torch.where(excess > 0, 0.0, torch.inf).to(loss)
    before = torch.full((classes,), -1)
    for _ in range(classes):  # Bellman-Ford: losses may be negative, sums around a circle are not
        through, by = (distance[:, None] + loss).min(dim=0)
        shorter = through < distance - 1e-12
        if not shorter.any():
            break
        distance = torch.where(shorter, through, distance)
        before = torch.where(shorter, by, before)
    end = int(torch.where(excess < 0, distance, torch.inf).argmin())
    path = []
    while before[end] >= 0:
        start = int(before[end])
        path.append((start, end))
        end = start
    return path[::-1]
