"""The seam of training-free baselines."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...core.registry import Registry


TransductiveMethod = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Gives predictions `(N, C)` from a model's probabilities `(N, C)` and embeddings `(N, width)`.

Row i is image i of the evaluation images, all of which are seen at once and none of whose labels are: a transductive
method's prediction of one image depends on the others. The largest entry of a row is the predicted class.
"""

TRANSDUCTIVE: Registry[TransductiveMethod] = Registry("training-free baseline")
