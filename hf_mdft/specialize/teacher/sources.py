"""Models whose outputs the teacher is made of, and the views of an image that each is run under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn

from ...core.device import fast_bf16
from ...core.registry import Registry
from ...embedding import embed_views, expert_features
from ...embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, TEACHER_VIEWS, Offset
from ...heads import Head
from ...pool import ModelPool
from ...restorations import restored
from ...tasks import Images
from .observation import Source, observe


@dataclass(frozen=True)
class Models:
    """The models of one task, and the images that they are run on.

    Args:
        task: Name of the task.
        pool: Base and experts.
        meta: Tower of the meta-model.
        head: Head of the task.
        images: Unlabelled images of the task.
        device: Device that towers are run on.
        student: Tower of the student so far; `None` in the first half of its training.
        restorations: What makes the images like those that the pool's models know, by name, in order.
    """

    task: str
    pool: ModelPool
    meta: nn.Module
    head: Head
    images: Images
    device: torch.device
    student: nn.Module | None = None
    restorations: tuple[str, ...] = ()

    @cached_property
    def restored(self) -> Images:
        """The images as the pool's models see them when they teach."""
        return restored(self.images, self.restorations)

    @property
    def has_expert(self) -> bool:
        return self.task in self.pool.experts

    def embed(self, tower: nn.Module, title: str, views: tuple[Offset, ...]) -> Iterator[torch.Tensor]:
        """Embeddings `(N, width)` by a tower, view by view."""
        return embed_views(
            tower.to(self.device),
            self.pool.architecture,
            self.images,
            views,
            desc=f"{self.task}: {title}",
            bf16=fast_bf16(self.device),
        )

    def embed_of_pool(
        self, expert: str | None, title: str, views: tuple[Offset, ...], as_they_are: bool = False
    ) -> Iterator[torch.Tensor]:
        """Embeddings `(N, width)`, view by view, of the restored images (or as they are) by a model of the pool, which
        are kept; `None` is the base."""
        images = self.images if as_they_are else self.restored
        title = f"{self.task}: {title}"
        return expert_features(self.pool, expert, images, views=views, device=self.device, desc=title)


class SourceKind:
    """A model that the teacher may use."""

    name: str
    trusted: ClassVar[bool] = False
    """Whether it has full weight in the ensemble, whatever the evidence for it."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        """Its embeddings `(N, width)`, view by view; `None` where the task has no such model (yet)."""
        raise NotImplementedError


SOURCES: Registry[type[SourceKind]] = Registry("source of the teacher")
"""Models of the teacher, in the order of their registration. The first that a task has is its reference and is run
under all views, among them those held out for the gate; the others under few."""


@SOURCES.register("expert")
class Expert(SourceKind):
    """The task's expert."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return models.embed_of_pool(models.task, "expert", views) if models.has_expert else None


@SOURCES.register("meta")
class Meta(SourceKind):
    """The meta-model."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return models.embed(models.meta, "meta-model", views)


@SOURCES.register("base")
class Base(SourceKind):
    """The base model."""

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return models.embed_of_pool(None, "base", views)


@SOURCES.register("student")
class Student(SourceKind):
    """The student so far (self-training): trained on what all the others predict, it needs no evidence of its own."""

    trusted = True

    @staticmethod
    def embed(models: Models, views: tuple[Offset, ...]) -> Iterator[torch.Tensor] | None:
        return None if models.student is None else models.embed(models.student, "student", views)


def observe_sources(
    models: Models, averaged: bool = True, known: Mapping[str, Source] = MappingProxyType({})
) -> dict[str, Source]:
    """Outputs of every model that the task has, by name.

    Args:
        models: The models, and what they are run on.
        averaged: Whether outputs are averaged over views.
        known: Outputs that are known already, which stay.
    """
    found, taught = dict(known), TEACHER_VIEWS if averaged else FEW_VIEWS
    for kind in SOURCES.parts():
        if kind.name in found:
            continue
        views = FEW_VIEWS if found else taught + HELD_OUT_VIEWS
        if kind.trusted and not averaged:
            views = views[:1]  # others would be for its consistency, which is not asked for
        features = kind.embed(models, views)
        if features is not None:
            found[kind.name] = observe(features, models.head, len(taught), averaged, kind.trusted)
    return found
