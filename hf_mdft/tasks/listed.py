"""Lists of paths, pictures and arrays as a data set."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ..core.errors import InputError
from .decode import DEEP, GRAY_ALPHA_16, ORIENTATION, WHITENESS, load, stored_as, white_is_zero


AS_PNG, AS_TIFF = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), ("I", "F", "CMYK", "LAB", "I;16B")
"""Modes that PNG and TIFF keep as they are; others become RGB."""


def listed(items: Sequence[Any], column: str, where: str) -> datasets.Dataset:
    """Pictures in memory or paths, as they would be stored."""
    if not len(items):
        raise InputError(f"{where}: the list of images is empty")
    items, values = _undecoded(items), []
    for number, item in enumerate(items):
        if isinstance(item, Mapping) and column in item:
            item = item[column]  # rows of a data set
        try:
            values.append(_stored(item))
        except OSError:  # a damaged file, opened and not yet read: a bad picture as any other
            values.append({"bytes": b"", "path": f"image {number} of the list"})
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise InputError(
                f"{where}: image {number} of the list, {type(item).__name__}, makes no picture ({reason[:120]}); give "
                "paths, pictures of Pillow or arrays of bytes"
            ) from error
    features = datasets.Features({column: datasets.Image(decode=False)})
    return datasets.Dataset.from_dict({column: values}, features=features)


def _undecoded(items: Sequence[Any]) -> Sequence[Any]:
    """A data set's column of pictures as they are stored: read from there, they have lost what their files say."""
    if not isinstance(items, datasets.arrow_dataset.Column) or not isinstance(items.source, datasets.Dataset):
        return items
    source, name = items.source, items.column_name
    if source.format["type"] == "custom" or not isinstance(source.features.get(name), datasets.Image):
        return items
    return source.with_format(None).cast_column(name, datasets.Image(decode=False))[name]


def _stored(item: Any) -> dict[str, Any]:
    """A picture's bytes or path."""
    if isinstance(item, str | Path):
        str(item).encode()  # tables of `datasets` hold no other text
        return {"bytes": None, "path": str(item)}
    if isinstance(item, bytes):
        return {"bytes": item, "path": None}
    if isinstance(item, Mapping) and item.keys() <= {"bytes", "path"}:
        if item.get("bytes") is None and item.get("path") is None:
            raise ValueError("neither bytes nor a path")
        return {"bytes": item.get("bytes"), "path": item.get("path")}
    if not isinstance(item, Image.Image):
        item = Image.fromarray(_pixels(np.asarray(item)))
    if stored_as(item) == GRAY_ALPHA_16 and item.fp:  # what is read of it has eight bits
        place = item.fp.tell()
        item.fp.seek(0)
        content = item.fp.read()
        item.fp.seek(place)
        return {"bytes": content, "path": None}
    if item.mode not in AS_PNG + AS_TIFF:
        item = item.convert({"La": "LA", "RGBa": "RGBA"}.get(item.mode, "RGB"))
    load(item)
    file = io.BytesIO()  # not its file, which may have other pixels
    if item.mode.startswith(DEEP) and white_is_zero(item):  # PNG cannot say so
        item.save(file, "TIFF", compression="raw", tiffinfo={WHITENESS: 0})
        return {"bytes": file.getvalue(), "path": None}
    try:
        kept = Image.Exif()  # its size would override that of a picture that was cut since
        if turned := item.getexif().get(ORIENTATION):
            kept[ORIENTATION] = turned
        exif = kept.tobytes()
    except Exception:  # damaged entries: a parser raises whatever it stumbles over
        exif = b""
    item.save(file, "PNG" if item.mode in AS_PNG else "TIFF", exif=exif)
    return {"bytes": file.getvalue(), "path": None}


def _pixels(array: np.ndarray) -> np.ndarray:
    """An array as Pillow takes it: `(height, width)` or `(height, width, 3 or 4)` of bytes; gray may be deeper."""
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
        raise ValueError(f"an array of shape {array.shape} and type {array.dtype}")
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint8 or (array.ndim == 2 and array.dtype in (np.uint16, np.int32, np.float32)):
        return array
    if array.dtype.kind == "f" or array.min() < 0 or array.max() > 255:
        raise ValueError(f"{array.dtype} from {array.min():g} to {array.max():g}, give bytes from 0 to 255")
    return array.astype(np.uint8)
