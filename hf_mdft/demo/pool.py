"""Building the embedded pool, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import yaml
from tqdm.auto import tqdm

from ..core.cache import key_of, prepared
from .images import TASKS, TEMPLATES, Part, load_task
from .models import fine_tune, pretrain


COUNTS = {"pretrain": 80, "train": 120, "unlabelled": 500, "test": 320}
PRETRAIN_STEPS, FINE_TUNE_STEPS = 400, 200
META = {"max_steps": 150}
SPECIALIZE = {"max_steps": 240}


def demo_recipe(seed: int, progress: Callable[[str], None]) -> Path:
    """Path of the demo's recipe, beside its models and images; all are built the first time.

    Args:
        seed: Seed of crops, models and training.
        progress: Called with one line where the pool has to be built.

    Raises:
        InputError: scikit-learn or scikit-image is not installed, or the cache cannot be written.
    """
    key = key_of("demo 1", COUNTS, TASKS, TEMPLATES, PRETRAIN_STEPS, FINE_TUNE_STEPS, META, SPECIALIZE, seed)

    def build(folder: Path) -> None:
        progress("Building the demo's pool from images of scikit-learn and scikit-image (about a minute, once)")
        _build(folder, seed)

    return prepared("demo", key, build) / "recipe.yaml"


def _build(folder: Path, seed: int) -> None:
    parts = {task: load_task(task, COUNTS, seed) for task in TASKS}
    pretrain(folder / "base", {task: part["pretrain"] for task, part in parts.items()}, PRETRAIN_STEPS, seed)
    for task in tqdm(TASKS, desc="Fine-tuning the demo's experts"):
        fine_tune(folder / "experts" / task, folder / "base", task, parts[task]["train"], FINE_TUNE_STEPS, seed)
        _write_images(folder / "data" / task, parts[task], TASKS[task])
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_recipe(seed), sort_keys=False), encoding="utf-8")


def _write_images(folder: Path, parts: dict[str, Part], class_names: list[str]) -> None:
    """Parquet files as on the Hub; the unlabelled one has no label column at all."""
    folder.mkdir(parents=True)
    image = datasets.Image()
    labelled = datasets.Features({"image": image, "label": datasets.ClassLabel(names=class_names)})
    test = {"image": parts["test"].images, "label": parts["test"].labels}
    datasets.Dataset.from_dict(test, features=labelled).to_parquet(folder / "test.parquet")
    unlabelled, plain = {"image": parts["unlabelled"].images}, datasets.Features({"image": image})
    datasets.Dataset.from_dict(unlabelled, features=plain).to_parquet(folder / "unlabelled.parquet")


def _recipe(seed: int) -> dict:
    def source(task: str, name: str) -> dict[str, str]:
        return {"path": "parquet", "data_files": f"data/{task}/{name}.parquet", "split": "train"}

    tasks = {
        task: {
            "unlabelled": source(task, "unlabelled"),
            "evaluation": source(task, "test"),
            "class_names": class_names,
            "templates": TEMPLATES,
        }
        for task, class_names in TASKS.items()
    }
    pool = {"base": "base", "experts": {task: f"experts/{task}" for task in TASKS}}
    return {"pool": pool, "tasks": tasks, "meta": META, "specialize": SPECIALIZE, "seed": seed}
