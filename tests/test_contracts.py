"""Every registered part keeps its promises."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TASKS
from transformers import AutoConfig

from hf_mdft.architectures import ARCHITECTURES, architecture_of
from hf_mdft.errors import InputError
from hf_mdft.heads import HEADS, load_head
from hf_mdft.objectives import FILTERS
from hf_mdft.registry import Registry
from hf_mdft.transforms import TRANSFORMS


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_transform(name):
    transform = TRANSFORMS.build(name)
    spec = json.loads(json.dumps({"name": name, **dataclasses.asdict(transform)}))
    assert TRANSFORMS.build(spec) == transform
    assert transform.__doc__ and "huggingface.co/papers" in transform.__doc__
    generator = torch.Generator().manual_seed(0)
    for shape in [(4,), (4, 6), (3, 2, 2, 2)]:
        vectors = torch.randn(3, *shape, generator=generator)
        before = vectors.clone()
        result = transform("tensor", vectors)
        assert result.shape == vectors.shape and result.dtype == vectors.dtype
        assert torch.isfinite(result).all()
        assert torch.equal(vectors, before), "the input was changed"
        assert torch.equal(result, transform("tensor", vectors)), "not deterministic"
    assert torch.equal(transform("zero", torch.zeros(3, 4)), torch.zeros(3, 4))


def test_trim_and_ties_equal_their_definitions():
    vectors = torch.tensor([[4.0, -1.0, 0.5, 2.0], [3.0, 5.0, -0.1, -6.0]])
    trimmed = TRANSFORMS.build({"name": "trim", "density": 0.5})("t", vectors)
    assert trimmed.tolist() == [[4, 0, 0, 2], [0, 5, 0, -6]]
    ties = TRANSFORMS.build({"name": "ties", "density": 0.5})("t", vectors)
    # Elected signs: +, +, (none), -; one expert agrees on each, so coefficients 1/2 give the disjoint mean.
    assert (ties.sum(0) / 2).tolist() == [4, 5, 0, -6]


@pytest.mark.parametrize("name", FILTERS.names())
def test_filter(name):
    sample_filter = FILTERS.build({"name": name, "num_classes": 5})
    logits = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = sample_filter(3 * logits)
    assert weights.shape == (16,) and not weights.requires_grad
    assert (weights >= 0).all() and (weights <= 1).all()
    twin = FILTERS.build({"name": name, "num_classes": 5})
    twin.load_state_dict(sample_filter.state_dict())
    assert torch.equal(twin(logits), sample_filter(logits)), "the memory is not in the state"


@pytest.mark.parametrize("name", HEADS.names())
def test_head(name, tmp_path):
    kind = HEADS.get(name)
    shapes = {"class_embeddings": (3, 4), "projection": (4, 6), "logit_scale": (), "weight": (3, 6), "bias": (3,)}
    head = kind(["a", "b", "c"], **{tensor: torch.randn(shapes[tensor]) for tensor in kind.tensor_names})
    features = torch.randn(5, 6)
    assert head(features).shape == (5, 3)
    assert not any(p.requires_grad for p in head.parameters())
    head.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    assert type(again) is kind and again.class_names == ["a", "b", "c"] and again.key() == head.key()
    assert torch.equal(again(features), head(features))
    with pytest.raises(InputError, match="class names"):
        kind(["a"], **{tensor: torch.randn(shapes[tensor]) for tensor in kind.tensor_names})


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_architecture(name, request, pixels):
    pool = request.getfixturevalue(f"{name}_pool")
    part = ARCHITECTURES.get(name)()
    assert type(architecture_of(AutoConfig.from_pretrained(pool.base.folder), "base")) is type(part)
    tower = pool.tower()
    assert part.features(tower(pixel_values=pixels)).shape == (3, 16)
    depths = {parameter: part.depth(parameter) for parameter, _ in tower.named_parameters()}
    blocks = tower.config.num_hidden_layers
    assert set(depths.values()) == {-1, *range(blocks + 1)}
    assert all(depth == 0 for parameter, depth in depths.items() if parameter.startswith("embeddings"))
    name, found = part.find_tower(tower)
    assert name == "" and found is tower
    assert set(pool.experts) == set(TASKS)


def test_registry_suggests():
    registry: Registry = Registry("colour")
    registry.register("green")(type("Green", (), {}))
    with pytest.raises(InputError, match="unknown colour 'gren': did you mean 'green'"):
        registry.get("gren")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("green")(type("Green", (), {}))
    with pytest.raises(InputError, match="has no 'name'"):
        registry.build({"shade": 1})
