"""Models whose outputs the teacher is made of, and the views of an image that each is run under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.device import fast_bf16
from ...core.registry import Registry
from ...embedding import embed_views, expert_features
from ...embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, TEACHER_VIEWS, Offset
from ...experts import Source, TaskExperts, joint_features, observe_in_stages
from ...heads import Head
from ...pool import ModelPool
from ...restorations import restored
from ...tasks import Images


@dataclass(frozen=True)
class Models:
    """The models of one task, and the images that they are run on.

    Args:
        experts: The task's experts, with their heads.
        meta: Tower of the meta-model.
        head: Head of the task, for models that have none of their own.
        images: Unlabelled images of the task.
        meta_head: Head of the meta-model; the default is that of the task.
        student: Tower of the student so far; `None` in the first half of its training.
        restorations: What makes the images like those that the pool's models know, by name, in order.
    """

    experts: TaskExperts
    meta: nn.Module
    head: Head
    images: Images
    meta_head: Head | None = None
    student: nn.Module | None = None
    restorations: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Device that towers are run on."""
        return torch.device(self.experts.device)

    @cached_property
    def restored(self) -> Images:
        """The images as the pool's models see them when they teach."""
        return restored(self.images, self.restorations)

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.experts.task

    @property
    def pool(self) -> ModelPool:
        """Base and experts."""
        return self.experts.pool

    @property
    def has_expert(self) -> bool:
        return bool(self.experts.heads)

    @cached_property
    def expert(self) -> str | None:
        """The expert that one would take without labels, by name."""
        title = f"{self.task}, choosing an expert"
        return self.experts.chosen(self.images, title=title) if self.has_expert else None

    def on(self, rows: torch.Tensor) -> Models:
        """The same models, on some of the images, restored or not as all of them are."""
        found = replace(self, images=self.images.subset(rows.tolist()))
        vars(found).update(restored=self.restored.subset(rows.tolist()), expert=self.expert)
        return found

    def embed(
        self, tower: nn.Module, title: str, views: tuple[Offset, ...], images: Images | None = None
    ) -> Iterator[torch.Tensor]:
        """Embeddings `(N, width)` by a tower, view by view, of all images or of these."""
        return embed_views(
            tower.to(self.device),
            self.pool.architecture,
            images or self.images,
            views,
            desc=f"{self.task}: {title}",
            bf16=fast_bf16(self.device),
        )


class SourceKind:
    """A model (or several as one) that the teacher may use."""

    name: str
    trusted: ClassVar[bool] = False
    """Whether it has full weight in the ensemble, whatever the evidence for it."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        """Its embeddings `(N, width)`, view by view; `None` where the task has no such model (yet)."""
        raise NotImplementedError

    @classmethod
    def observe(cls, models: Models, views: tuple[Offset, ...], **options: Any) -> Source | None:
        """Its outputs, with the options of `hf_mdft.experts.observe`; `None` where the task has no such model."""
        if cls.embed(models, views) is None:
            return None

        def run(rows: torch.Tensor | None, views: tuple[Offset, ...]) -> Iterator[torch.Tensor]:
            return cls.embed(models if rows is None else models.on(rows), views)

        return observe_in_stages(run, cls.head(models), views, trusted=cls.trusted, **options)

    @staticmethod
    def head(models: Models) -> Head:
        """The head that goes with its embeddings."""
        return models.head


SOURCES: Registry[type[SourceKind]] = Registry("source of the teacher")
"""Models of the teacher, in the order of their registration. The first that a task has is its reference and is run
under all views; the others under few."""


@SOURCES.register("expert")
class Expert(SourceKind):
    """The task's expert; several, and teachers from outside the pool, as one, each as far as it is trusted."""

    @classmethod
    def observe(cls, models: Models, views: tuple[Offset, ...], **options: Any) -> Source | None:
        own = {"as_they_are": models.images, "title": models.task, **options}
        return models.experts.ensemble(models.restored, views, **own)


@SOURCES.register("meta")
class Meta(SourceKind):
    """The meta-model."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return models.embed(models.meta, "meta-model", views)

    @staticmethod
    def head(models: Models) -> Head:
        return models.meta_head or models.head


@SOURCES.register("base")
class Base(SourceKind):
    """The base model."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        title = f"{models.task}: base"
        images, device = models.restored, models.device
        return expert_features(models.pool, None, images, views=views, device=device, desc=title)


@SOURCES.register("student")
class Student(SourceKind):
    """The student so far (self-training): trained on what all the others predict, it needs no evidence of its own."""

    trusted = True

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return None if models.student is None else models.embed(models.student, "student", views)


def observe_sources(
    models: Models,
    averaged: bool = True,
    known: Mapping[str, Source] = MappingProxyType({}),
    *,
    others: bool = True,
) -> dict[str, Source]:
    """Outputs of the models that the teacher is made of, by name: the reference, those that have full weight whatever
    the evidence, and others.

    Args:
        models: The models, and what they are run on.
        averaged: Whether outputs are averaged over views.
        known: Outputs that are known already, which stay.
        others: Whether other models are wanted; off where they have no weight.
    """
    found = dict(known)
    for kind in SOURCES.parts():
        alone = bool(found) and next(iter(found.values())).of_pool  # else its embedding is another model's
        if kind.name in found or (alone and not others and not kind.trusted):
            continue
        views = FEW_VIEWS if found or not averaged else TEACHER_VIEWS
        if kind.trusted and not averaged:
            views = views[:1]  # others would be for its consistency, which is not asked for
        seen = kind.observe(models, views, averaged=averaged)
        if seen is not None:
            found[kind.name] = seen
    first, meta = next(iter(found)), found.get("meta")
    if meta is not None and not found[first].of_pool:  # teachers of a task without an expert: no tower's embedding
        joint = joint_features([meta.features, found[first].features])
        found[first] = replace(found[first], features=meta.features, joint_features=joint, of_pool=True)
    return found


def observe_others(models: Models, reference: str) -> dict[str, Source]:
    """Outputs of the models beside the teacher's reference and the student, by name: what the gate asks.

    Args:
        models: The models, and what they are run on.
        reference: Name of the teacher's reference.
    """
    kinds = [kind for kind in SOURCES.parts() if kind.name != reference and not kind.trusted]
    seen = {kind.name: kind.observe(models, FEW_VIEWS) for kind in kinds}
    return {name: source for name, source in seen.items() if source is not None}


def held_out_classes(models: Models, weights: Mapping[str, float]) -> torch.Tensor:
    """Class under each of `HELD_OUT_VIEWS`, which no target is made from, `(V, N)`, that the task's experts predict;
    without one, the meta-model. Teachers alone give none.

    Args:
        models: The models, and what they are run on.
        weights: How far each expert is trusted, by name.
    """
    if models.has_expert:
        return models.experts.held_out(models.restored, weights, title=models.task)
    views = () if models.experts.teachers else models.embed(models.meta, "meta-model", HELD_OUT_VIEWS)
    classes = [models.head(features).argmax(dim=-1) for features in views]
    return torch.stack(classes) if classes else torch.zeros(0, len(models.images), dtype=torch.long)
