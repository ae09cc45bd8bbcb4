"""Tasks outside the pool: each task of a recipe with its expert taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..embedding import embed_views
from ..embedding.views import FEW_VIEWS
from ..evaluation import combined_tower
from ..experts import observe
from ..merger import MetaMerger
from ..pool import ModelPool
from ..recipes.schema import Recipe
from .ablation import Row
from .outcome import Outcome, inputs_key, measured_tasks, needs_specialists, outcome, pack, remembered, unpack


KEY_VERSION = "leave-one-out 6"
"""Changes with the code of this study, so that nothing that older code found is used."""

MODELS = ("base", "weight_average", "best_expert", "meta", "specialist_ungated", "specialist")


def leave_one_out(recipe: Recipe, output_dir: Path, progress: Callable[[str], None]) -> dict[str, Row]:
    """For every task: adapt a meta-model of the other tasks' experts to its unlabelled images, and specialise it.

    Compared with the base, the others' weight average, and the other expert that a label-free rule ranks first: the
    one with the most consistent predictions under small translations, among those that agree with the base no less
    than the others do on average (experts of other tasks tend to predict one class, which is consistent too).

    Args:
        recipe: Recipe with evaluation images and class names (or another head that needs no expert).
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line at every step.

    Returns:
        Rows by model, each compared with the adapted meta-model.

    Raises:
        InputError: No task has evaluation images, a head is the expert's own, or the recipe makes no specialists.
    """
    needs_specialists(recipe)
    whole = recipe.merger()
    tasks = measured_tasks(whole, str(recipe.path))
    for task in tasks:
        head = whole.tasks[task].head
        if head == "linear" or (head is None and whole.pool.architecture.own_heads):
            raise InputError(
                f"{recipe.path}: the head of task '{task}' is its expert's classifier, which a task outside the pool "
                "does not have; give it head: FILE.safetensors, trained on the base's embeddings"
            )
    if sum(map(bool, whole.pool.by_task.values())) < 2:
        raise InputError(f"{recipe.path}: leave-one-out needs at least two tasks with experts")
    found: dict[str, Outcome] = {model: {} for model in MODELS}
    for task in tasks:
        progress(f"Without the expert of {task}")
        folder = output_dir / task

        def make(task=task, folder=folder) -> dict[str, Any]:
            return _without(task, whole, recipe, folder)

        key = [KEY_VERSION, task, whole.pool.reference(), inputs_key(whole, [task])[task]]
        key += [recipe.adapter, recipe.meta, recipe.specialize, recipe.seed]
        saved = remembered(folder / "outcome.json", key, make)
        progress(f"  best other expert, chosen without labels: {saved['chosen']}")
        for model in MODELS:
            found[model] |= unpack(saved[model])
    return {model: Row.compare(model, found[model], None if model == "meta" else found["meta"]) for model in MODELS}


def _without(task: str, whole: MetaMerger, recipe: Recipe, folder: Path) -> dict[str, Any]:
    others = {t: [s.folder for s in sources] for t, sources in whole.pool.by_task.items() if t != task}
    pool = ModelPool.from_pretrained(whole.pool.base.folder, {task: None, **others})
    merger = whole.variant(pool=pool, tasks=[task])
    merger.fit(recipe.meta_arguments(folder))
    merger.specialize(recipe.specialize_arguments(folder))
    chosen = best_expert(merger, task)
    average, meta = combined_tower(pool, None, [merger.unlabelled(task)]), merger.meta_tower()
    towers = {
        "base": pool.tower(),
        "weight_average": average,
        "best_expert": pool.tower(chosen),
        "meta": meta,
        "specialist_ungated": merger.specialists[task].tower(gated=False),
        "specialist": merger.specialists[task].tower(),
    }
    found = {name: pack(outcome(merger, [task], lambda _, tower=tower: tower)) for name, tower in towers.items()}
    return {**found, "chosen": chosen}


def best_expert(merger: MetaMerger, task: str) -> str:
    """Name of the expert that is chosen without labels for a task outside the pool."""
    images, head, pool = merger.unlabelled(task).sample(500, merger.seed), merger.head(task), merger.pool

    def look(expert: str | None) -> Any:
        return observe(embed_views(pool.tower(expert), pool.architecture, images, FEW_VIEWS), head)

    base, seen = look(None).log_probs.argmax(dim=-1), {name: look(name) for name in pool.experts}
    agreement = {name: (s.log_probs.argmax(dim=-1) == base).float().mean().item() for name, s in seen.items()}
    # No more than the largest: the mean of equal numbers may be rounded up.
    usual = min(max(agreement.values()), sum(agreement.values()) / len(agreement))
    return max((name for name in seen if agreement[name] >= usual), key=lambda name: seen[name].consistency)
