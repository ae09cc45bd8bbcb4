"""What a model says of a task's evaluation images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..architectures import Architecture
from ..embedding import embed_images
from ..embedding.views import TEST_VIEWS, Offset, translate
from ..heads import Head
from ..tasks import Images


PLAIN = TEST_VIEWS[:1]
"""The image as it is, alone."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model on N images.

    Args:
        features: Embeddings of the images as they are, `(N, width)`.
        logits: Their logits, `(N, C)`.
        log_probs: Log-probabilities averaged over views, not normalised, `(N, C)`; those of the images as they are
            where no further view was taken.
    """

    features: torch.Tensor
    logits: torch.Tensor
    log_probs: torch.Tensor

    @property
    def classes(self) -> torch.Tensor:
        """Predicted classes of the images as they are, `(N,)`."""
        return self.logits.argmax(dim=-1)

    @property
    def classes_over_views(self) -> torch.Tensor:
        """Classes predicted by test-time augmentation, `(N,)`: those of the views' geometric mean."""
        return self.log_probs.argmax(dim=-1)


def look(
    tower: nn.Module,
    architecture: Architecture,
    head: Head,
    images: Images,
    *,
    views: tuple[Offset, ...] = PLAIN,
    desc: str,
) -> Outputs:
    """Run a model over images, once for each view.

    Args:
        tower, architecture, head: The model.
        images: The images.
        views: Views to average over, the image as it is first; the default is that one alone.
        desc: Title of progress bars.
    """
    for number, offset in enumerate(views, start=1):
        title = f"{desc}, view {number} of {len(views)}" if len(views) > 1 else desc
        seen = embed_images(tower, architecture, images, view=partial(translate, offset=offset), desc=title)
        log_probs = head(seen).log_softmax(dim=-1) / len(views)
        if number == 1:
            features, logits, mean = seen, head(seen), log_probs
        else:
            mean += log_probs
    return Outputs(features, logits, mean)
