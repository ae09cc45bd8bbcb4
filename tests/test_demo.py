"""The embedded pool: parts share no pixel region, unlabelled files hold no label."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from hf_mdft.demo import images as demo_images
from hf_mdft.demo.images import CELL, PARTS, TASKS, load_task


COUNTS = {"pretrain": 8, "train": 8, "unlabelled": 24, "test": 16}


def test_cells_of_parts_are_disjoint():
    """Every pixel of a picture is numbered: no number turns up in two parts."""
    height, width = 5 * CELL + 7, 6 * CELL + 3
    numbered = np.arange(height * width).reshape(height, width)
    parts = demo_images._cells(numbered, np.random.default_rng(0))
    seen = {part: {int(n) for cell in cells for n in cell.flatten()} for part, cells in parts.items()}
    assert all(seen[part] for part in PARTS)
    for a in PARTS:
        for b in PARTS:
            assert a == b or not seen[a] & seen[b]


def test_collections_are_split_by_image():
    collection = np.arange(40)[:, None, None] * np.ones((1, 8, 8))
    split = demo_images._split_collection(
        collection.astype(np.uint8), np.zeros(40, int), COUNTS, np.random.default_rng(0)
    )
    means = {part: {round(float(np.mean(image))) for image in split[part].images} for part in PARTS}
    assert sum(len(values) for values in means.values()) == len(set().union(*means.values()))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_every_class_in_every_part(task):
    parts = load_task(task, {"pretrain": 80, "train": 120, "unlabelled": 200, "test": 200}, seed=0)
    for part in PARTS:
        assert set(parts[part].labels) == set(range(len(TASKS[task])))
        assert all(image.size == (32, 32) for image in parts[part].images)
    again = load_task(task, {"pretrain": 80, "train": 120, "unlabelled": 200, "test": 200}, seed=0)
    assert all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(parts["test"].images, again["test"].images, strict=True)
    )


@pytest.mark.slow
def test_a_small_demo_pool_is_built_and_runs(tmp_path, monkeypatch):
    """The real demo's code with few images and steps."""
    from hf_mdft import Recipe
    from hf_mdft.demo import demo_recipe, pool

    monkeypatch.setattr(pool, "COUNTS", {"pretrain": 80, "train": 40, "unlabelled": 40, "test": 40})
    monkeypatch.setattr(pool, "PRETRAIN_STEPS", 2)
    monkeypatch.setattr(pool, "FINE_TUNE_STEPS", 2)
    recipe = demo_recipe(0, lambda text: None)
    assert demo_recipe(0, lambda text: pytest.fail("built again")) == recipe
    unlabelled = datasets.Dataset.from_parquet(str(recipe.parent / "data" / "digits" / "unlabelled.parquet"))
    assert unlabelled.column_names == ["image"]
    loaded = Recipe.load(recipe)
    merger = loaded.merger()
    merger.fit(loaded.meta_arguments(tmp_path, max_steps=1))
    merger.specialize(loaded.specialize_arguments(tmp_path, max_steps=1), tasks=["digits"])
    assert set(merger.evaluate().accuracy["base"]) == set(TASKS)
    assert len(TASKS) >= 6
