"""What cards and reports show, as values: made once, after the phase that found them, and never changed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.data_reference import DataReference
from ..core.errors import InputError
from ..core.plain_text import is_plain
from ..core.reference import REPO_ID, ModelReference, PoolReference
from .licenses import CombinedLicense


@dataclass(frozen=True)
class PoolFacts:
    """A pool.

    Args:
        reference: Base and experts at their revisions, folders without where they lie.
        license: License of what is made from them, teachers included.
        teachers: Teachers from outside the pool, by task.
    """

    reference: PoolReference
    license: CombinedLicense = CombinedLicense()
    teachers: Mapping[str, tuple[ModelReference, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What the gate chose, and why.

    Args:
        chosen: `"specialist"` or `"expert"`.
        consistency_gain: How much larger a share of the specialist's predictions survives small translations.
        drift: How far, in nats, the specialist's class frequencies are from what lies between the expert's and the
            estimated class prior; negative: they are between.
        agreement_gain: Mean over images of the weighted agreement of held-out views and other models with the
            specialist, minus that with the expert.
        standard_error: Standard error of the agreement gain.
        changed: Share of images that the two classify differently.
        images: Number of images that they were compared on.
        reason: The decision in words.
        interpolation: How far from the expert, 0, to the specialist, 1, the kept weights lie, where they lie between
            the two; the figures above are of these weights then.
        trained: Whether there is a specialist to compare with: where the images are no evidence, none is trained, and
            where its training diverged, none is left; the expert stands for it.
    """

    chosen: str
    consistency_gain: float
    drift: float
    agreement_gain: float
    standard_error: float
    changed: float
    images: int
    reason: str
    interpolation: float | None = None
    trained: bool = True

    @property
    def improved(self) -> bool:
        """Whether the specialist was chosen, wholly or in part."""
        return self.chosen == "specialist"

    @property
    def share(self) -> float:
        """How far from the expert, 0, to the specialist, 1, the kept weights lie."""
        return float(self.improved) if self.interpolation is None else self.interpolation


@dataclass(frozen=True)
class Trust:
    """What was found without labels of a task's experts.

    Args:
        expert: Name of the expert that one would take, which the specialist was compared with; `None` for a task
            without one.
        start: Where the student started, in words.
        weights: How far each expert and teacher was trusted, by name, in shares of all.
    """

    expert: str | None = None
    start: str = "expert"
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model minus that of another, paired by image, 0 to 1.

    Args:
        difference: The difference; over several tasks, of the average accuracies.
        low, high: Its 95 % interval.
        p_value: Its two-sided p-value.
    """

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Measured:
    """Accuracy on the evaluation images of one task.

    Args:
        accuracy: Accuracy by model, 0 to 1.
        images: Number of images.
        data: The data set.
        overlap: Share of them that is among the unlabelled images; `None` where that was not compared.
        difference: Accuracy of the specialist before the gate minus that of the expert.
        p_value: McNemar's exact test of that difference.
        beside_views: The specialist that was kept, in one pass, against the expert over nine views.
    """

    accuracy: Mapping[str, float]
    images: int
    data: DataReference | None = None
    overlap: float | None = None
    difference: float | None = None
    p_value: float | None = None
    beside_views: Difference | None = None


def recipe_part(recipe: Mapping[str, Any] | None, part: str) -> Mapping[str, Any]:
    """A part of a recipe that may be somebody else's; nothing where it is no mapping."""
    found = (recipe or {}).get(part)
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class MetaFacts:
    """How a meta-model was made.

    Args:
        pool: The pool.
        granularity: What one coefficient covers.
        transform: Phi, by name and options.
        pipeline_tag: The Hub's name for what the folded model does.
        loader: Class of transformers that loads the folded model.
        tasks: Names of the tasks.
        unlabelled: Unlabelled images by task.
        skipped: Unlabelled images that could not be read, by task that has such.
        statistics: Whether running statistics (BatchNorm) were estimated on unlabelled images.
        trained_heads: Tasks whose heads were trained with the coefficients.
        coefficients: Merging coefficients by tensor and expert.
        history: Log lines of the training; none where nothing was trained, or too few steps for one.
        kept: Share of images that counted over the last steps, by task and term.
        recipe: How it was made, as a recipe.
        versions: Versions of Python and packages.
    """

    pool: PoolFacts
    granularity: str
    transform: Mapping[str, Any]
    pipeline_tag: str | None = None
    loader: str = "AutoModel"
    tasks: tuple[str, ...] = ()
    unlabelled: Mapping[str, DataReference | None] = field(default_factory=dict)
    trained_heads: tuple[str, ...] = ()
    coefficients: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    kept: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    statistics: bool = False

    @property
    def trained(self) -> bool:
        """Whether coefficients were trained. A finished training of few steps, read from its checkpoint, may have no
        log line, so its options decide; lines do where they are not known."""
        steps = recipe_part(self.recipe, "meta").get("max_steps")
        return bool(self.history) if steps is None else steps != 0

    @property
    def of_any_base(self) -> bool:
        """Whether experts were taken without a look at whether they come from the base."""
        return recipe_part(self.recipe, "pool").get("allow_base_mismatch") is True


@dataclass(frozen=True)
class SpecialistFacts:
    """How a specialist was made.

    Args:
        task: Name of the task.
        meta: The meta-model that it was made with.
        gate: The gate's decision.
        class_names: Names of the classes, in the order of the logits.
        features: Where a tower's output holds the embedding, as a reader writes it after `model(...)`.
        template: Prompt of the zero-shot head.
        history: Log lines of the training.
        restorations: What was done to the images that its expert taught from, by name, in order.
        trust: What was found without labels of its experts; `None` in results of older versions.
        tower_loader: The transformers class with which a reader loads the tower alone.
    """

    task: str
    meta: MetaFacts
    gate: Decision
    class_names: tuple[str, ...]
    features: str
    template: str | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    restorations: tuple[str, ...] = ()
    trust: Trust | None = None
    tower_loader: str = "AutoModel"


VERSION, REVISION = re.compile(r"[\w.+-]{1,100}"), re.compile(r"\w[\w./-]{0,200}")

MARKUP = re.compile(r"[<>\[\]`\\]")
"""What no sentence of ours holds."""

NAME = re.compile(r"[A-Za-z_]\w{0,99}")

FEATURES = re.compile(r"([A-Za-z_]\w{0,99}(\[[\d:, -]*\])?(\.[a-z]\w*(\([\w=, -]*\))?)*)?")
"""Where an output holds the embedding: `last_hidden_state[:, 0]`, `pooler_output`. A reader runs it."""


def check_facts(facts: MetaFacts | SpecialistFacts, where: str) -> None:
    """Refuse facts of somebody else's that would be code or markup on a card.

    Args:
        facts: What was read from a file.
        where: Names it in messages.

    Raises:
        InputError: A name is none, or text holds control characters or changes the direction of writing.
    """
    meta = facts.meta if isinstance(facts, SpecialistFacts) else facts
    forms = [(meta.granularity or "none", NAME), (meta.loader, NAME), (meta.transform.get("name", "none"), NAME)]
    if isinstance(facts, SpecialistFacts):
        forms += [(facts.tower_loader, NAME), (facts.features, FEATURES)]
        odd = next((text for text in (facts.gate.reason, *facts.restorations) if MARKUP.search(text)), None)
        if odd is not None:
            raise InputError(f"{where}: {odd!r:.60} holds markup; make it again")
    forms += [(word, VERSION) for pair in meta.versions.items() for word in pair]
    teachers = [teacher for found in meta.pool.teachers.values() for teacher in found]
    for model in [*meta.pool.reference.named().values(), meta.pool.reference.base, *teachers]:
        forms += [] if model.is_local else [(model.id, REPO_ID), (model.revision, REVISION)]
    for name, form in forms:
        if not isinstance(name, str) or not form.fullmatch(name):
            raise InputError(f"{where}: {name!r:.60} is no name; make it again")
    for text in _texts(dataclasses.asdict(facts)):
        if not is_plain(text):
            raise InputError(f"{where}: {text!r:.60} holds characters that cannot be seen; make it again")


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested containers, but those of recipes, which are quoted where they are shown."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(None if key == "recipe" else item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
