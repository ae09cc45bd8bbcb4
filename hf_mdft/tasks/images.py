"""Images, decoded and preprocessed once, kept as bytes in a memory-mapped file."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor

from ..core.cache import cache_root, key_of
from ..core.errors import InputError


STEPS = {
    "do_resize": ("size", "resample"), "do_center_crop": ("crop_size",), "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}  # fmt: skip
"""What of an image processor decides about pixels: steps, and the settings of each."""


class Preprocessor:
    """The base model's image processor in two halves: geometry, kept as bytes; then scale and mean, done per batch.

    Bytes take a quarter of the space of floats and the second half costs next to nothing, while the result equals
    the processor's own output.

    Args:
        folder: Folder of a model with a `preprocessor_config.json`.
        where: How to name it in messages.

    Raises:
        InputError: No image processor there.
    """

    def __init__(self, folder: Path, where: str) -> None:
        try:
            self.processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
            raise InputError(
                f"{where}: no image processor that can be read beside the model (preprocessor_config.json)"
            ) from error
        self._spec = json.loads(self.processor.to_json_string())
        scale = self._spec.get("rescale_factor", 1 / 255) if self._spec.get("do_rescale", True) else 1.0
        normalize = self._spec.get("do_normalize", False)
        try:
            self._mean = torch.tensor(self._spec["image_mean"] if normalize else [0.0] * 3).view(3, 1, 1)
            self._std = torch.tensor(self._spec["image_std"] if normalize else [1.0] * 3).view(3, 1, 1)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{where}: image_mean and image_std of preprocessor_config.json must be three numbers each"
            ) from error
        self._scale = scale

    def key(self) -> str:
        """Changes with every setting of the processor."""
        return key_of(self._spec)

    def differences(self, other: Preprocessor) -> list[str]:
        """Settings that make other pixels than another one's, in words: `image_mean: [0.5, 0.5, 0.5], not [...]`."""
        mine, theirs = self._effective(), other._effective()
        return [f"{key}: {mine[key]}, not {theirs[key]}" for key in mine if mine[key] != theirs[key]]

    def _effective(self) -> dict[str, Any]:
        """Settings that decide about pixels; those of a step that is off are `None`."""
        found = {}
        for step, settings in STEPS.items():
            on = bool(self._spec.get(step, step == "do_rescale"))
            found[step] = on
            found |= {key: _rounded(self._spec.get(key)) if on else None for key in settings}
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(3, height, width)` of what it makes of a picture wider than high."""
        return self.encode([Image.new("RGB", (70, 50))]).shape[1:]

    def encode(self, images: list[Image.Image]) -> np.ndarray:
        """Bytes `(N, 3, height, width)` after resize and crop."""
        images = [image.convert("RGB") for image in images]
        pixels = self.processor(images, return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model reads, fp32, from bytes `(N, 3, height, width)`; on the bytes' device."""
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (pixels.float() * self._scale - mean) / std


def _rounded(value: Any) -> Any:
    """Values as they compare: numbers to six digits, whatever sequence they are in; null settings left out."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), 6) if isinstance(value, float | int) and not isinstance(value, bool) else value


class Images:
    """N preprocessed images, by index.

    Args:
        table: One row of bytes for each image.
        shape: `(3, height, width)`.
        preprocessor: What made them.
        rows: Which rows of the table, in order; the default is all.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        shape: tuple[int, int, int],
        preprocessor: Preprocessor,
        rows: np.ndarray | None = None,
    ) -> None:
        self._table = table.with_format("arrow")
        self.shape = shape
        self.preprocessor = preprocessor
        self._rows = np.arange(len(table)) if rows is None else rows

    @classmethod
    def prepare(cls, dataset: datasets.Dataset, column: str, preprocessor: Preprocessor, where: str) -> Images:
        """Decode and preprocess a dataset's images, once: the result is kept in the cache.

        Raises:
            InputError: An image cannot be read (its row is named), or the cache cannot be written.
        """

        def encode(batch: dict, indices: list[int]) -> dict:
            pixels = preprocessor.encode([decode(x, i, where) for x, i in zip(batch[column], indices, strict=True)])
            return {"pixels": [image.tobytes() for image in pixels], "shape": [pixels.shape[1:]] * len(pixels)}

        try:
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{where}: column '{column}' holds {dataset.features[column]}, expected images"
            ) from error
        key = _key(dataset, column, preprocessor)
        path = cache_root() / "images" / f"{key}.arrow"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            table = dataset.map(
                encode,
                batched=True,
                batch_size=256,
                with_indices=True,
                remove_columns=dataset.column_names,
                features=datasets.Features(
                    {"pixels": datasets.Value("large_binary"), "shape": datasets.List(datasets.Value("int32"))}
                ),
                cache_file_name=str(path),
                new_fingerprint=key,
                desc=f"Preprocessing {where}",
            )
        except OSError as error:
            raise InputError(f"{path}: cannot write the cache ({error}); free space or set HF_MDFT_CACHE") from error
        return cls(table, tuple(table[0]["shape"]), preprocessor)

    def __len__(self) -> int:
        return len(self._rows)

    def digests(self) -> set[bytes]:
        """One for each different image: equal images have equal digests."""
        return set(self._digests())

    def distinct(self) -> Images:
        """Each different image once, where it comes first."""
        first: dict[bytes, int] = {}
        for row, digest in enumerate(self._digests()):
            first.setdefault(digest, row)
        return self if len(first) == len(self) else self.subset(list(first.values()))

    def _digests(self) -> Iterator[bytes]:
        for start in range(0, len(self), 256):
            for image in self.pixels(range(start, min(start + 256, len(self)))):
                yield hashlib.sha1(image.numpy().tobytes()).digest()

    @property
    def key(self) -> str:
        """Names these images in caches: changes with the data, the preprocessing and the rows."""
        return key_of(self._table._fingerprint, self._rows.tolist())

    @property
    def rows(self) -> np.ndarray:
        """Which rows of the data set they are, in order."""
        return self._rows

    def made_from(self, dataset: datasets.Dataset, column: str) -> bool:
        """Whether they are rows of this data set's images (whose column is not decoded), as they are."""
        table = getattr(self, "_table", None)  # images that are changed when they are read have none of their own
        return table is not None and table._fingerprint == _key(dataset, column, self.preprocessor)

    def subset(self, rows: np.ndarray | Sequence[int]) -> Images:
        """Some of these images, by index."""
        return Images(self._table, self.shape, self.preprocessor, self._rows[np.asarray(rows)])

    def sample(self, count: int | None, seed: int) -> Images:
        """`count` images drawn without their labels; all of them for `None` or where there are fewer."""
        if count is None or count >= len(self):
            return self
        return self.subset(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def pixels(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Bytes `(len(indices), 3, height, width)`."""
        column = self._table[self._rows[np.asarray(indices)]].column("pixels")
        flat = np.frombuffer(b"".join(value.as_buffer() for value in column), dtype=np.uint8)
        return torch.from_numpy(flat.copy()).view(-1, *self.shape)

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """All images in order, as the model reads them, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.preprocessor.normalize(self.pixels(range(start, min(start + size, len(self)))))


def _key(dataset: datasets.Dataset, column: str, preprocessor: Preprocessor) -> str:
    return key_of("images 2", dataset._fingerprint, _files(dataset, column), column, preprocessor.key())


def _files(dataset: datasets.Dataset, column: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of the local files that a column of the whole table refers to: the data set's own
    fingerprint stays when one of them is replaced."""
    found = []
    for chunk in dataset.data.column(column).chunks:
        outside = chunk.field("bytes").is_null()
        for path in chunk.field("path").filter(outside).to_pylist():
            if path is not None and os.path.isfile(path):
                state = os.stat(path)
                found.append((path, state.st_size, state.st_mtime_ns))
    return found


def decode(value: dict | None, row: int, where: str) -> Image.Image:
    """A picture in RGB as a viewer shows it, from what a column of images holds.

    Raises:
        InputError: It cannot be read; its file or row is named.
    """
    try:
        if value is None:
            raise ValueError("empty")
        source = io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]
        return as_shown(Image.open(source))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = (value or {}).get("path") or f"row {row}"
        raise InputError(f"{where}: image {name} cannot be read ({error}); remove, repair or convert it") from error


DEEP = ("I", "F")
"""So begin Pillow's modes of gray with more than eight bits (`I;16`): conversion to RGB cuts off above 255."""

ORIENTATION = 0x0112
"""Number of the EXIF entry."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By orientation: what makes the picture upright. `ImageOps.exif_transpose` does the same, and rewrites all other
entries, which fails where they are damaged."""


def as_shown(image: Image.Image) -> Image.Image:
    """A picture in RGB as a viewer shows it: turned as its EXIF data say, transparent parts on white.

    Raises:
        ValueError: It is gray with more than eight bits, so what counts as white is not known.
    """
    if image.mode.startswith(DEEP):
        raise ValueError(f"mode {image.mode} is gray of more than 8 bits, of which it is not known what is white")
    turn = TURNED.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a stranger's bytes: the parser raises whatever it stumbles over
        return 1
