"""What architectures provide: blocks in order, identity of a config, complete models, what cannot be combined."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import TASKS, both_architectures, perturbed
from peft import get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import (
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

import hf_mdft
from hf_mdft import InputError, MdftConfig, ModelPool
from hf_mdft.architectures import ARCHITECTURES, ClipVision, Vit, functional_config, read_config
from hf_mdft.architectures.blocks import depths
from hf_mdft.heads import LinearHead, build_head
from hf_mdft.pool.geometry import geometry
from hf_mdft.tasks import Task


SMALL = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=16
)


# Blocks and their order


@pytest.mark.parametrize(
    ("tower", "blocks", "behind"),
    [
        (CLIPVisionModel(CLIPVisionConfig(**SMALL)), "encoder.layers.{}.", "post_layernorm."),
        (ViTModel(ViTConfig(**SMALL), add_pooling_layer=False), "layers.{}.", "layernorm."),
    ],
    ids=["clip", "vit"],
)
def test_depths_of_plain_transformers(tower, blocks, behind):
    found = depths(tower)
    assert list(found) == [name for name, _ in tower.named_parameters()]
    for name, depth in found.items():
        inside = [number for number in range(3) if name.startswith(blocks.format(number))]
        expected = inside[0] + 1 if inside else -1 if name.startswith(behind) else 0
        assert depth == expected, name
    assert set(found.values()) == {-1, 0, 1, 2, 3}
    assert depths(tower.to("meta")) == found


STAGED = {
    "convnext": (ConvNextModel(ConvNextConfig(hidden_sizes=[8] * 4, depths=[1, 2, 3, 1])), "stages.{}.layers.{}."),
    "convnextv2": (
        ConvNextV2Model(ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 3, 1])), "stages.{}.layers.{}.",
    ),
    "swin": (
        SwinModel(SwinConfig(embed_dim=8, depths=[1, 2, 3, 1], num_heads=[1] * 4, image_size=64, patch_size=2,
                             window_size=2)), "layers.{}.blocks.{}.",
    ),
    "resnet": (
        ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1, 2, 3, 1])), "stages.{}.layers.{}.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_blocks_are_numbered_through_all_stages(name):
    """Stage 0 block 0 is 1; the last block of the last stage is the last number; lists inside a block do not count."""
    tower, pattern = STAGED[name]
    found, number = depths(tower), 0
    for stage, count in enumerate([1, 2, 3, 1]):
        for block in range(count):
            number += 1
            own = {found[key] for key in found if key.startswith(f"encoder.{pattern.format(stage, block)}")}
            assert own == {number}, (stage, block)
    assert max(found.values()) == number == 7
    assert {depth for key, depth in found.items() if key.startswith("embed")} == {0}
    assert {depth for key, depth in found.items() if key.startswith("layernorm")} <= {-1}


@pytest.mark.parametrize(("name", "part", "first"), [("convnext", "downsampling_layer", 1), ("swin", "downsample", 0)])
def test_what_lies_between_blocks_belongs_to_the_next(name, part, first):
    tower, pattern = STAGED[name]
    found = depths(tower)
    between = {key: depth for key, depth in found.items() if f".{part}." in key}
    assert {int(key.split(".")[2]) for key in between} == set(range(first, first + 3))
    for key, depth in between.items():
        stage = int(key.split(".")[2]) + 1 - first  # Swin's stages end with it, ConvNeXt's begin with it
        assert depth == found[next(k for k in found if k.startswith(f"encoder.{pattern.format(stage, 0)}"))]


class Layer(nn.Module):
    """A plain layer with a norm."""

    def __init__(self, size):
        super().__init__()
        self.linear, self.norm = nn.Linear(size, size), nn.LayerNorm(size)


class Block(nn.Module):
    """With two lists of its own, one of them of composite modules."""

    def __init__(self, size=4):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.mixer = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))
        self.experts = nn.ModuleList([Layer(size), Layer(size)])


class Tower(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.stem = nn.Sequential(Layer(4), Layer(4))
        self.blocks = blocks
        self.neck = nn.ModuleList([nn.LayerNorm(4), nn.Linear(4, 4)])


@pytest.mark.parametrize(
    "blocks",
    [
        nn.ModuleList([Block(), Block(), Block()]),
        nn.Sequential(nn.Sequential(Block()), nn.Sequential(Block(), Block())),
        nn.ModuleList([nn.ModuleDict({"blocks": nn.Sequential(Block(), Block(), Block())})]),
    ],
    ids=["flat", "lists of lists", "one stage"],
)
def test_lists_that_are_no_blocks(blocks):
    """In the stem, behind the blocks and inside them."""
    found = depths(Tower(blocks))
    assert {name.split(".")[0]: depth for name, depth in found.items() if not name.startswith("blocks")} == {
        "token": 0, "stem": 0, "neck": -1,
    }  # fmt: skip
    inside = [depth for name, depth in found.items() if name.startswith("blocks")]
    size = len(list(Block().parameters()))
    assert inside == [1] * size + [2] * size + [3] * size


def test_a_tower_without_blocks_has_no_depth():
    assert set(depths(Layer(4)).values()) == {0}


# What else a kind of model is known for


@both_architectures
def test_tokens_are_those_that_the_tower_computes(pool, pixels):
    config = pool.architecture.tower_config(pool.config)
    shape = (3, config.image_size, config.image_size)
    outputs = pool.tower()(pixel_values=pixels)
    assert pool.architecture.tokens_per_image(pool.config, shape) == outputs.last_hidden_state.shape[1]


@both_architectures
def test_the_loader_loads_a_complete_model(pool, tmp_path):
    head = None if not pool.architecture.own_heads else build_head("shade", Task(unlabelled=None), pool)
    pool.save_complete(pool.tower("shade").state_dict(), head, tmp_path)
    model = getattr(transformers, pool.architecture.loader(pool.config)).from_pretrained(tmp_path)
    assert type(model) is {"clip": CLIPModel, "vit": ViTModel}[pool.architecture.name]
    _, tower = pool.architecture.find_tower(model)
    for name, tensor in pool.tower("shade").state_dict().items():
        assert torch.equal(tower.state_dict()[name], tensor)


def test_a_clip_tower_alone_has_no_text(clip_paths):
    config = read_config(clip_paths["shade"], "shade")
    assert ClipVision().loader(config) == "CLIPVisionModel" and not ClipVision().has_text_tower(config)
    with pytest.raises(
        InputError, match=r"task 'x': a zero-shot head needs a base with a text tower \(CLIPModel, SiglipModel\)"
    ):
        ClipVision().text_embeddings(clip_paths["shade"], ["a"], ["{}"], "task 'x'")


def test_complete_models_take_any_head_that_is_linear(vit_pool, pixels, tmp_path):
    """Neither its kind nor its tensors matter."""

    class Scaled(LinearHead):
        def linear(self):
            return 2 * self.weight, 2 * self.bias

    class Curved(LinearHead):
        def linear(self):
            return None

    tensors = {"weight": torch.randn(3, 16), "bias": torch.randn(3)}
    state = vit_pool.tower("shade").state_dict()
    vit_pool.save_complete(state, Scaled(TASKS["shade"], **tensors), tmp_path)
    model = ViTForImageClassification.from_pretrained(tmp_path).eval()
    assert list(model.config.id2label.values()) == TASKS["shade"]
    features = vit_pool.architecture.features(vit_pool.tower("shade")(pixel_values=pixels))
    expected = nn.functional.linear(features, 2 * tensors["weight"], 2 * tensors["bias"])
    torch.testing.assert_close(model(pixels).logits, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"needs a linear head, this task's is none; give head: FILE.safetensors"):
        vit_pool.save_complete(state, Curved(TASKS["shade"], **tensors), tmp_path)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"_name_or_path": "elsewhere", "transformers_version": "4.0", "torch_dtype": "float16"}, True),
        ({"id2label": {"0": "cat"}, "label2id": {"cat": 0}, "architectures": ["Other"], "dtype": "float32"}, True),
        ({"vision_config": {"hidden_act": "quick_gelu", "_commit_hash": "x", "dtype": "float16"}}, True),
        ({"vision_config": {"hidden_act": "gelu"}}, False),
        ({"layers": [{"act": "relu"}]}, False),
        ({"layers": [{"act": "gelu", "_name_or_path": "elsewhere"}]}, True),
        ({"layer_norm_eps": 1e-6}, False),
        ({"model_type": "clip_vision_model"}, False),
    ],
)
def test_functional_config(tmp_path, change, same):
    config = {
        "model_type": "clip", "layer_norm_eps": 1e-5, "vision_config": {"hidden_act": "quick_gelu"},
        "layers": [{"act": "gelu"}], "dtype": "bfloat16",
    }  # fmt: skip
    for name, content in (("a", config), ("b", {**config, **change})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content), encoding="utf-8")
    found = functional_config(tmp_path / "a")
    assert found == {key: value for key, value in config.items() if key != "dtype"}
    assert (functional_config(tmp_path / "b") == found) is same


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_functional_config_of_what_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    assert functional_config(tmp_path) == {}


# What cannot be combined, and what need not be


@pytest.fixture
def registered():
    """Registers architectures for one test."""
    names = []

    def register(name, part):
        names.append(name)
        return ARCHITECTURES.register(name)(part)

    yield register
    for name in names:
        del ARCHITECTURES._parts[name]


class CountedVit(ViTModel):
    """Keeps a whole number beside its parameters."""

    def __init__(self, config, add_pooling_layer=False):
        super().__init__(config, add_pooling_layer=False)
        self.register_buffer("steps", torch.tensor(2**24 + 1))


def test_whole_numbers_stay_out_of_task_vectors(registered, tmp_path):
    class Counted(Vit):
        tower_class = CountedVit

        def new_tower(self, config):
            return CountedVit(config)

    registered("counted", Counted)  # found before "vit"
    for number, name in enumerate(("base", "shade")):
        torch.manual_seed(0)
        tower = perturbed(CountedVit(ViTConfig(**SMALL)), number)
        tower.steps += 2 * number
        tower.save_pretrained(tmp_path / name)
    pool = ModelPool.from_pretrained(tmp_path / "base", {"shade": tmp_path / "shade"})
    assert isinstance(pool.architecture, Counted)
    assert set(pool.vectors().names()) == {name for name, _ in CountedVit(pool.config).named_parameters()}
    assert pool.tower("shade").steps == 2**24 + 3 and pool.tower().steps == 2**24 + 1
    assert geometry(pool).norms[0] < 1
    adapted = get_peft_model(pool.tower(), MdftConfig(pool=pool.reference(), init_coefficient=1.0))
    folded = adapted.merge_and_unload().state_dict()
    assert folded.pop("steps") == 2**24 + 1, "the base's: nothing is added to it"
    expert = pool.tower("shade").state_dict()
    assert all(torch.allclose(tensor, expert[name], atol=1e-3) for name, tensor in folded.items())
    pool.architecture.save_tower(pool.config, pool.tower("shade").state_dict(), tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors")["steps"] == 2**24 + 3


# Model classes, config keys and tensor names stay in this room


MAY_NAME_MODELS = {"architectures", "convert", "teachers", "bench", "demo"}
CONFIG_KEYS = {"model_type", "hidden_size", "patch_size", "num_hidden_layers", "vision_config", "id2label", "label2id"}


def test_only_architectures_name_models():
    root, wrong = Path(hf_mdft.__file__).parent, []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] in MAY_NAME_MODELS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("transformers"):
                models = [a.name for a in node.names if a.name.endswith(("Model", "Config", "Classification"))]
                wrong += [f"{relative} imports {name}" for name in models if not name.startswith("PreTrained")]
            if isinstance(node, ast.Attribute) and node.attr in CONFIG_KEYS:
                wrong.append(f"{relative}:{node.lineno} reads {node.attr}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("classifier."):
                wrong.append(f"{relative}:{node.lineno} names {node.value}")
    assert not wrong, wrong
