"""Whether a pool computes for each of its models what plain transformers computes from the same files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from torch.nn import functional as F

from ..core.cache import key_of, prepared
from ..core.errors import InputError
from ..core.hashing import file_hash
from ..tasks import Preprocessor, has_processor
from ..tasks.preprocessor import sample_pictures
from .lora import Lora
from .manifest import ModelPool
from .source import ModelSource


logger = logging.getLogger(__name__)

ROUNDING = 1e-3
"""Largest difference, of the largest output, that is rounding: fp16 files that transformers is asked to read in fp32,
another order of sums."""

TEXTS = ["a photo of a cat.", "a big dog.", "seven"]
"""What a model with a text tower compares the images with: of different lengths even to a tokenizer that knows none of
the words."""

TOKENIZER = ("tokenizer", "vocab", "merges", "spiece", "sentencepiece", "special_tokens", "added_tokens")
"""So begin names of a tokenizer's files."""

VERSION = 3
"""Version of the check; another one for every change of what it compares."""


def parity(pool: ModelPool) -> dict[str, float]:
    """Largest difference, of the largest output, of base and every expert on a few pictures: logits of an expert that
    is a classifier, logits for texts of a base with a text tower, else the embedding. Each sees them through its own
    image processor, here and there. Experts whose names have a wrapper's prefix, and adapters with names that peft
    does not know, are left out: plain transformers does not find their tensors. A model is checked once; the result
    is cached.

    Args:
        pool: Its weights are downloaded where they are not here yet.

    Raises:
        InputError: A model computes something else than plain transformers does with its files; it is named.
    """
    found = {}
    for expert, source in ((None, pool.base), *pool.experts.items()):
        if pool.weights(expert).wrapped:
            continue
        processor = source if has_processor(source.folder) else pool.base
        key = key_of(
            "parity", VERSION, transformers.__version__, source.reference.revision, pool.identity(expert),
            pool.base.reference.revision, Preprocessor.of(processor.folder, str(processor)).key(), _texts_key(source),
        )  # fmt: skip

        def make(folder: Path, expert: str | None = expert, processor: ModelSource = processor) -> None:
            value = _difference(pool, expert, processor)
            (folder / "parity.json").write_text(json.dumps(value), encoding="utf-8")

        kept = json.loads((prepared("parity", key, make) / "parity.json").read_text(encoding="utf-8"))
        if kept is None:
            logger.warning(
                "%s: its modules have names that peft does not find in the base; they are matched by transformers' "
                "own renaming, and what they compute is not compared with peft",
                source,
            )
        else:
            found[expert or "base"] = kept
    return found


@torch.no_grad()
def _difference(pool: ModelPool, expert: str | None, processor: ModelSource) -> float | None:
    """The largest difference; `None` for an adapter that peft cannot put on the base."""
    source = pool.base if expert is None else pool.experts[expert]
    ours = Preprocessor.of(processor.folder, str(processor))
    pictures = sample_pictures()
    pixels = ours.normalize(torch.from_numpy(ours.encode(pictures)))
    plain_pixels = ours.processor(pictures, return_tensors="pt")["pixel_values"]
    architecture = pool.architecture
    head = None if expert is None else _own_head(pool, expert)
    try:
        model = _plain_model(pool, expert, head is not None)
        if model is None:
            return None
        plain = architecture.plain_outputs(model.eval(), plain_pixels, head is not None)
    except InputError:
        raise
    except (ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, ImportError):
            raise InputError(f"{source}: transformers needs another package for it ({reason}); install it") from error
        shape = tuple(plain_pixels.shape[2:])
        raise InputError(
            f"{source}: plain transformers cannot run it on images of {shape[0]} x {shape[1]} pixels, which its image "
            f"processor makes ({reason}); correct preprocessor_config.json"
        ) from error
    features = architecture.features(pool.tower(expert)(pixel_values=pixels)).float()
    what, found = "embeddings", features
    if head is not None:
        what, found = "logits", features @ head[0].T + head[1]
    difference = _relative(found, plain)
    if expert is None and architecture.has_text_tower(pool.config) and has_tokenizer(source):
        texts = architecture.text_embeddings(source.folder, TEXTS, ["{}"], str(source))
        cosines = F.normalize(features @ texts["projection"].T, dim=-1) @ texts["class_embeddings"].T
        found = texts["logit_scale"] * cosines + texts.get("logit_bias", 0.0)
        compared = _relative(found, architecture.plain_similarities(source.folder, TEXTS, plain_pixels))
        if not compared <= difference:
            what, difference = "logits for texts", compared
    if difference != difference:
        raise InputError(f"{source}: {_not_finite(source)} holds NaN or infinity; take another revision")
    if not difference <= ROUNDING:
        raise InputError(
            f"{source}: its {what} in this pool differ from those of plain transformers by {difference:.1e} of the "
            "largest, so it would not be the same model; please report the model's id"
        )
    return difference


def _own_head(pool: ModelPool, expert: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight and bias of an expert's own classifier; none where it has no whole one."""
    if not pool.architecture.own_heads:
        return None
    try:
        weight, bias, _ = pool.architecture.classifier(pool.weights(expert), pool.expert_config(expert), expert)
    except InputError:  # told of where the head is built, unless it is given
        return None
    return (weight, bias) if weight.isfinite().all() and bias.isfinite().all() else None


def _plain_model(pool: ModelPool, expert: str | None, as_classifier: bool) -> torch.nn.Module | None:
    """A model as plain transformers (for an adapter: and peft) loads it."""
    architecture = pool.architecture
    if expert is None:
        return architecture.plain_model(pool.base.folder, pool.config, False)
    source, config = pool.experts[expert], pool.expert_config(expert)
    if not source.is_adapter:
        return architecture.plain_model(source.folder, config, as_classifier)
    model = architecture.plain_model(pool.base.folder, config, as_classifier)
    modules = set(Lora(source).factors)
    part = next((m for m in (model, model.base_model) if modules <= {name for name, _ in m.named_modules()}), None)
    if part is not None:
        try:
            PeftModel.from_pretrained(part, source.folder)  # puts its layers into the model
        except Exception as error:  # whatever peft stumbles over
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise InputError(f"{source}: peft cannot put it on {pool.base} ({reason[:160]})") from error
    return None if part is None else model


def _not_finite(source: ModelSource) -> str:
    """A tensor in a model's files that holds NaN or infinity."""
    for name in source.weights:
        with safe_open(source.folder / name, framework="pt") as file:
            for key in file.keys():
                tensor = file.get_tensor(key)
                if tensor.is_floating_point() and not tensor.float().isfinite().all():
                    return f"tensor '{key}'"
    return "what it computes"


def _texts_key(source: ModelSource) -> list[str]:
    """Changes with the files of a tokenizer."""
    names = sorted(path for path in source.folder.iterdir() if path.name.startswith(TOKENIZER))
    return [file_hash(path) for path in names if path.is_file()]


def _relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    return ((ours - plain).abs().max() / plain.abs().max().clamp_min(1e-12)).item()


def has_tokenizer(source: ModelSource) -> bool:
    """Whether a model has files of a tokenizer; what is read without one is not compared."""
    return any(path.name.startswith(TOKENIZER) for path in source.folder.iterdir())


def parity_text(found: dict[str, float]) -> str:
    """Differences as text, the largest at the end."""
    worst = max(found, key=found.__getitem__)
    return (
        f"Parity with plain transformers: {len(found)} models compute the same on a few pictures (largest "
        f"difference {found[worst]:.0e} of the largest output: {worst})"
    )
