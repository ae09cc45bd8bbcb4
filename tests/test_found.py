"""Models as strangers have them: bases of another class, processors that differ in small print, broken heads."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import transformers
from conftest import TASKS, fit_arguments, make_dataset, perturbed, specialize_arguments
from safetensors.torch import load_file, save_file
from test_classifiers import NAMES, save_pool
from test_lora import adapted, edited, vit
from test_pool import resaved
from transformers import (
    AutoModelForImageClassification,
    CLIPImageProcessor,
    CLIPModel,
    ConvNextImageProcessor,
    DeiTForImageClassification,
    EfficientNetImageProcessor,
    MobileViTImageProcessor,
    ViTImageProcessor,
    pipeline,
)

from hf_mdft import InputError, MetaMerger, ModelPool, Task
from hf_mdft.embedding.statistics import _mixed
from hf_mdft.heads import LinearHead, build_head
from hf_mdft.pool.parity import parity
from hf_mdft.specialize.learning_rate import gentle_learning_rate
from hf_mdft.tasks import Preprocessor, read_unlabelled
from hf_mdft.tasks.preprocessor import sample_pictures


# Bases of another class


@pytest.mark.parametrize("kind", ["deit", "levit"])
def test_ordinary_experts_of_a_distilled_base(tmp_path, kind):
    """The base's two classifiers are not the experts' one; only its tower counts."""
    name = {"deit": "DeiTForImageClassification", "levit": "LevitForImageClassification"}[kind]
    save_pool(tmp_path / "with", kind, f"{name}WithTeacher")
    base = tmp_path / "with" / "base"
    for number, expert in enumerate("ab"):
        model = getattr(transformers, name).from_pretrained(base)
        perturbed(model, number).save_pretrained(tmp_path / expert)
        shutil.copy(base / "preprocessor_config.json", tmp_path / expert)
    pool = ModelPool.from_pretrained(base, {expert: tmp_path / expert for expert in "ab"})
    assert list(parity(pool)) == ["base", "a", "b"] and max(parity(pool).values()) < 1e-4


@pytest.mark.parametrize("named", [True, False])
def test_adapters_of_ordinary_classifiers_of_a_distilled_base(tmp_path, named):
    save_pool(tmp_path, "deit", "DeiTForImageClassificationWithTeacher")
    model = DeiTForImageClassification.from_pretrained(tmp_path / "base")
    merged = adapted(model, tmp_path / "lora", target_modules=["q_proj"], modules_to_save=["classifier"])
    if not named:
        edited(tmp_path / "lora", lambda c, t: ({**c, "auto_mapping": None, "task_type": "FEATURE_EXTRACTION"}, t))
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "lora"})
    assert pool.config.architectures == ["DeiTForImageClassification"] and len(parity(pool)) == 2
    assert torch.equal(build_head("a", Task(None), pool).weight, merged.classifier.weight)


def test_adapters_of_a_backbone_are_compared(tmp_path):
    save_pool(tmp_path, "dinov2", "Dinov2ForImageClassification")
    backbone = transformers.Dinov2Model.from_pretrained(tmp_path / "base")
    adapted(backbone, tmp_path / "lora", target_modules=["q_proj"])
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "lora"})
    assert list(parity(pool)) == ["base", "a"] and max(parity(pool).values()) < 1e-5


def test_specialists_have_one_label_whatever_the_base_says(tmp_path):
    pool = save_pool(tmp_path, "swin", "SwinForImageClassification")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({**config, "problem_type": "multi_label_classification"})
    )
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a"})
    pool.save_complete(pool.tower("a").state_dict(), build_head("a", Task(None), pool), tmp_path / "made")
    answers = pipeline("image-classification", str(tmp_path / "made"))(sample_pictures(1)[0])
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-4)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
    with pytest.raises(InputError, match="a: problem_type is regression; give a classifier of one label"):
        ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a"})


def test_a_layer_more_in_the_files_of_a_backbone_is_seen(tmp_path):
    save_pool(tmp_path, "beit", "BeitForImageClassification")
    transformers.BeitModel.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "tower")

    def deeper(tensors):
        key = next(key for key in tensors if "layer.1." in key or "layers.1." in key)
        return {**tensors, key.replace(".1.", ".2."): tensors[key].clone()}

    resaved(tmp_path / "tower", deeper)
    with pytest.raises(InputError, match="is of a layer more than config.json has"):
        ModelPool.from_pretrained(tmp_path / "tower", {"a": tmp_path / "a"})


def test_notes_in_a_config_are_no_function(tmp_path):
    save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    notes = {"padding": "max_length", "max_length": 77, "out_features": ["stage2"]}
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, **notes}))
    assert ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a"}).tasks == ["a"]


def test_a_tower_saved_alone_is_an_expert_with_a_head_of_elsewhere(tmp_path):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    pool.architecture.save_tower(pool.config, pool.tower("a").state_dict(), tmp_path / "tower")
    other = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "tower"})
    assert max(parity(other).values()) < 1e-4
    with pytest.raises(InputError, match="tower: a tower without a classifier, so no linear head of task 'a'; give"):
        build_head("a", Task(None), other)
    head = build_head("a", Task(None), pool)
    head.save(tmp_path / "head.safetensors")
    assert build_head("a", Task(None, head=str(tmp_path / "head.safetensors")), other).key() == head.key()


# Image processors


CROP, CROPPED = {"height": 32, "width": 32}, "what it makes of a picture"


@pytest.mark.parametrize(
    ("kind", "base", "own", "said"),
    [
        (MobileViTImageProcessor, {"crop_size": CROP}, {"crop_size": CROP, "do_flip_channel_order": False}, CROPPED),
        (ConvNextImageProcessor, {}, {"crop_pct": 0.5}, CROPPED),
        (ViTImageProcessor, {"size": CROP}, {"size": {"width": 32, "height": 32}}, None),
    ],
    ids=["channels", "crop", "the same"],
)
def test_processors_are_compared_by_what_they_make(tmp_path, kind, base, own, said):
    for name, options in (("base", base), ("own", own)):
        kind(**{"size": {"shortest_edge": 32}, **options}).save_pretrained(tmp_path / name)
    found = Preprocessor(tmp_path / "own", "own").differences(Preprocessor(tmp_path / "base", "base"))
    assert found == ([said] if said else [])


@pytest.mark.parametrize("options", [{}, {"rescale_offset": True}, {"include_top": False}])
def test_processors_that_scale_in_their_own_way(tmp_path, options):
    """EfficientNet's divide twice, or shift after scaling."""
    EfficientNetImageProcessor(size={"height": 32, "width": 32}, **options).save_pretrained(tmp_path)
    ours = Preprocessor(tmp_path, "efficientnet")
    pictures = sample_pictures()
    wanted = torch.as_tensor(ours.processor(pictures, return_tensors="np")["pixel_values"])
    found = ours.normalize(torch.from_numpy(ours.encode(pictures)))
    torch.testing.assert_close(found, wanted.float(), atol=1e-4, rtol=1e-4)


def test_a_processor_that_keeps_the_shape_of_pictures_is_refused(tmp_path, unlabelled_data):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match="keeps the shape of pictures .*; state height and width"):
        MetaMerger(pool, {"a": Task(unlabelled_data["shade"], class_names=NAMES)})


# Heads


def test_output_layers_are_those_of_the_config(tmp_path):
    save_pool(tmp_path, "resnet", "ResNetForImageClassification")

    def pool_of(change):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        resaved(shutil.copytree(tmp_path / "a", tmp_path / "x"), change)
        return ModelPool.from_pretrained(tmp_path / "base", {"x": tmp_path / "x"})

    with pytest.raises(
        InputError, match=r"x: 'classifier.1.weight' has shape \(4, 32\), for the classes of its config it would be"
    ):
        pool_of(lambda t: {**t, "classifier.1.weight": torch.ones(4, 32)})
    with pytest.raises(InputError, match="x: 'classifier.1.bias' is stored as I8"):
        pool_of(lambda t: {**t, "classifier.1.bias": torch.ones(3, dtype=torch.int8)})
    pool = pool_of(lambda t: {**t, "classifier.1.weight": t["classifier.1.weight"] * torch.nan})
    assert list(parity(pool)) == ["base", "x"], "its embedding is compared"
    with pytest.raises(InputError, match="x: its classifier holds NaN or infinity"):
        build_head("x", Task(None), pool)
    pool = pool_of(lambda t: {k: v for k, v in t.items() if "classifier" not in k})
    assert max(parity(pool).values()) < 1e-4
    with pytest.raises(InputError, match="x: no 'classifier.1.weight' for the linear head of task 'x'; give head"):
        build_head("x", Task(None), pool)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.full((3, 32), torch.nan), "'weight' holds NaN"),
        (torch.ones(3, 31), "reads 31 numbers, the pool's towers give 32"),
    ],
)
def test_heads_in_files_are_looked_at(tmp_path, weight, said):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    LinearHead(NAMES, weight=weight, bias=torch.zeros(3)).save(tmp_path / "head.safetensors")
    with pytest.raises(InputError, match=said):
        build_head("a", Task(None, head=str(tmp_path / "head.safetensors")), pool)


@pytest.mark.parametrize("key", ["logit_scale", "text_model.embeddings.token_embedding.weight"])
def test_numbers_that_are_none_are_named(clip_paths, tmp_path, key):
    base = resaved(
        shutil.copytree(clip_paths["base"], tmp_path / "base"),
        lambda t: {**t, key: torch.full_like(t[key], torch.nan)},
    )
    with pytest.raises(InputError, match=f"base: tensor '{key}' holds NaN or infinity; take another revision"):
        parity(ModelPool.from_pretrained(base, {"shade": clip_paths["shade"]}))


def test_an_experts_own_text_tower_is_told(clip_paths, tmp_path, caplog):
    perturbed(CLIPModel.from_pretrained(clip_paths["base"]), 3, 0.1).save_pretrained(tmp_path / "own")
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": tmp_path / "own"})
    with caplog.at_level(logging.WARNING):
        pool.weights("shade")
    said = [r.getMessage() for r in caplog.records]
    assert any("its 'text_model." in line for line in said) and any(
        "'visual_projection.weight'" in line for line in said
    )


def test_adapters_bring_whole_classifiers(vit_paths, tmp_path, caplog):
    folder = tmp_path / "lora"
    adapted(vit(vit_paths), folder, modules_to_save=["classifier"])
    original = load_file(folder / "adapter_model.safetensors")

    def refused(change):
        save_file(change(dict(original)), folder / "adapter_model.safetensors")
        with pytest.raises(InputError) as error:
            ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})
        return str(error.value)

    bias, weight = (f"base_model.model.classifier.{part}" for part in ("bias", "weight"))
    assert "a classifier without 'classifier.bias'" in refused(lambda t: {k: v for k, v in t.items() if k != bias})
    assert "brings 'classifier.weight' of shape (3, 7)" in refused(lambda t: {**t, weight: torch.ones(3, 7)})
    norm = "base_model.model.vit.layernorm.weight"
    assert "brings 'vit.layernorm.weight' of shape (7,)" in refused(lambda t: {**t, norm: torch.ones(7)})


def test_adapters_with_batch_norm(tmp_path):
    save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    options = {"target_modules": ["convolution"], "modules_to_save": ["classifier", "normalization"]}
    merged = adapted(model, tmp_path / "lora", **options)
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "lora"})
    for name, tensor in pool.tower("a").state_dict().items():
        torch.testing.assert_close(tensor, merged.state_dict()[name], atol=1e-6, rtol=1e-5)


# Running statistics


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300, 1024, 5000])
@pytest.mark.parametrize("tasks", [1, 3])
def test_batches_of_statistics_have_one_size(clip_pool, unlabelled_data, count, tasks):
    preprocessor = Preprocessor(clip_pool.base.folder, "base")
    images = read_unlabelled("shade", Task(unlabelled_data["shade"]), preprocessor)
    many = [images.subset(np.arange(count) % len(images)) for _ in range(tasks)]
    sizes = [len(batch) for batch in _mixed(many)]
    assert len(set(sizes)) == 1 and sizes[0] >= 2 and sum(sizes) <= max(1024, 2 * tasks)
    assert sum(sizes) >= min(0.8 * count * tasks, 800)


@pytest.mark.parametrize("count", [17, 33])
def test_odd_numbers_of_images_with_batch_norm(tmp_path, count):
    """A last batch of one image has no variance."""
    pool = save_pool(tmp_path, "levit", "LevitForImageClassification")
    task = Task(make_dataset("shade", count, 0), make_dataset("shade", 6, 1), class_names=TASKS["shade"])
    merger = MetaMerger(pool, {"a": task})
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=1))
    options = {"max_steps": 5, "per_device_train_batch_size": 16}
    made = merger.specialize(specialize_arguments(tmp_path / "phase2", **options))
    assert made["a"].candidate.is_dir()
    with pytest.raises(InputError, match="images_per_task=1 for one task: BatchNorm needs two images"):
        merger.fit(fit_arguments(tmp_path / "other", max_steps=1, images_per_task=1))


def test_the_learning_rate_follows_weights_not_counts(tmp_path):
    """Numbers of batches differ by thousands and say nothing."""
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    before = gentle_learning_rate(pool, "a")
    resaved(tmp_path / "a", lambda t: {k: v + 9999 if "num_batches" in k else v for k, v in t.items()})
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a", "b": tmp_path / "b"})
    assert gentle_learning_rate(pool, "a") == before


def test_measuring_without_unlabelled_images(tmp_path):
    """Rows of static merges are left out: nothing tells their running statistics."""
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    report = MetaMerger(pool, {"a": Task(None, make_dataset("shade", 6, 1), class_names=TASKS["shade"])}).evaluate()
    assert report.accuracy.keys() >= {"base", "expert"} and "weight_average" not in report.accuracy
