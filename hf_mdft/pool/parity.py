"""Whether a pool computes for each of its models what plain transformers computes from the same files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

from ..architectures import read_config
from ..core.cache import key_of, prepared
from ..core.errors import InputError
from ..tasks import Preprocessor, has_processor
from .manifest import ModelPool
from .source import ModelSource


logger = logging.getLogger(__name__)

IMAGES = 4
ROUNDING = 1e-3
"""Largest difference, of the largest output, that is rounding: fp16 files that transformers is asked to read in fp32,
another order of sums."""

TEXTS = ["a photo of a cat.", "a drawing of a dog.", "seven"]
"""What a model with a text tower compares the images with."""

VERSION = 1
"""Version of the check; another one for every change of what it compares."""


def parity(pool: ModelPool) -> dict[str, float]:
    """Largest difference, of the largest output, of base and every expert on a few pictures: logits where a model is a
    classifier (of images, or of images and texts), else the embedding. Each sees them through its own image processor,
    here and there. Experts whose names have a wrapper's prefix, and adapters with names that peft does not know, are
    left out: plain transformers does not find their tensors. A model is checked once; the result is cached.

    Args:
        pool: Its weights are downloaded where they are not here yet.

    Raises:
        InputError: A model computes something else than plain transformers does with its files; it is named.
    """
    found = {}
    for expert, source in ((None, pool.base), *pool.experts.items()):
        if pool.weights(expert).wrapped or (source.is_adapter and not _peft_takes(pool, expert)):
            continue
        processor = source if has_processor(source.folder) else pool.base
        key = key_of(
            "parity", VERSION, transformers.__version__, source.reference.revision, pool.identity(expert),
            pool.base.reference.revision, Preprocessor(processor.folder, str(processor)).key(),
        )  # fmt: skip

        def make(folder: Path, expert: str | None = expert, processor: ModelSource = processor) -> None:
            value = _difference(pool, expert, processor)
            (folder / "parity.json").write_text(json.dumps(value), encoding="utf-8")

        kept = prepared("parity", key, make) / "parity.json"
        found[expert or "base"] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _peft_takes(pool: ModelPool, expert: str) -> bool:
    """Whether peft puts an adapter on the base as it is: it does not know all names of older versions."""
    source = pool.experts[expert]
    config, (file,) = pool.expert_config(expert), source.weights
    try:
        model = PeftModel.from_pretrained(pool.architecture.plain_model(pool.base.folder, config), source.folder)
        with safe_open(source.folder / file, framework="pt") as saved:
            taken = get_peft_model_state_dict(model).keys() == set(saved.keys())
    except Exception:  # whatever peft stumbles over
        taken = False
    if not taken:
        logger.warning(
            "%s: its modules have names that peft does not find in the base; they are matched by transformers' own "
            "renaming, and what they compute is not compared with peft",
            source,
        )
    return taken


@torch.no_grad()
def _difference(pool: ModelPool, expert: str | None, processor: ModelSource) -> float:
    source = pool.base if expert is None else pool.experts[expert]
    ours = Preprocessor(processor.folder, str(processor))
    pixels = ours.normalize(torch.from_numpy(ours.encode(_pictures())))
    plain_pixels = ours.processor(_pictures(), return_tensors="pt")["pixel_values"]
    architecture = pool.architecture
    config = read_config(source.folder, str(source)) if expert is None else pool.expert_config(expert)
    try:
        if source.is_adapter:
            model = PeftModel.from_pretrained(architecture.plain_model(pool.base.folder, config), source.folder)
        else:
            model = architecture.plain_model(source.folder, config)
        plain, is_classifier = architecture.plain_outputs(model.eval(), config, plain_pixels)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        shape = tuple(plain_pixels.shape[2:])
        raise InputError(
            f"{source}: plain transformers cannot run it on images of {shape[0]} x {shape[1]} pixels, which its image "
            f"processor makes ({reason}); correct preprocessor_config.json"
        ) from error
    features = architecture.features(pool.tower(expert)(pixel_values=pixels)).float()
    what, found = "embeddings", features
    if is_classifier:
        weight, bias, _ = architecture.classifier(pool.weights(expert), config, expert or "the base")
        what, found = "logits", features @ weight.T + bias
    difference = _relative(found, plain)
    if expert is None and architecture.has_text_tower(config) and has_tokenizer(source):
        head = architecture.text_embeddings(source.folder, TEXTS, ["{}"], "the base")
        cosines = F.normalize(features @ head["projection"].T, dim=-1) @ head["class_embeddings"].T
        found = head["logit_scale"] * cosines + head.get("logit_bias", 0.0)
        compared = _relative(found, architecture.plain_similarities(source.folder, TEXTS, plain_pixels))
        if not compared <= difference:
            what, difference = "logits for texts", compared
    if not difference <= ROUNDING:
        raise InputError(
            f"{source}: its {what} in this pool differ from those of plain transformers by {difference:.1e} of the "
            "largest, so it would not be the same model; please report the model's id"
        )
    return difference


def _relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    return ((ours - plain).abs().max() / plain.abs().max().clamp_min(1e-12)).item()


def has_tokenizer(source: ModelSource) -> bool:
    """Whether a model has files of a tokenizer; what is read without one is not compared."""
    return any((source.folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model"))


def _pictures() -> list[Image.Image]:
    """Pictures with edges, slopes and noise, none of them square."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:120, 0:160]
    found = []
    for number in range(IMAGES):
        slope = np.stack([rows * (number + 1), columns, rows + columns], axis=-1) % 256
        edges = 255 * ((rows // 16 + columns // 16) % 2)[..., None]
        noise = generator.integers(0, 256, (120, 160, 3))
        mixed = (slope, edges + 0 * slope, (slope + noise) // 2, noise)[number]
        found.append(Image.fromarray(mixed.astype(np.uint8)))
    return found


def parity_text(found: dict[str, float]) -> str:
    """Differences as text, the largest at the end."""
    worst = max(found, key=found.__getitem__)
    return (
        f"Parity with plain transformers: {len(found)} models compute the same on {IMAGES} pictures (largest "
        f"difference {found[worst]:.0e} of the largest output: {worst})"
    )
