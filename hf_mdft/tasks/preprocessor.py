"""A model's image processor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor

from ..core.cache import key_of
from ..core.device import sent
from ..core.errors import InputError


STEPS = {
    "do_resize": ("size", "resample"), "do_center_crop": ("crop_size",), "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}  # fmt: skip
"""What of an image processor decides about pixels: steps, and the settings of each."""


LARGEST_SIDE = 4096
"""Pixels of the longest side that a model reads."""

LARGEST_RESIZED = 2**25
"""Pixels of a picture after resizing, before it is cropped: for a shortest side of 224 pixels, 670 times as long as
wide. Processors need ten bytes for each."""

SCALING = ("do_rescale", "do_normalize")
"""Steps of the second half; EfficientNet's `include_top` divides once more."""


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
            if has_processor(folder) and isinstance(error, ImportError):
                raise InputError(f"{where}: its image processor: {' '.join(str(error).split())[:200]}") from error
            raise InputError(
                f"{where}: no image processor that can be read beside the model; add its preprocessor_config.json"
            ) from error
        self._spec = json.loads(self.processor.to_json_string())
        self._geometry = None
        size = self._spec.get("size") if self._spec.get("do_resize", True) else None
        self._shortest = (
            size.get("shortest_edge") if isinstance(size, Mapping) and "longest_edge" not in size else None
        )
        if "data_config" in self._spec:  # timm's: a list of steps
            steps = self.processor.val_transforms.transforms
            self._geometry = [step for step in steps if type(step).__name__ != "Normalize"]
            mean, std = self._spec["data_config"]["mean"], self._spec["data_config"]["std"]
            self._shortest = max(self._spec["data_config"]["input_size"][1:])
            self._spec |= {"do_normalize": True, "image_mean": mean, "image_std": std}
        _check_numbers(self._spec, where)
        scale = self._spec.get("rescale_factor", 1 / 255) if self._spec.get("do_rescale", True) else 1.0
        normalize = self._spec.get("do_normalize", False)
        try:
            self._mean = _of_channels(self._spec["image_mean"] if normalize else 0.0)
            self._std = _of_channels(self._spec["image_std"] if normalize else 1.0)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{where}: image_mean and image_std of preprocessor_config.json must be three numbers each"
            ) from error
        self._scale = scale
        try:
            self._match(where)
        except InputError:
            raise
        except Exception as error:  # settings of other types than the processor can use
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(f"{where}: its image processor fails on a picture ({reason}); correct it") from error

    @classmethod
    def of(cls, folder: Path, where: str) -> Preprocessor:
        """The same, made once for the files of a folder as they are now."""
        names = ("preprocessor_config.json", "processor_config.json", "config.json")
        found = [path.stat() for path in map(folder.joinpath, names) if path.is_file()]
        return _made(folder, where, tuple((s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino) for s in found))

    def _match(self, where: str) -> None:
        """Whether both halves together are the processor; some scale and shift in other ways, which are measured.

        Raises:
            InputError: They are not.
        """
        pictures = sample_pictures(1)
        pixels = torch.from_numpy(self.encode(pictures))
        kind = "pt" if self._geometry is not None else "np"
        wanted = torch.as_tensor(self.processor(pictures, return_tensors=kind)["pixel_values"]).float()
        if wanted.shape != pixels.shape:
            raise InputError(f"{where}: its image processor cannot be split in two ({type(self.processor).__name__})")
        if _same([self.normalize(pixels)], [wanted]):
            return
        x, y = pixels.double().transpose(0, 1).flatten(1), wanted.double().transpose(0, 1).flatten(1)
        slope = ((x - x.mean(1, True)) * (y - y.mean(1, True))).sum(1) / (x - x.mean(1, True)).square().sum(1)
        shift = y.mean(1) - slope * x.mean(1)
        self._std, self._mean = (1 / slope).float().view(3, 1, 1), (-shift / slope).float().view(3, 1, 1)
        self._scale = 1.0
        if not _same([self.normalize(pixels)], [wanted]):
            raise InputError(
                f"{where}: its image processor ({type(self.processor).__name__}) does more than resize, crop and "
                "scale pictures, which is not supported"
            )

    def key(self) -> str:
        """Changes with every setting of the processor, and with the library that it resizes with."""
        return key_of(self._spec, type(self.processor).__name__)

    def differences(self, other: Preprocessor) -> list[str]:
        """What makes other pixels than another one makes, in words: `image_mean: [0.5, 0.5, 0.5], not [...]`; nothing
        where both make the same of a few pictures."""
        if self.key() == other.key() or _same(self._sample(), other._sample()):
            return []
        mine, theirs = self._effective(), other._effective()
        settings = [f"{key}: {mine[key]}, not {theirs[key]}" for key in mine if mine[key] != theirs[key]]
        return settings or ["what it makes of a picture"]

    def _sample(self) -> list[torch.Tensor]:
        """What it makes of pictures wider than high and higher than wide."""
        return [self.normalize(torch.from_numpy(self.encode([picture]))) for picture in sample_pictures(2)]

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

    def shapes(self) -> list[str]:
        """Sizes of what it makes of pictures wider than high and higher than wide, in words."""
        found = [self.encode([picture]).shape for picture in sample_pictures(2)]
        return list(dict.fromkeys(f"{height} x {width}" for *_, height, width in found))

    def encode(self, images: list[Image.Image]) -> np.ndarray:
        """Bytes `(N, 3, height, width)` after resize and crop.

        Raises:
            ValueError: One is so long and narrow that it would not fit into memory once its short side is resized.
        """
        for short, long in (sorted(image.size) for image in images):
            if self._shortest and self._shortest**2 * long > LARGEST_RESIZED * short:
                raise ValueError(f"{long} pixels long and {short} wide, too narrow to be resized")
        images = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
        if self._geometry is not None:
            pixels = np.stack([255 * np.asarray(self._in_steps(image)) for image in images])
            return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        off = {step: False for step in (*SCALING, "include_top") if step in SCALING or step in self._spec}
        pixels = self.processor(images, return_tensors="np", **off)["pixel_values"]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def _in_steps(self, image: Image.Image) -> Any:
        for step in self._geometry:
            image = step(image)
        return image

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model reads, fp32, from bytes `(N, 3, height, width)`; on the bytes' device."""
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (pixels.float() * self._scale - mean) / std


def _check_numbers(spec: Mapping[str, Any], where: str) -> None:
    """Refuse settings that make no picture, before a picture of such a size is made.

    Raises:
        InputError: A size, a mean, a standard deviation or a factor is impossible.
    """
    for key in ("size", "crop_size", "pad_size"):
        sides = spec.get(key)
        for side in sides.values() if isinstance(sides, Mapping) else [sides]:
            if side is not None and (type(side) not in (int, float) or not 1 <= side <= LARGEST_SIDE):
                raise InputError(f"{where}: preprocessor_config.json: {key} is {sides!r:.80}; correct it")
    for key, low, high in (("image_mean", -1e4, 1e4), ("image_std", 1e-4, 1e4), ("rescale_factor", 1e-6, 1e3)):
        value = spec.get(key)
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and (type(number) not in (int, float) or not low <= number <= high):
                raise InputError(f"{where}: preprocessor_config.json: {key} is {value!r:.80}; correct it")


@lru_cache(maxsize=64)
def _made(folder: Path, where: str, files: tuple[tuple[int, ...], ...]) -> Preprocessor:
    return Preprocessor(folder, where)


def _same(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    """Whether pixels are the same but for rounding."""
    pairs = list(zip(a, b, strict=True))
    return all(x.shape == y.shape and torch.allclose(x, y, atol=1e-4, rtol=1e-4) for x, y in pairs)


def sample_pictures(count: int = 4) -> list[Image.Image]:
    """Pictures with edges, slopes and noise, none of them square; of two, one is higher than wide.

    Args:
        count: How many; four have one shape.
    """
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:120, 0:160]
    noise = generator.integers(0, 256, (120, 160, 3))
    slope = np.stack([rows * 2, columns, rows + columns], axis=-1) % 256
    edges = np.repeat(255 * ((rows // 16 + columns // 16) % 2)[..., None], 3, axis=-1)
    made = [(slope + noise) // 2, noise, slope, edges]
    found = [Image.fromarray(pixels.astype(np.uint8)) for pixels in made[:count]]
    return [found[0], found[1].transpose(Image.Transpose.TRANSPOSE)] if count == 2 else found


def _rounded(value: Any) -> Any:
    """Values as they compare: numbers to six digits, whatever sequence they are in; null settings left out."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), 6) if isinstance(value, float | int) and not isinstance(value, bool) else value


def normalize_mixed(pixels: torch.Tensor, task: Sequence[int], preprocessors: Sequence[Preprocessor]) -> torch.Tensor:
    """What the model reads from bytes `(N, 3, height, width)` of several tasks, each by its own preprocessor.

    Args:
        pixels: The images.
        task: Number of each one's task.
        preprocessors: By number of the task.
    """
    if len({preprocessor.key() for preprocessor in preprocessors}) == 1:
        return preprocessors[0].normalize(pixels)
    found, numbers = torch.empty(pixels.shape, device=pixels.device), torch.as_tensor(task)
    for number, preprocessor in enumerate(preprocessors):
        rows = sent((numbers == number).nonzero().flatten(), pixels.device)
        found[rows] = preprocessor.normalize(pixels[rows])
    return found


def _of_channels(numbers: float | list[float]) -> torch.Tensor:
    """One number for each channel, `(3, 1, 1)`; one alone is that of all, as in transformers."""
    found = torch.tensor(numbers)
    return (found.expand(3) if found.dim() == 0 else found).reshape(3, 1, 1)


def has_processor(folder: Path) -> bool:
    """Whether a model's folder says how its images are prepared; timm's models say it in their config."""
    if (folder / "preprocessor_config.json").is_file():
        return True
    for name, part in (("processor_config.json", "image_processor"), ("config.json", "pretrained_cfg")):
        try:
            if any(str(key).startswith(part) for key in json.loads((folder / name).read_text(encoding="utf-8"))):
                return True
        except (OSError, ValueError, TypeError):
            continue
    return False
