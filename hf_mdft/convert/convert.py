"""`hf-mdft pool convert`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import PreTrainedModel

from ..core.cache import key_of
from ..core.errors import InputError
from ..core.reference import ModelReference
from ..hub.download import cached_folder, fetch_files, fetch_weights
from ..pool.source import PROCESSOR_FILES
from .checkpoint import read_tensors, weight_files
from .from_transformers import model_of, plain_model
from .open_clip import CONFIG as OPEN_CLIP
from .open_clip import clip_model, image_processor, read_open_clip
from .open_clip_forward import open_clip_outputs


SMALL = ["*config.json", "*.index.json", "README.md", *PROCESSOR_FILES]
ROUNDING = 1e-4
"""Largest difference, of the largest output, that is rounding: two ways of summing in fp32."""


@dataclass(frozen=True)
class Converted:
    """What was made.

    Args:
        folder: The folder of the result.
        model: Its class in transformers.
        parameters: Number of its parameters.
        files: Names of the files that its weights were read from.
        difference: Largest difference of its outputs to the source's, of the largest output; `None` where nothing but
            this reads the source (wrapped names, variants), whose tensors it has bit by bit.
        without_tokenizer: Whether it embeds text but the source has no tokenizer.
    """

    folder: Path
    model: str
    parameters: int
    files: tuple[str, ...]
    difference: float | None
    without_tokenizer: bool


def convert(
    source: str | Path, folder: Path, *, revision: str | None = None, token: str | bool | None = None
) -> Converted:
    """Write a model as a folder of safetensors in fp32, and compare it with its source on random inputs.

    Args:
        source: A folder or Hub repo: of transformers with weights in `.bin`, `.pt` or a variant, or of open_clip (ViT
            towers).
        folder: Where the result goes; it must not exist, or be empty.
        revision: Branch, tag or commit of a repo.
        token: As in transformers.

    Raises:
        InputError: The source cannot be read whole and safely, computes what its class in transformers does not, or
            the folder is taken. Nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; give another folder")
    here, names, get = _find(ModelReference.parse(source, revision), token)
    files = tuple(weight_files(here, names, str(source)))
    tensors, plain = read_tensors([get(name) for name in files], str(source))
    work = folder.with_name(f".{folder.name}-{key_of(str(source))[:8]}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        if OPEN_CLIP in names:
            found = read_open_clip(here, str(source))
            model = clip_model(found, tensors, str(source))
            model.save_pretrained(work)
            image_processor(found, str(source)).save_pretrained(work)
            copied = [name for name in PROCESSOR_FILES if "processor" not in name]
            wanted = open_clip_outputs(found["model_cfg"], tensors, *_inputs(model))
        else:
            model = model_of(here, tensors, str(source))
            model.save_pretrained(work)
            copied, wanted = PROCESSOR_FILES, None
            if plain and set(files) & {"pytorch_model.bin", "model.safetensors"}:
                wanted = outputs(plain_model(here, type(model)))
        for name in filter_repo_objects(names, allow_patterns=[*copied, "README.md"]):
            shutil.copyfile(get(name), work / name)
        made = outputs(plain_model(work, type(model)))
        difference = None if wanted is None else _difference(made, wanted)
        if difference is not None and not difference <= ROUNDING:
            raise InputError(
                f"{source}: the converted model computes something else (outputs differ by {difference:.1e} of the "
                "largest), so nothing is written"
            )
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = hasattr(model.config, "text_config") and not any(name.startswith(("tokenizer", "vocab")) for name in names)
    return Converted(folder, type(model).__name__, model.num_parameters(), files, difference, text)


def _find(reference: ModelReference, token: str | bool | None) -> tuple[Path, list[str], Callable[[str], Path]]:
    """Folder of a model's small files, names of all of its files, and what gives the path of one."""
    if reference.is_local or Path(reference.id).is_dir():
        here = Path(reference.id)
        return here, [path.name for path in here.iterdir() if path.is_file()], lambda name: here / name
    here, files = fetch_files(reference, SMALL, token)
    if files is None:
        files = {path.name: None for path in cached_folder(reference).iterdir()}
    pinned = ModelReference(reference.id, here.name)
    return here, list(files), lambda name: fetch_weights(pinned, name, token)


def _inputs(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random images and, for a model with a text tower, random texts; the same for the same config."""
    generator = torch.Generator().manual_seed(0)
    config = getattr(model.config, "vision_config", model.config)
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    pixels = torch.randn(4, getattr(config, "num_channels", 3), side, side, generator=generator)
    text = getattr(model.config, "text_config", None)
    if text is None:
        return pixels, None
    length, last = min(16, text.max_position_embeddings), text.vocab_size - 1
    ids = torch.randint(0, last - 1, (4, length), generator=generator)
    ids[:, 0], ids[:, -1] = last - 1, last
    return pixels, ids


@torch.no_grad()
def outputs(model: PreTrainedModel) -> list[torch.Tensor]:
    """A model's outputs on random inputs: image and text embeddings of one with both, else the first output."""
    pixels, ids = _inputs(model)
    if ids is None:
        return [model(pixel_values=pixels)[0]]
    found = model(pixel_values=pixels, input_ids=ids)
    return [found.image_embeds, found.text_embeds]


def _difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
