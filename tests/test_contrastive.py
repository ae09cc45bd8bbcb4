"""SigLIP and MetaCLIP 2 with their text towers: heads, both phases, specialists in transformers' pipeline."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS, fit_arguments, specialize_arguments
from transformers import AutoModel, pipeline

from hf_mdft import MetaMerger, Task
from hf_mdft.heads import build_head, load_head
from hf_mdft.pool.parity import parity


TEMPLATES = ["this is {}."]


@pytest.fixture(params=["siglip", "metaclip_2"])
def pool(request):
    return request.getfixturevalue(f"{request.param}_pool")


def test_parity_of_images_and_texts(pool):
    assert max(parity(pool).values()) < 1e-5


@torch.no_grad()
def test_heads_are_those_of_the_complete_model(pool, pixels, tmp_path):
    head = build_head("shade", Task(None, class_names=TASKS["shade"], templates=TEMPLATES), pool)
    texts = [TEMPLATES[0].replace("{}", name) for name in TASKS["shade"]]
    plain = pool.architecture.plain_similarities(pool.base.folder, texts, pixels)
    found = head(pool.architecture.features(pool.tower()(pixel_values=pixels)))
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    assert head.name == ("zero_shot_sigmoid" if pool.architecture.name == "siglip" else "zero_shot")
    head.save(tmp_path / "head.safetensors")
    assert load_head(tmp_path / "head.safetensors").key() == head.key()


def test_specialists_run_in_the_zero_shot_pipeline(pool, unlabelled_data, test_data, tmp_path):
    task = Task(unlabelled_data["shade"], test_data["shade"], templates=TEMPLATES)
    merger = MetaMerger(pool, {"shade": task})
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=2))
    made = merger.specialize(specialize_arguments(tmp_path / "phase2", max_steps=2))["shade"]
    made.save_pretrained(tmp_path / "specialist")
    assert type(AutoModel.from_pretrained(tmp_path / "specialist")) is pool.architecture.model_class
    classify = pipeline("zero-shot-image-classification", str(tmp_path / "specialist"))
    data = test_data["shade"].select(range(6))
    found = classify(list(data["image"]), candidate_labels=TASKS["shade"], hypothesis_template=TEMPLATES[0])
    images = merger.labelled("shade").images.subset(range(6))
    features = pool.architecture.features(made.tower()(pixel_values=next(images.batches(6))))
    ours = made.head(features).argmax(dim=-1).tolist()
    assert [answer[0]["label"] for answer in found] == [TASKS["shade"][label] for label in ours]
    assert "specialist" in merger.evaluate().accuracy
