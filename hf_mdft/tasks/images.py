"""Images, decoded and preprocessed once, kept as bytes in a memory-mapped file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import UnidentifiedImageError
from torch.nn import functional as F

from ..core.cache import ADVICE, cache_root, key_of, prepared
from ..core.errors import InputError
from ..core.plain_text import one_line, without_secrets
from ..core.sealed import discard
from .decode import DeepPicture, Showing, decode
from .files import files_digest
from .preprocessor import Preprocessor
from .reading import Reading, tell_of_bad, warn_of_sameness


NEAR = 1.0
"""Gray levels of 255. Noise of up to 3 levels gives 0.5 at most. Of eight data sets, the pictures of five differ by 3
or more from every other one, and the others hold few copies (a tenth of the brain scans)."""

NAME = 300
"""Characters of a path that a message shows: text that is no path may be a whole picture."""

KIND, TABLE = "images", "images.arrow"

FEATURES = datasets.Features(
    {
        "pixels": datasets.Value("large_binary"),
        "shape": datasets.List(datasets.Value("int32")),
        "problem": datasets.Value("string"),
    }
)
"""Columns of the kept table: bytes and shape of each image, or why it cannot be read."""


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
        self.skipped = 0
        """Images of the data set that could not be read, and were left out."""
        self.showing = Showing()
        """How pictures became RGB."""

    @classmethod
    def prepare(
        cls,
        dataset: datasets.Dataset,
        column: str,
        preprocessor: Preprocessor,
        where: str,
        reading: Reading | None = None,
    ) -> Images:
        """Decode and preprocess a dataset's images, once: the result is kept in the cache.

        Args:
            dataset: Has the images.
            column: Name of the column that holds them.
            preprocessor: Makes them what the model reads.
            where: Names the dataset in messages.
            reading: How pictures are shown, and what is done about those that cannot be read.

        Raises:
            InputError: Images cannot be read (all are named), or the cache cannot be written.
        """
        reading, dataset = reading or Reading(), undecoded(dataset, column, where)
        showing = reading.showing
        try:
            table, key = _encoded(dataset, column, preprocessor, where, showing)
        except DeepPicture:
            showing = dataclasses.replace(showing, range=reading.find_range())
            table, key = _encoded(dataset, column, preprocessor, where, showing)
        problems = table.data.column("problem").to_pylist()
        if any(p is not None and "://" in _name(dataset[row][column], row) for row, p in enumerate(problems)):
            discard(cache_root() / KIND / key, ADVICE)  # the network's problems pass
        good = np.array([row for row, problem in enumerate(problems) if problem is None], dtype=int)
        if len(good) < len(table):
            bad = [(_name(dataset[row][column], row), p) for row, p in enumerate(problems) if p is not None]
            tell_of_bad(bad, len(table), key, where, reading.skips and len(good) > 0)
        found = cls(table, tuple(table[int(good[0])]["shape"]), preprocessor, good)
        found.skipped, found.showing = len(table) - len(good), showing
        warn_of_sameness(found, where)
        return found

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

    def different(self, most: int = 1024) -> int:
        """Number of clearly different images, up to so many: what noise or compression make of one counts once.

        Compared are thumbnails of 8 x 8 pixels; they are different where the root of their mean square difference is
        `NEAR` or more.
        """
        kept = torch.zeros(0, 3 * 8 * 8)
        for start in range(0, len(self), 256):
            pixels = self.pixels(range(start, min(start + 256, len(self)))).float()
            for thumbnail in F.adaptive_avg_pool2d(pixels, 8).flatten(1):
                if not len(kept) or (kept - thumbnail).square().mean(dim=1).min() >= NEAR**2:
                    kept = torch.cat([kept, thumbnail[None]])
            if len(kept) >= most:
                return most
        return len(kept)

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
        return table is not None and table._fingerprint == _key(dataset, column, self.preprocessor, self.showing)

    def subset(self, rows: np.ndarray | Sequence[int]) -> Images:
        """Some of these images, by index."""
        found = copy.copy(self)
        found._rows = self._rows[np.asarray(rows)]
        return found

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


def undecoded(dataset: datasets.Dataset, column: str, where: str) -> datasets.Dataset:
    """The column of images alone, not decoded.

    Raises:
        InputError: It holds no images.
    """
    try:
        check_bytes(dataset, column)
        return dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) and str(error).count("\n") == 0 else ""
        raise InputError(
            f"{where}: column '{column}' holds {dataset.features[column]}, expected images{reason[:120]}; give "
            "pictures, paths, or arrays of bytes, height x width x 3"
        ) from error


def check_bytes(dataset: datasets.Dataset, column: str) -> None:
    """Whether arrays in a column are bytes: `datasets` cuts off what is not.

    Raises:
        ValueError: They are not.
    """
    for chunk in dataset.data.column(column).chunks:
        values = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        if _is_list(values.type) and not _is_list(values.type.value_type):
            raise ValueError("lists of numbers; make them height x width")
        while _is_list(values.type):
            values = values.flatten()
        if pa.types.is_integer(values.type) and len(values):
            low, high = pc.min_max(values).values()
            if low.as_py() < 0 or high.as_py() > 255:
                raise ValueError(f"values from {low.as_py()} to {high.as_py()}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _encoded(
    dataset: datasets.Dataset, column: str, preprocessor: Preprocessor, where: str, showing: Showing
) -> tuple[datasets.Dataset, str]:
    """One row for each picture: its bytes, or why it cannot be read; and what names the table in the cache.

    Raises:
        DeepPicture: A picture needs a range that is not known.
    """

    def encode(batch: dict) -> dict:
        found: dict[str, list] = {"pixels": [], "shape": [], "problem": []}
        for value in batch[column]:  # one at a time: a photo takes a hundred times what becomes of it
            pixels, problem = np.zeros((0, 0, 0), dtype=np.uint8), None
            try:
                (pixels,) = preprocessor.encode([decode(value, showing)])
            except DeepPicture:
                raise
            except Exception as error:  # whatever a damaged file makes a reader raise
                problem = next(iter(str(error).splitlines()), "") or type(error).__name__
                problem = without_secrets(problem)[:120]
                problem = "no raster picture" if isinstance(error, UnidentifiedImageError) else problem
            found["pixels"].append(pixels.tobytes())
            found["shape"].append(pixels.shape)
            found["problem"].append(problem)
        return found

    def make(folder: Path) -> None:
        dataset.map(
            encode,
            batched=True,
            batch_size=32,
            remove_columns=dataset.column_names,
            features=FEATURES,
            cache_file_name=str(folder / TABLE),
            new_fingerprint=key,
            desc=f"Preprocessing {where}",
        )

    key = _key(dataset, column, preprocessor, showing)
    file = prepared(KIND, key, make) / TABLE
    return datasets.Dataset(datasets.Dataset.from_file(str(file)).data, fingerprint=key), key


def _key(dataset: datasets.Dataset, column: str, preprocessor: Preprocessor, showing: Showing) -> str:
    files = files_digest(dataset, column)
    pillow = PIL.__version__  # reads and resizes
    return key_of("images 8", dataset._fingerprint, files, column, preprocessor.key(), showing.key(), pillow)


def _name(value: Mapping[str, Any] | None, row: int) -> str:
    name = (value or {}).get("path") or f"row {row}"
    name = one_line(without_secrets(name))
    return name if len(name) <= NAME else f"{name[:NAME]}..."
