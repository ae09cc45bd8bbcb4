"""Model cards: they parse, say what is true, and equal the golden ones in `model_cards/`.

After a wanted change: `UPDATE_CARDS=1 pytest tests/test_cards.py`, and read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_mdft.hub import cards
from hf_mdft.hub.cards import meta_card, shared_licence, specialist_card
from hf_mdft.pool import ModelSource


GOLDEN = Path(__file__).parents[1] / "model_cards"
REFERENCE = {
    "base": {"id": "openai/clip-vit-base-patch32", "revision": "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"},
    "experts": {
        "mnist": {"id": "tanganke/clip-vit-base-patch32_mnist", "revision": "b" * 40},
        "own": {"id": "/home/someone/models/own", "revision": "sha256:" + "c" * 64},
        "none": None,
    },
    "tasks": ["mnist", "own", "none"],
}
GATE = {
    "chosen": "specialist", "lead": 0.0172, "standard_error": 0.0026, "changed": 0.089, "images": 4000,
    "reason": "judges prefer the specialist by 1.72 +- 0.26 points",
}  # fmt: skip
FACTS = {
    "accuracy": {"base": 0.482, "expert": 0.731, "meta": 0.616, "specialist": 0.785}, "images": 1000,
    "transductive": False, "p_value": 1.1e-9, "pipeline_tag": "zero-shot-image-classification",
}  # fmt: skip
KEPT = {**GATE, "chosen": "expert", "reason": "no improvement shown: the judges' lead is 0.02 +- 0.26 points"}
DIGITS = [f"digit {i}" for i in range(10)]
TABLE = {
    "tasks": ["mnist", "own"],
    "accuracy": {"base": {"mnist": 0.48, "own": 0.5, "average": 0.49}, "expert": {"mnist": 0.9}},
}

CARDS = {
    "specialist": lambda: specialist_card("mnist", REFERENCE, DIGITS, GATE, FACTS, "mit"),
    "expert_kept": lambda: specialist_card("own", REFERENCE, DIGITS, KEPT, {"pipeline_tag": "image-classification"}),
    "meta_model": lambda: meta_card(REFERENCE, {"granularity": "tensor", "transform": {"name": "identity"}}, TABLE, "mit"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_golden_cards(name, monkeypatch):
    monkeypatch.setattr(cards, "versions", lambda: {"python": "3.11", "hf-mdft": "0.1.0"})
    text, file = str(CARDS[name]()), GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_CARDS"):
        file.write_text(text)
    assert text == file.read_text()
    assert "\n\n\n" not in text.split("---", 2)[2].strip()


def test_metadata_of_a_specialist():
    data = ModelCard(str(CARDS["specialist"]())).data
    assert data.base_model == ["openai/clip-vit-base-patch32", "tanganke/clip-vit-base-patch32_mnist"]
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.license == "mit" and data.library_name == "transformers"
    assert data.pipeline_tag == "zero-shot-image-classification"
    (result,) = data.eval_results
    assert result.metric_type == "accuracy" and result.metric_value == 0.785


def test_a_folder_of_this_machine_is_no_base_model():
    card = CARDS["expert_kept"]()
    assert card.data.base_model == ["openai/clip-vit-base-patch32"]
    assert "/home/someone" not in str(card)


def test_a_kept_expert_is_not_called_better():
    text = str(CARDS["expert_kept"]())
    assert "unchanged" in text and "fine-tuned further" not in text and "nothing was measured" in text


def test_user_text_is_escaped():
    bad = "x](http://evil) <script>alert(1)</script> | y\n# heading"
    text = str(specialist_card(bad, {**REFERENCE, "experts": {bad: None}}, [bad, "b"], GATE, FACTS))
    body = text.split("---", 2)[2]
    assert "\\<script\\>" in body and "\n# heading" not in body
    assert not re.search(r"(?<!\\)(<script|\]\(http://evil)", body)


def test_shared_licence(tmp_path):
    sources = []
    for name, licence in (("a", "mit"), ("b", "mit"), ("c", "apache-2.0"), ("d", None)):
        (tmp_path / name).mkdir()
        if licence:
            (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        sources.append(ModelSource(name, "r", tmp_path / name))
    a, b, c, d = sources
    assert shared_licence([a, b, d]) == "mit"
    assert shared_licence([a, c]) == "other"
    assert shared_licence([d]) is None
