"""Model cards: they parse, say what is true, and equal the golden ones in `model_cards/`.

After a wanted change: `UPDATE_CARDS=1 pytest tests/test_cards.py`, and read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hf_mdft.cards.cards import eval_results, meta_card, pool_card, specialist_card
from huggingface_hub import ModelCard

from hf_mdft.cards import cards
from hf_mdft.cards.licenses import ORDER, combined_license


PIPELINES = ("zero-shot-image-classification", "image-classification", "image-feature-extraction")
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
    "chosen": "specialist", "agreement_gain": 0.0172, "standard_error": 0.0026, "changed": 0.089, "images": 4000,
    "reason": "judges prefer the specialist by 1.72 +- 0.26 points",
}  # fmt: skip
KEPT = {**GATE, "chosen": "expert", "reason": "no improvement shown: the judges' lead is 0.02 +- 0.26 points"}
RECIPE = {
    "pool": {
        "base": "openai/clip-vit-base-patch32@3d74acf",
        "experts": {"mnist": "tanganke/x@b", "own": "/home/someone/own"},
    },
    "tasks": {"mnist": {"unlabelled": {"path": "parquet", "data_files": "/home/someone/secret/mnist.parquet"}}},
    "meta": {"max_steps": 300, "learning_rate": 0.01},
    "seed": 0,
}
DIGITS = [f"digit {i}" for i in range(10)]
SPECIALIST = {
    "pool": REFERENCE, "gate": GATE, "class_names": DIGITS, "recipe": RECIPE,
    "template": 'a photo of the number: "{}".',
    "accuracy": {"base": 0.482, "expert": 0.731, "meta": 0.616, "specialist_ungated": 0.785, "specialist": 0.785},
    "images": 1000, "overlap": 0.0, "p_value": 1.1e-9, "difference": 0.054, "license": "mit",
    "license_problems": ["no license stated, ask the owner before you publish what is made from it: tanganke/x"],
    "evaluation": {"path": "ylecun/mnist", "split": "test"}, "unlabelled": {"path": "ylecun/mnist", "split": "train[:4000]"},
    "pipeline_tag": "zero-shot-image-classification", "features": "pooler_output",
    "figures": {"Merging coefficients of the meta-model": "figures/coefficients.png"},
}  # fmt: skip
OWN = {
    "pool": REFERENCE, "gate": KEPT, "class_names": ["a", "b"], "pipeline_tag": "image-classification",
    "unlabelled": {"path": "parquet", "data_files": "/home/someone/secret/own.parquet"},
}  # fmt: skip
META = {
    "pool": REFERENCE, "adapter": {"granularity": "tensor", "transform": {"name": "identity"}}, "license": "mit",
    "tasks": ["mnist", "own"], "recipe": RECIPE, "pipeline_tag": "zero-shot-image-classification",
    "accuracy": {
        "base": {"mnist": 0.48, "own": 0.5, "average": 0.49}, "expert": {"mnist": 0.9},
        "meta": {"mnist": 0.7, "own": 0.6, "average": 0.65}, "specialist_ungated": {"mnist": 0.9}, "specialist": {"mnist": 0.9},
    },
    "images": {"mnist": 1000, "own": 200}, "overlap": {"mnist": 0.0, "own": 1.0},
    "evaluations": {"mnist": {"path": "ylecun/mnist", "split": "test"}, "own": "200 images in memory"},
    "datasets": {"mnist": {"path": "ylecun/mnist", "split": "train"}, "own": None},
    "kept": {"mnist": {"distillation": 0.9, "entropy": 0.4}, "own": {"entropy": 0.5}},
}  # fmt: skip
POOL_TASKS = {
    "mnist": {"class_names": DIGITS, "templates": "mnist", "unlabelled": {"path": "ylecun/mnist"}},
    "own": {},
}
PUBLIC = {**REFERENCE, "experts": {"mnist": REFERENCE["experts"]["mnist"], "none": None}, "tasks": ["mnist", "none"]}

CARDS = {
    "specialist": lambda: specialist_card("mnist", SPECIALIST),
    "specialist_vision_only": lambda: specialist_card("mnist", {**SPECIALIST, "vision_only": True}),
    "expert_kept": lambda: specialist_card("own", OWN),
    "meta_model": lambda: meta_card(META),
    "meta_model_folded": lambda: meta_card({**META, "folded": True}),
    "pool": lambda: pool_card(PUBLIC, POOL_TASKS, ("mit", ["no license stated: a/b"])),
}


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
    assert data.license == "mit" and data.library_name == "transformers" and data.datasets == ["ylecun/mnist"]
    assert data.pipeline_tag == "zero-shot-image-classification"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.785)
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert "| **this model** | 78.5 % |" in str(CARDS["specialist"]()) and "refused" not in str(CARDS["specialist"]())


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_what_the_hub_takes(name):
    card = ModelCard(str(CARDS[name]()))
    data = card.data.to_dict()
    assert data["license"] in ORDER if "license" in data else name == "expert_kept"
    assert data["library_name"] in ("transformers", "peft", "hf_mdft") and "mdft" in data["tags"]
    assert data.get("base_model_relation") in (None, "finetune", "adapter", "merge")
    assert data.get("pipeline_tag", "image-classification") in PIPELINES
    assert len(re.findall(r"^```", card.text, re.MULTILINE)) % 2 == 0, "code blocks are closed"
    assert not re.search(r"Undefined|\bNone\b|\{\{|\{%", card.text)
    for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        compile(block, name, "exec")
    for block in re.findall(r"```yaml\n(.*?)```", card.text, re.DOTALL):
        assert "pool" in yaml.safe_load(block)


def test_a_meta_models_results_and_relations():
    adapter, folded = (ModelCard(str(CARDS[name]())).data for name in ("meta_model", "meta_model_folded"))
    assert adapter.to_dict()["base_model_relation"] == "adapter" and folded.to_dict()["base_model_relation"] == "merge"
    assert adapter.base_model[0] == "openai/clip-vit-base-patch32" and len(adapter.base_model) == 2
    assert {result.dataset_name: result.metric_value for result in adapter.eval_results} == {"mnist": 0.7, "own": 0.6}
    assert folded.pipeline_tag == "zero-shot-image-classification" and adapter.pipeline_tag is None


def test_a_task_without_an_expert_is_made_of_all():
    card = specialist_card("none", {**SPECIALIST, "class_names": ["a", "b"]})
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert card.data.base_model == ["openai/clip-vit-base-patch32", "tanganke/clip-vit-base-patch32_mnist"]


def test_nothing_of_this_machine_is_told():
    for make in CARDS.values():
        assert "someone" not in str(make()) and "secret" not in str(make())
    assert CARDS["expert_kept"]().data.base_model == ["openai/clip-vit-base-patch32"]


def test_a_kept_expert_is_not_called_better():
    text = str(CARDS["expert_kept"]())
    assert "unchanged" in text and "fine-tuned further" not in text and "nothing was measured" in text
    assert "No labels were used" in text
    refused = {**SPECIALIST, "gate": KEPT, "accuracy": {**SPECIALIST["accuracy"], "specialist": 0.731}}
    text = str(specialist_card("mnist", refused))
    assert "| candidate that the gate refused | 78.5 % |" in text and "| **this model** | 73.1 % |" in text
    assert "Refused candidate against expert" in text


def test_user_text_is_escaped():
    bad = "x](http://evil) <script>alert(1)</script> | y\n# heading ```"
    facts = {
        **SPECIALIST, "pool": {**REFERENCE, "experts": {bad: None}}, "class_names": [bad, "b"], "template": bad + "{}",
        "recipe": {"tasks": {bad: {"class_names": [bad]}}}, "license_problems": [bad], "unlabelled": {"path": bad},
    }  # fmt: skip
    for text in (
        str(specialist_card(bad, facts)),
        str(
            meta_card(
                {**META, "pool": facts["pool"], "tasks": [bad], "evaluations": {bad: bad}, "recipe": facts["recipe"]}
            )
        ),
        str(
            pool_card(
                {**PUBLIC, "experts": {bad: None}}, {bad: {"class_names": [bad], "templates": [bad]}}, ("mit", [bad])
            )
        ),
    ):
        body = re.sub(r"^```(python|yaml)\n.*?^```$", "", text.split("---", 2)[2], flags=re.DOTALL | re.MULTILINE)
        assert "\\<script\\>" in body and "\n# heading" not in body
        assert not re.search(r"(?<!\\)(<script|\]\(http://evil)", body)
        assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0
        assert ModelCard(text).data.tags


def test_results_in_the_hubs_own_format():
    text = eval_results({"mnist": (0.78549, {"path": "ylecun/mnist", "split": "test"}), "own": (0.5, None)}, "how")
    assert yaml.safe_load(text) == [
        {"dataset": {"id": "ylecun/mnist", "task_id": "default"}, "value": 0.7855, "notes": "how"}
    ]
    assert eval_results({"own": (0.5, {"path": "parquet", "data_files": "x"})}, "how") is None


@pytest.mark.parametrize(
    ("stated", "license", "problem"),
    [
        ({"a": "mit", "b": "mit"}, "mit", None),
        ({"a": "mit", "b": "apache-2.0"}, "apache-2.0", None),
        ({"a": "mit", "b": "cc-by-nc-4.0"}, "cc-by-nc-4.0", None),
        ({"a": "gpl-3.0", "b": "apache-2.0"}, "gpl-3.0", None),
        ({"a": "cc-by-nc-sa-4.0", "b": "cc-by-nc-4.0"}, "cc-by-nc-sa-4.0", None),
        ({"a": "gpl-3.0", "b": "cc-by-nc-4.0"}, "cc-by-nc-4.0", "a (gpl-3.0) and b (cc-by-nc-4.0) set terms"),
        ({"a": "cc-by-sa-4.0", "b": "gpl-3.0"}, "gpl-3.0", "set terms that exclude each other"),
        ({"a": "mit", "b": "cc-by-nc-nd-4.0"}, "cc-by-nc-nd-4.0", "b (cc-by-nc-nd-4.0) forbids sharing derivatives"),
        ({"a": "mit", "b": "llama3"}, "other", "license 'llama3' cannot be compared, read its terms: b"),
        ({"a": "mit", "b": None}, "mit", "before you publish what is made from it: b"),
        ({"a": None}, None, "before you publish what is made from it: a"),
    ],
)
def test_licenses(stated, license, problem):
    found, problems = combined_license(list(stated.items()))
    assert found == license
    assert any(problem in line for line in problems) if problem else not problems


def test_models_of_one_name_are_two():
    assert combined_license([("checkpoint", "gpl-3.0"), ("checkpoint", "mit")])[0] == "gpl-3.0"
