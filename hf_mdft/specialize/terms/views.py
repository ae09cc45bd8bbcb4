"""The images of a batch, to be looked at once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ...embedding.augment import Augmentation
from ...tasks import Preprocessor


class Forward(Protocol):
    """Runs a tower with the task's head."""

    def __call__(
        self, pixel_values: torch.Tensor, tower: nn.Module | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `(n, width)` and logits `(n, C)`, fp32.

        Args:
            pixel_values: Images as a model reads them, `(n, 3, height, width)`.
            tower: A tower like the student; the default is the student.
        """


@dataclass(frozen=True)
class BatchViews:
    """Images of a batch. What is made of them costs nothing unless a term asks for it.

    Args:
        pixels: The images as bytes, `(n, 3, height, width)`.
        weak: Pixel values under a small random translation: what the student sees without `augmentation`.
        preprocessor: Makes pixel values of bytes.
        generator: Generator of the step, on the CPU; a run that goes on from a checkpoint has the same.
        forward: Runs the student, or another tower, on pixel values.
    """

    pixels: torch.Tensor
    weak: torch.Tensor
    preprocessor: Preprocessor
    generator: torch.Generator
    forward: Forward

    def plain(self) -> torch.Tensor:
        """Pixel values of the images as they are."""
        return self.preprocessor.normalize(self.pixels)

    def augmented(self, augmentation: Augmentation) -> torch.Tensor:
        """Pixel values under an augmentation, other ones at each call."""
        return self.preprocessor.normalize(255 * augmentation(self.pixels / 255, self.generator))
