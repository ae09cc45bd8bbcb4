"""The demo's own models: a small CLIP, and experts fine-tuned from it with few labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, CLIPVisionModel

from ..architectures import ClipVision
from ..embedding.views import jitter
from ..heads import ZeroShotHead
from ..tasks import Preprocessor
from .images import SIDE, TASKS, TEMPLATES, Part


def save_processors(folder: Path) -> CLIPTokenizer:
    """Image processor and a tokenizer of single characters, in the formats of every CLIP repo."""
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    characters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{c}</w>" for c in characters)]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=64)
    tokenizer.save_pretrained(folder)
    return tokenizer


def new_clip(tokens: int) -> CLIPModel:
    """A CLIP of half a million parameters."""
    vision = {
        "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": 8, "projection_dim": 64,
    }  # fmt: skip
    text = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": tokens, "max_position_embeddings": 64, "projection_dim": 64, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=64))


def pretrain(folder: Path, parts: dict[str, Part], steps: int, seed: int) -> None:
    """Train the base on image-caption pairs of all tasks and save it as a complete `CLIPModel` folder."""
    torch.manual_seed(seed)
    tokenizer = save_processors(folder)
    preprocessor = Preprocessor(folder, "demo base")
    model = new_clip(len(tokenizer)).train()
    names = [name for task in TASKS for name in TASKS[task]]
    captions = [template.format(name) for name in names for template in TEMPLATES]
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    pixels = torch.cat([torch.from_numpy(preprocessor.encode(part.images)) for part in parts.values()])
    labels = [names.index(TASKS[task][label]) for task, part in parts.items() for label in part.labels]
    labels = torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(steps), desc="Pre-training the demo's base"):
        rows = torch.randint(len(labels), (128,), generator=generator)
        images = jitter(preprocessor.normalize(pixels[rows]), generator)
        image_features = F.normalize(model.get_image_features(pixel_values=images).pooler_output, dim=-1)
        text_features = F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
        # Captions repeat within a batch, so every image has several right ones: the target is spread over them.
        logits = model.logit_scale.exp().clamp(max=50) * image_features @ text_features.T
        target = F.one_hot(labels[rows], len(names)).float().repeat_interleave(len(TEMPLATES), dim=1)
        loss = F.cross_entropy(logits, target / len(TEMPLATES), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)


def fine_tune(folder: Path, base: Path, task: str, part: Part, steps: int, seed: int) -> None:
    """Fine-tune the vision tower on a task's few labels, with the text head frozen, and save it alone."""
    torch.manual_seed(seed)
    tensors = ClipVision().text_embeddings(base, TASKS[task], TEMPLATES, "demo base")
    head = ZeroShotHead(TASKS[task], **tensors)
    tower = CLIPVisionModel.from_pretrained(base).train()
    preprocessor = Preprocessor(base, "demo base")
    pixels, labels = torch.from_numpy(preprocessor.encode(part.images)), torch.tensor(part.labels)
    optimizer = torch.optim.Adam(tower.parameters(), lr=3e-4)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(labels), (min(32, len(labels)),), generator=generator)
        loss = F.cross_entropy(head(tower(preprocessor.normalize(pixels[rows])).pooler_output), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tower.eval().save_pretrained(folder)
