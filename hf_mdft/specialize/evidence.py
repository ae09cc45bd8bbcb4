"""What the gate is given: outputs of expert, specialist and other models on the same unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..embedding.views import FEW_VIEWS
from ..experts import Source, observe
from ..heads import Head
from .teacher import Models, held_out_classes, observe_others


IMAGES = 1000
"""Images that are looked at, evenly spread; all where there are fewer. Four models under four or five views each: of
4,000 images they would cost two thirds of what a training of the default length does."""


@dataclass(frozen=True)
class GateEvidence:
    """Outputs of a task's models on the images that are looked at.

    Args:
        models: The models, on these images.
        expert: The expert (the meta-model, for a task without one) on the images as they are, which the specialist is
            compared with. Held-out views and class frequencies are those of the teacher's reference: all experts and
            teachers, which see the images restored.
        reference: The teacher's reference.
        others: Other models, by name.
    """

    models: Models
    expert: Source
    reference: Source
    others: Mapping[str, Source]

    def of(self, tower: nn.Module, head: Head, title: str) -> Source:
        """Outputs of a tower; the title is that of its progress bars."""
        return observe(self.models.embed(tower, title, FEW_VIEWS), head)


def gate_evidence(models: Models, sources: Mapping[str, Source], trusted: Mapping[str, float]) -> GateEvidence:
    """Look at some of the images with all models.

    Args:
        models: The models of the task.
        sources: Outputs of the teacher's models on all images, by name, its reference first.
        trusted: How far each expert is trusted, by name.
    """
    name, reference = next(iter(sources.items()))
    count = len(models.images)
    rows = torch.linspace(0, count - 1, min(IMAGES, count)).round().long()
    models, reference = models.on(rows), reference.on(rows)
    others = observe_others(models, name)
    plain = replace(
        _as_they_are(models, reference, others),
        held_out=held_out_classes(models, trusted),
        frequencies=reference.class_frequencies,
    )
    return GateEvidence(models, plain, reference, others)


def _as_they_are(models: Models, reference: Source, others: Mapping[str, Source]) -> Source:
    experts = models.experts
    if not models.has_expert:
        return others["meta"] if experts.teachers else reference
    if len(experts.heads) + len(experts.teachers) + len(experts.related) == 1 and not models.restorations:
        return reference
    title = f"{models.task}, images as they are"
    return experts.observe(models.images, only=[models.expert], title=title)[models.expert]
