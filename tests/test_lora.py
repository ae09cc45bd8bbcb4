"""LoRA adapters as experts, alone and beside fully fine-tuned ones."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from conftest import TASKS, fit_arguments, perturbed, specialize_arguments
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_classifiers import save_pool
from transformers import AutoModelForImageClassification, CLIPModel, CLIPVisionModel, ViTForImageClassification

from hf_mdft import InputError, MetaMerger, ModelPool, Task
from hf_mdft.core.reference import ModelReference
from hf_mdft.heads import build_head
from hf_mdft.pool.names import distinct
from hf_mdft.pool.parity import parity
from hf_mdft.pool.source import ModelSource


@torch.no_grad()
def adapted(model, folder, **options):
    """A trained adapter on a model, and the model with the adapter merged."""
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "fc1"], **options}
    model = get_peft_model(model, LoraConfig(init_lora_weights=False, **options))
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            parameter.mul_(0.03)
        elif parameter.requires_grad and "lora_" not in name:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    model.save_pretrained(folder)
    return model.merge_and_unload().eval()


def vit(paths):
    return ViTForImageClassification.from_pretrained(paths["base"], num_labels=3, ignore_mismatched_sizes=True)


OPTIONS = {
    "lora": {},
    "patterns": {"rank_pattern": {"fc1": 2}, "alpha_pattern": {"v_proj": 3, r"layers\.1\..*fc1": 5}},
    "rslora": {"use_rslora": True},
    "biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tensors_are_those_that_peft_merges(vit_paths, tmp_path, options):
    merged = adapted(vit(vit_paths), tmp_path / "lora", modules_to_save=["classifier"], **options)
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora", "colour": vit_paths["colour"]})
    wanted = merged.vit.state_dict()
    assert pool.tower("shade").state_dict().keys() == wanted.keys()
    for name, tensor in pool.tower("shade").state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)
    base = pool.tower().state_dict()
    for name in pool.vectors().names():
        vector = pool.vectors().stack(name)[0].float()
        torch.testing.assert_close(vector, wanted[name] - base[name], atol=1e-3, rtol=1e-2)
    assert max(parity(pool).values()) < 1e-5
    head = build_head("shade", Task(None), pool)
    torch.testing.assert_close(head.weight, merged.classifier.weight)
    assert head.class_names == ["LABEL_0", "LABEL_1", "LABEL_2"], "an adapter names no classes"
    again = ModelPool.from_reference(pool.reference())
    assert torch.equal(dict(again.weights("shade").items())[name], pool.weights("shade").tensor(name))


def test_classes_may_be_named_beside_an_adapter(vit_paths, tmp_path):
    model = vit(vit_paths)
    model.config.id2label = dict(enumerate(TASKS["shade"]))
    model.config.save_pretrained(tmp_path / "lora")
    adapted(model, tmp_path / "lora", modules_to_save=["classifier"])
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"})
    assert build_head("shade", Task(None), pool).class_names == TASKS["shade"]


def test_both_phases(vit_paths, tmp_path, unlabelled_data, test_data):
    """Mixed with a full expert; the specialist of the adapter is a complete model."""
    adapted(vit(vit_paths), tmp_path / "lora", modules_to_save=["classifier"])
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora", "colour": vit_paths["colour"]})
    tasks = {name: Task(unlabelled_data[name], test_data[name], class_names=TASKS[name]) for name in pool.tasks}
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=2))
    made = merger.specialize(specialize_arguments(tmp_path / "phase2", max_steps=2))["shade"]
    made.save_pretrained(tmp_path / "specialist")
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "specialist").eval()
    assert list(plain.config.id2label.values()) == TASKS["shade"]
    pixels = next(merger.unlabelled("shade").batches(4))
    with torch.no_grad():
        ours = made.head(pool.architecture.features(made.tower()(pixel_values=pixels)))
        torch.testing.assert_close(plain(pixels).logits, ours, atol=1e-5, rtol=1e-4)
    assert not (tmp_path / "specialist" / "adapter_config.json").exists()
    merger.save_pretrained(tmp_path / "meta")
    again = MetaMerger.from_pretrained(tmp_path / "meta").meta_tower().state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in merger.meta_tower().state_dict().items())


@pytest.mark.parametrize("kind", [CLIPModel, CLIPVisionModel])
def test_adapters_of_clip(clip_paths, tmp_path, kind, caplog):
    merged = adapted(kind.from_pretrained(clip_paths["base"]), tmp_path / "lora")
    with caplog.at_level(logging.WARNING):
        pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": tmp_path / "lora"})
    said = [r.message for r in caplog.records if "also changes 'text_model." in r.message]
    assert bool(said) is (kind is CLIPModel)
    wanted = getattr(merged, "vision_model", merged).state_dict()
    for name, tensor in pool.tower("shade").state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)
    assert list(parity(pool)) == ["base", "shade"] and max(parity(pool).values()) < 1e-5


def test_adapters_of_convolutions(tmp_path):
    save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    merged = adapted(model, tmp_path / "lora", target_modules=["convolution"], modules_to_save=["classifier"])
    pool = ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "lora", "b": tmp_path / "b"})
    wanted = merged.state_dict()
    for name, tensor in pool.tower("a").state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)
    assert max(parity(pool).values()) < 1e-4


# What is refused


def edited(folder, change):
    config, tensors = change(
        json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    )
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")


FIRST = "base_model.model.vit.layers.0.attention.q_proj.lora_"
CONVERT = "'hf-mdft pool convert .*lora FOLDER' makes a complete model of it"

FAULTS = {
    "another rank": (lambda c, t: ({**c, "r": 3}, t), "has rank 4 in its file, 3 in adapter_config.json"),
    "no B": (lambda c, t: (c, {k: v for k, v in t.items() if "fc1.lora_B" not in k}), "lacks the other; " + CONVERT),
    "no factors": (lambda c, t: (c, {k: v for k, v in t.items() if "lora_" not in k}), "no LoRA factors in it"),
    "another module": (
        lambda c, t: (c, {k.replace("vit.layers", "vit.blocks"): v for k, v in t.items()}),
        "adapts 'vit.blocks.0.*', which the pool's base does not have",
    ),
    "another shape": (
        lambda c, t: (c, {k: torch.ones(20, 4) if "lora_B" in k else v for k, v in t.items()}),
        "adds a tensor of shape .*20.*, the base has",
    ),
    "a stray tensor": (
        lambda c, t: (c, {**t, "base_model.model.other.weight": torch.ones(2)}), "brings 'other.weight'",
    ),
    "int8": (lambda c, t: (c, {k: v.to(torch.int8) for k, v in t.items()}), "is stored as I8"),
    "bias of the factors": (lambda c, t: ({**c, "lora_bias": True}, t), "a LoRA adapter with lora_bias; " + CONVERT),
    "PiSSA": (lambda c, t: ({**c, "init_lora_weights": "pissa"}, t), "with init_lora_weights: pissa; " + CONVERT),
    "no JSON": (lambda c, t: ([], t), "adapter_config.json cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_plain_lora_is_refused(vit_paths, tmp_path, change, said):
    folder = tmp_path / "lora"
    adapted(vit(vit_paths), folder, modules_to_save=["classifier"])
    edited(folder, change)
    with pytest.raises(InputError, match=said) as error:
        ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_dora_and_other_adapters_are_refused(vit_paths, tmp_path):
    adapted(vit(vit_paths), tmp_path / "lora", use_dora=True, modules_to_save=["classifier"])
    with pytest.raises(InputError, match="lacks the other|is no factor|with use_dora"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"})
    model = get_peft_model(vit(vit_paths), IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    model.save_pretrained(tmp_path / "ia3")
    with pytest.raises(InputError, match="ia3: an adapter of type .*IA3, not LoRA"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "ia3"})


def test_numbers_that_are_none_are_named(vit_paths, tmp_path):
    folder = tmp_path / "lora"
    adapted(vit(vit_paths), folder, modules_to_save=["classifier"])
    edited(folder, lambda c, t: (c, {k: v * torch.nan if k == FIRST + "A.weight" else v for k, v in t.items()}))
    with pytest.raises(InputError, match=f"lora: tensor '{FIRST}A.weight' holds NaN"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": folder}).vectors()


def test_an_adapter_of_another_base_is_refused(vit_paths, tmp_path):
    other = perturbed(vit(vit_paths), 3)
    other.save_pretrained(tmp_path / "other")
    adapted(ViTForImageClassification.from_pretrained(tmp_path / "other"), tmp_path / "lora")
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"})
    with pytest.raises(InputError, match="lora: an adapter of .*other, not of the pool's base"):
        pool.vectors()
    taken = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"}, allow_base_mismatch=True)
    assert taken.vectors().names()


def test_a_base_that_cannot_be_compared_is_told(vit_paths, tmp_path, caplog):
    adapted(vit(vit_paths), tmp_path / "lora", modules_to_save=["classifier"])
    edited(tmp_path / "lora", lambda c, t: ({**c, "base_model_name_or_path": "google/vit-base"}, t))
    with caplog.at_level(logging.WARNING):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"}).vectors()
    assert "trained on 'google/vit-base', which cannot be compared with the pool's base" in caplog.text


def test_a_folder_of_both_is_refused(vit_paths, tmp_path):
    model = vit(vit_paths)
    adapted(model, tmp_path / "both", modules_to_save=["classifier"])
    vit(vit_paths).save_pretrained(tmp_path / "both")
    with pytest.raises(InputError, match="both: holds a model and an adapter"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "both"})


QUERIES = [
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.v_proj.", ".attention.attention.value."),
]
OLD_NAMES = {"vit": [("vit.layers.", "vit.encoder.layer."), *QUERIES], "dinov2": QUERIES}


@pytest.mark.parametrize("kind", OLD_NAMES)
def test_adapters_with_names_of_older_versions(vit_paths, tmp_path, kind, caplog):
    """As most of those on the Hub, whose modules had other names when they were trained."""
    if kind == "vit":
        base, model = vit_paths["base"], vit(vit_paths)
    else:
        save_pool(tmp_path, "dinov2", "Dinov2ForImageClassification")
        base = tmp_path / "base"
        model = AutoModelForImageClassification.from_pretrained(base)
    merged = adapted(model, tmp_path / "lora", target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])

    def older(config, tensors):
        def name(key):
            for new, old in OLD_NAMES[kind]:
                key = key.replace(new, old)
            return key

        return {**config, "target_modules": ["query", "value"]}, {name(key): tensor for key, tensor in tensors.items()}

    edited(tmp_path / "lora", older)
    assert any(".query.lora_A" in key for key in load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    pool = ModelPool.from_pretrained(base, {"shade": tmp_path / "lora"})
    wanted = getattr(merged, "vit", merged).state_dict()
    for name, tensor in pool.tower("shade").state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)
    with caplog.at_level(logging.WARNING):
        assert list(parity(pool)) == ["base"]
    assert "names that peft does not find in the base" in caplog.text


def test_outputs_of_an_adapter_are_not_kept_for_another_base(vit_paths, tmp_path):
    adapted(vit(vit_paths), tmp_path / "lora", modules_to_save=["classifier"])
    shutil.copytree(vit_paths["base"], tmp_path / "base")

    def identity():
        return ModelPool.from_pretrained(tmp_path / "base", {"shade": tmp_path / "lora"}).identity("shade")

    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(tmp_path / "base")}))
    first = identity()
    assert identity() == first
    perturbed(ViTForImageClassification.from_pretrained(tmp_path / "base"), 7, 0.3).save_pretrained(tmp_path / "base")
    assert identity() != first


def test_adapters_that_differ_in_their_config_are_no_copies(tmp_path):
    checksums = {"adapter_model.safetensors": "0" * 64}
    sources = []
    for name, alpha in (("a", 8), ("b", 8), ("c", 16)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        reference = ModelReference(f"lab/{name}", "1" * 40)
        sources.append(ModelSource(reference, tmp_path / name, {"adapter_model.safetensors": 1}, checksums))
    assert distinct("task", sources) == [sources[0], sources[2]]


def test_a_start_that_leaves_the_base_as_it_is(vit_paths, tmp_path):
    """PEFT fills `eva_config` in, which is over once the adapter is trained."""
    adapted(vit(vit_paths), tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_config.json"
    config = json.loads(file.read_text())
    config |= {"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "tau": 0.99}}
    file.write_text(json.dumps(config))
    ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "lora"}, allow_base_mismatch=True)
