"""How many steps a student is trained for, from how much there is to learn."""

from __future__ import annotations

import math

import torch

from .arguments import SpecializeArguments
from .teacher import Teacher


MUCH = 0.25
"""Share of images whose class the teacher corrects, from which on all of `max_steps` are taken. Where it corrects
less, there is less to learn."""

LEAST = 0.25
"""Least share of `max_steps`."""

EPOCHS, FOR_IMAGES = 40, 256
"""How often an image may be seen, with 256 images; with others in proportion to the root of their number. A
student that sees few images often learns them by heart, and from many it goes on learning."""


def share_to_learn(teacher: Teacher, predicted: torch.Tensor) -> float:
    """Share of images for which the teacher's class is not what the student's start predicts.

    Args:
        teacher: Soft targets of the images.
        predicted: Classes `(N,)` that the model predicts that the student starts as. (One that starts between expert
            and meta-model takes all steps.)
    """
    return (teacher.probabilities.argmax(dim=-1) != predicted).float().mean().item()


def steps_to_train(args: SpecializeArguments, to_learn: float, images: int) -> int:
    """Number of steps; -1 where epochs are counted (`max_steps=-1`).

    Args:
        args: Options of phase 2.
        to_learn: Share of images whose class the teacher corrects.
        images: Number of unlabelled images.
    """
    if args.max_steps < 0:
        return args.max_steps
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    share = min(1.0, max(LEAST, to_learn / MUCH)) if args.fewer_steps else 1.0
    epochs = EPOCHS * (images / FOR_IMAGES) ** 0.5
    return min(math.ceil(share * args.max_steps), math.ceil(epochs * math.ceil(images / batch)))
