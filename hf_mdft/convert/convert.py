"""`hf-mdft pool convert`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import filter_repo_objects
from peft.utils import CONFIG_NAME as PEFT_CONFIG
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import PreTrainedModel

from ..core.errors import InputError
from ..core.reference import ModelReference
from ..core.scratch import scratch, share
from ..hub.download import cached_folder, fetch_files, fetch_weights
from ..pool.source import PROCESSOR_FILES
from ..tasks import has_processor
from .checkpoint import OPEN_CLIP as OPEN_CLIP_WEIGHTS
from .checkpoint import TRANSFORMERS, read_tensors, weight_files
from .from_adapter import adapted_model
from .from_transformers import model_of, plain_model
from .open_clip import CONFIG as OPEN_CLIP
from .open_clip import clip_model, image_processor, read_open_clip
from .open_clip_forward import open_clip_outputs


SMALL = ["*config.json", "*.index.json", "README.md", *PROCESSOR_FILES]
ROUNDING = 1e-4
"""Largest difference, of the largest output, that is rounding: two ways of summing in fp32."""


ANY_SIZE = 224
"""Side of the images for models that read any size."""


@dataclass(frozen=True)
class Converted:
    """What was made.

    Args:
        folder: The folder of the result.
        model: Its class in transformers.
        parameters: Number of its parameters.
        files: Names of the files that its weights were read from.
        difference: Largest difference of its outputs to the source's, of the largest output; `None` where nothing but
            this reads the source (wrapped names, variants), whose tensors it holds all of.
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
        source: A folder or Hub repo: of transformers with weights in `.bin`, `.pt` or a variant, of open_clip (ViT
            towers), or of a PEFT adapter, which is merged into its base.
        folder: Where the result goes; it must not exist, or be empty.
        revision: Branch, tag or commit of a repo.
        token: As in transformers.

    Raises:
        InputError: The source cannot be read whole and safely, computes what its class in transformers does not, or
            the folder is taken. Nothing is left behind.
    """
    shown, folder = folder, Path(os.path.expanduser(folder)).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{shown}: exists already; give another folder")
    place = next((path for path in folder.parents if path.exists()), folder.parent)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{shown}: cannot be made in {place}; give another folder")
    here, names, get = _find(ModelReference.parse(source, revision), token)
    # Repos of open_clip may hold the same model for transformers, too.
    is_open_clip = OPEN_CLIP in names and not ("config.json" in names and set(TRANSFORMERS) & set(names))
    read = _adapter if PEFT_CONFIG in names else _open_clip if is_open_clip else _transformers
    found = read(here, names, get, str(source), token)
    with contextlib.ExitStack() as stack:
        try:
            work = stack.enter_context(scratch(folder.parent)) / folder.name
        except OSError as error:
            raise InputError(f"{shown}: cannot be made ({error.strerror}); give another folder") from error
        found.model.save_pretrained(work)
        for files in found.beside:
            files(work)
        beside = [name for name in names if "/" not in name]
        for name in filter_repo_objects(beside, allow_patterns=[*found.copied, "README.md"]):
            shutil.copyfile(get(name), work / name)
        made = outputs(plain_model(work, type(found.model)))
        difference = None if found.outputs is None else _difference(made, found.outputs)
        if difference is not None and not difference <= ROUNDING:
            raise InputError(
                f"{source}: the converted model computes something else (outputs differ by {difference:.1e} of the "
                "largest), so nothing is written"
            )
        bare = hasattr(found.model.config, "text_config") and not any(
            path.name.startswith(("tokenizer", "vocab")) for path in work.iterdir()
        )
        share(work)
        try:
            if folder.exists():
                folder.rmdir()
            work.rename(folder)
        except OSError as error:
            raise InputError(f"{shown}: cannot be written ({error.strerror}); give another folder") from error
    model = found.model
    return Converted(Path(shown), type(model).__name__, model.num_parameters(), found.files, difference, bare)


@dataclass(frozen=True)
class _Read:
    """What was read of a source: the model, its files, the source's own outputs where something else than this reads
    it, which of its other files are copied, and what writes more beside the model."""

    model: PreTrainedModel
    files: tuple[str, ...]
    outputs: list[torch.Tensor] | None
    copied: Sequence[str]
    beside: Sequence[Callable[[Path], Any]] = ()


Get = Callable[[str], Path]


def _transformers(here: Path, names: list[str], get: Get, where: str, token: Any) -> _Read:
    files = tuple(weight_files(here, names, TRANSFORMERS, where))
    tensors, plain = read_tensors([get(name) for name in files], where)
    model = model_of(here, tensors, where)
    own = None
    if plain and set(TRANSFORMERS) & set(names):
        with contextlib.suppress(Exception):  # plain transformers reads it from there, or stumbles
            own = outputs(plain_model(here, type(model)))
    return _Read(model, files, own, PROCESSOR_FILES)


def _open_clip(here: Path, names: list[str], get: Get, where: str, token: Any) -> _Read:
    files = tuple(weight_files(here, names, OPEN_CLIP_WEIGHTS, where))
    tensors, _ = read_tensors([get(name) for name in files], where)
    found = read_open_clip(here, where)
    model = clip_model(found, tensors, where)
    own = open_clip_outputs(found["model_cfg"], tensors, *_inputs(model))
    copied = [name for name in PROCESSOR_FILES if "processor" not in name]
    return _Read(model, files, own, copied, [image_processor(found, where).save_pretrained])


def _adapter(here: Path, names: list[str], get: Get, where: str, token: Any) -> _Read:
    if SAFETENSORS_WEIGHTS_NAME not in names:
        raise InputError(f"{where}: an adapter without {SAFETENSORS_WEIGHTS_NAME}; save it anew with peft")
    get(SAFETENSORS_WEIGHTS_NAME)
    adapted, base = adapted_model(here, where, token)
    own = outputs(adapted)
    # Without one of its own it has the base's, and no file of the adapter's beside it: of both, one is read.
    own_processor = has_processor(here)
    wanted = [
        path
        for path in base.folder.iterdir()
        if (not own_processor if "processor_config" in path.name else path.name not in names)
    ]
    missing = list(filter_repo_objects(wanted, allow_patterns=PROCESSOR_FILES, key=lambda path: path.name))

    def copy_of_base(work: Path) -> None:
        for path in missing:
            shutil.copyfile(path, work / path.name)

    copied = [name for name in PROCESSOR_FILES if own_processor or "processor" not in name]
    return _Read(adapted.merge_and_unload(), (SAFETENSORS_WEIGHTS_NAME,), own, copied, [copy_of_base])


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
    size = getattr(config, "image_size", None) or ANY_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(4, getattr(config, "num_channels", 3), height, width, generator=generator)
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
