"""Real images, cut into parts that share no pixel region.

A photograph is divided into a grid of cells; every cell belongs to one part (pre-training of the base, labelled
training of the experts, unlabelled, test), and a crop never leaves its cell. Collections of small images (digits,
faces) are divided by image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..core.errors import InputError


PARTS = ("pretrain", "train", "unlabelled", "test")
CELL = 34
SIDE = 32

TASKS: dict[str, list[str]] = {
    "digits": [f"digit {i}" for i in range(10)],
    "faces": ["human face", "scene without a face"],
    "microscopy": ["retina", "stained tissue", "living cell", "microaneurysm"],
    "photographs": ["astronaut", "cat", "cup of coffee", "rocket", "temple", "flower", "cameraman", "motorcycle"],
    "print": ["book page", "blackboard text", "clock", "coins"],
    "sky": ["moon surface", "distant galaxies"],
    "textures": ["brick wall", "grass", "gravel"],
}
"""Tasks and their class names, in label order."""

TEMPLATES = ["a photo of a {}.", "a picture of {}.", "a small grey image of {}."]


@dataclass
class Part:
    """Images and labels of one part of one task."""

    images: list[Image.Image] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, pixels: np.ndarray, label: int) -> None:
        self.images.append(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        self.labels.append(label)


def load_task(task: str, counts: dict[str, int], seed: int) -> dict[str, Part]:
    """All parts of a task.

    Args:
        task: Name in `TASKS`.
        counts: Images by part, over all classes of the task.
        seed: Seed of the crops.

    Raises:
        InputError: scikit-learn or scikit-image is not installed.
    """
    try:
        import skimage.data  # noqa: F401
        import sklearn.datasets  # noqa: F401
    except ImportError as error:
        raise InputError("the demo needs scikit-learn and scikit-image: pip install 'hf-mdft[demo]'") from error
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    if task in _COLLECTIONS:
        return _split_collection(*_COLLECTIONS[task](), counts, rng)
    sources = _photographs()
    parts = {part: Part() for part in PARTS}
    for label, name in enumerate(TASKS[task]):
        cells = _cells(sources[name](), rng)
        for part in PARTS:
            for _ in range(counts[part] // len(TASKS[task])):
                parts[part].add(_crop(cells[part], rng), label)
    return parts


def _cells(image: np.ndarray, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Cells of each part: every fourth one, in an order drawn for the image."""
    grid = [
        image[top : top + CELL, left : left + CELL]
        for top in range(0, image.shape[0] - CELL + 1, CELL)
        for left in range(0, image.shape[1] - CELL + 1, CELL)
    ]
    order = rng.permutation(len(grid))
    return {part: [grid[i] for i in order[number :: len(PARTS)]] for number, part in enumerate(PARTS)}


def _crop(cells: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A square from one cell, with brightness and contrast of its own, so that neither gives the class away."""
    cell = cells[rng.integers(len(cells))].astype(np.float32)
    side = int(rng.integers(20, CELL + 1))
    top, left = rng.integers(0, CELL - side + 1, size=2)
    crop = cell[top : top + side, left : left + side]
    crop = (crop - crop.mean()) * rng.uniform(0.5, 1.5) + rng.uniform(80, 176)
    return np.clip(crop + rng.normal(0, 6, crop.shape), 0, 255).astype(np.uint8)


def _photographs() -> dict[str, Callable[[], np.ndarray]]:
    from skimage import data
    from sklearn.datasets import load_sample_image

    def grey(image: np.ndarray) -> np.ndarray:
        return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))

    def half(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(grey(image))
        return np.asarray(picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS))

    return {
        "retina": lambda: half(data.retina()),
        "stained tissue": lambda: grey(data.immunohistochemistry()),
        "living cell": lambda: half(data.cell()),
        "microaneurysm": lambda: grey(data.microaneurysms()),
        "astronaut": lambda: half(data.astronaut()),
        "cat": lambda: half(data.cat()),
        "cup of coffee": lambda: half(data.coffee()),
        "rocket": lambda: half(data.rocket()),
        "temple": lambda: half(load_sample_image("china.jpg")),
        "flower": lambda: half(load_sample_image("flower.jpg")),
        "cameraman": lambda: half(data.camera()),
        "motorcycle": lambda: half(data.stereo_motorcycle()[0]),
        "book page": lambda: grey(data.page()),
        "blackboard text": lambda: grey(data.text()),
        "clock": lambda: grey(data.clock()),
        "coins": lambda: grey(data.coins()),
        "moon surface": lambda: grey(data.moon()),
        "distant galaxies": lambda: grey(data.hubble_deep_field()),
        "brick wall": lambda: grey(data.brick()),
        "grass": lambda: grey(data.grass()),
        "gravel": lambda: grey(data.gravel()),
    }


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images * 255 / 16).astype(np.uint8), digits.target


def _faces() -> tuple[np.ndarray, np.ndarray]:
    from skimage import data

    return (data.lfw_subset() * 255).astype(np.uint8), np.repeat([0, 1], 100)


_COLLECTIONS = {"digits": _digits, "faces": _faces}


def _split_collection(
    images: np.ndarray, labels: np.ndarray, counts: dict[str, int], rng: np.random.Generator
) -> dict[str, Part]:
    """Each image goes to one part; a collection that is too small is shared out in proportion."""
    wanted = np.array([counts[part] for part in PARTS])
    ends = np.floor(np.cumsum(wanted) * min(1.0, len(images) / wanted.sum())).astype(int)
    order, parts, start = rng.permutation(len(images)), {}, 0
    for part, end in zip(PARTS, ends, strict=True):
        parts[part] = Part()
        for i in order[start:end]:
            parts[part].add(images[i], int(labels[i]))
        start = end
    return parts
