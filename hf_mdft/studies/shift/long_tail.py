"""Long-tailed images to learn from. Reads their labels, to draw by; nothing that is trained sees one."""

from __future__ import annotations

import numpy as np
import torch

from ...core.errors import InputError
from ...merger import MetaMerger
from ...tasks import read_labelled
from ...tasks.source import check_column, open_dataset


def long_tailed(labels: torch.Tensor, ratio: float, seed: int) -> np.ndarray:
    """Rows, in order, whose class sizes fall exponentially, the largest `ratio` times the smallest (Cui et al. 2019,
    https://huggingface.co/papers/1901.05555), as many as there are images for.

    Sizes are whole numbers, at least one, so with few images the ratio is smaller.

    Args:
        labels: Class of each image, `(N,)`. Classes that no image has stay without.
        ratio: Largest class over smallest, at least 1.
        seed: Seed of the order of the classes and of the images drawn.
    """
    rng, classes = np.random.default_rng(seed), labels.unique().tolist()
    order = [classes[i] for i in rng.permutation(len(classes))]
    shares = ratio ** -np.linspace(0, 1, len(order)) if len(order) > 1 else np.ones(1)
    members = [np.flatnonzero(labels.numpy() == label) for label in order]
    # The smallest number of images that some class allows the largest one to have.
    largest = int(min(len(rows) / share + 1e-9 for rows, share in zip(members, shares, strict=True)))
    sizes = [max(1, round(largest * share)) for share in shares]
    return np.sort(np.concatenate([rng.permutation(rows)[:n] for rows, n in zip(members, sizes, strict=True)]))


def unlabelled_labels(merger: MetaMerger, task: str) -> torch.Tensor:
    """Labels `(N,)` of a task's unlabelled images, from the data set that they come from.

    Raises:
        InputError: It has no label column, or labels that are not the task's.
    """
    spec, where = merger.tasks[task], f"task '{task}', unlabelled"
    try:
        check_column(open_dataset(spec.unlabelled, where), spec.label_column, "label_column", where)
    except InputError as error:
        raise InputError(f"{error} A long tail is drawn by the classes of the unlabelled images") from error
    names = merger.head(task).class_names
    return read_labelled(task, spec, names, merger.preprocessor(task), part="unlabelled").labels
