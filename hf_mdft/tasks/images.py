"""Images, decoded and preprocessed once, kept as bytes in a memory-mapped file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..core.cache import cache_root, key_of
from ..core.errors import InputError
from .preprocessor import Preprocessor


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
