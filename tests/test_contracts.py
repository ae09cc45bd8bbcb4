"""Every registered part keeps its promises."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import pytest
import torch
from conftest import TASKS
from transformers import AutoConfig

from hf_mdft.architectures import ARCHITECTURES, architecture_of
from hf_mdft.core.errors import InputError, suggest
from hf_mdft.core.registry import Registry
from hf_mdft.heads import HEADS, load_head
from hf_mdft.objectives import FILTERS
from hf_mdft.transforms import TRANSFORMS


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_transform(name):
    transform = TRANSFORMS.build(name)
    spec = json.loads(json.dumps({"name": name, **dataclasses.asdict(transform)}))
    assert TRANSFORMS.build(spec) == transform
    assert "version" in vars(TRANSFORMS.get(name)), "the version stands beside the code"
    key = json.loads(json.dumps(transform.key()))
    assert key == TRANSFORMS.build(spec).key() and key[0] == name and set(key[2]) == set(spec) - {"name"}
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
    sparse = TRANSFORMS.build({"name": "trim", "density": 0.02})
    assert sparse("t", vectors).tolist() == [[4, 0, 0, 0], [0, 0, 0, -6]], "one at least, as over the whole model"
    assert sparse("t", torch.ones(2, 49)).sum() == 2 and sparse("t", torch.ones(2)).sum() == 2
    # Elected signs: +, +, (none), -; one expert agrees on each, so coefficients 1/2 give the disjoint mean.
    assert (ties.sum(0) / 2).tolist() == [4, 5, 0, -6]


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.99])
def test_trim_over_the_whole_model_keeps_exactly_the_largest(density):
    generator = torch.Generator().manual_seed(3)
    sizes = {"a": 1.0, "b": 0.01, "c": 30.0}
    tensors = {name: size * torch.randn(2, 17, 9, generator=generator) for name, size in sizes.items()}
    trim = TRANSFORMS.build({"name": "trim", "density": density, "scope": "model"})
    trim.fit(lambda: iter(tensors.items()), {})
    kept = torch.cat([trim(name, stack).flatten(1) for name, stack in tensors.items()], dim=1)
    whole = torch.cat([stack.flatten(1) for stack in tensors.values()], dim=1)
    for expert in range(2):
        count = int(density * whole.shape[1])
        expected = torch.zeros_like(whole[expert])
        largest = whole[expert].abs().topk(count).indices
        expected[largest] = whole[expert][largest]
        assert torch.equal(kept[expert], expected)


def test_ties_as_a_sum_keeps_what_agrees():
    vectors = torch.tensor([[4.0, -1.0, 0.5, 2.0], [3.0, 5.0, -0.1, -6.0]])
    ties = TRANSFORMS.build({"name": "ties", "density": 1.0, "disjoint_mean": False})("t", vectors)
    assert ties.tolist() == [[4, 0, 0.5, 0], [3, 5, 0, -6]]


def test_lines_grows_with_depth_and_scales_another_transform(clip_pool):
    plain, scaled = clip_pool.vectors("sign"), clip_pool.vectors({"name": "lines", "deep": 2.0, "of": "sign"})
    depths, factors = clip_pool.depths(), {}
    last = 1 + max(depths.values())
    for name in plain.names():
        depth = depths[name]
        factors[name] = 0.5 + 1.5 * (last if depth < 0 else depth) / last
        torch.testing.assert_close(scaled.stack(name), factors[name] * plain.stack(name))
    assert min(factors.values()) == 0.5 and max(factors.values()) == 2.0 and len(set(factors.values())) > 3


def test_the_key_of_a_transform_is_complete():
    """One key for every spelling of the same options, another one for other options or another version."""

    def key(spec):
        return TRANSFORMS.build(spec).key()

    for same in ({"name": "trim"}, {"name": "trim", "density": 0.2}, {"scope": "tensor", "name": "trim"}):
        assert key(same) == key("trim")
    assert json.dumps(key({"name": "trim", "density": 1})) == json.dumps(key({"name": "trim", "density": 1.0}))
    nested = {"name": "lines", "of": {"name": "trim", "density": 0.2}}
    assert key({"name": "lines", "of": "trim"}) == key(nested) == key({**nested, "shallow": 0.5})
    specs = ["trim", {"name": "trim", "density": 0.3}, {"name": "trim", "scope": "model"}, "ties", "lines", nested]
    assert len({json.dumps(key(spec)) for spec in specs}) == len(specs)


def test_the_version_of_a_transform_is_that_of_all_its_code(monkeypatch):
    specs = {"sign": "sign", "trim": "trim", "ties": "ties", "lines of ties": {"name": "lines", "of": "ties"}}
    before = {name: TRANSFORMS.build(spec).key() for name, spec in specs.items()}
    monkeypatch.setattr(TRANSFORMS.get("trim"), "version", 99)
    assert [name for name, spec in specs.items() if TRANSFORMS.build(spec).key() != before[name]] == list(specs)[1:]


def matrices(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tsv_reference(vectors):
    """TSV-M in plain loops."""
    count, columns = len(vectors), []
    for matrix in vectors:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        columns += [(u[:, i], s[i], v[i]) for i in range(len(s) // count)]
    u, s, v = (torch.stack(list(part)) for part in zip(*columns, strict=True))
    (p, _, q), (a, _, b) = (torch.linalg.svd(part, full_matrices=False) for part in (u.T, v))
    return p @ q @ torch.diag(s) @ a @ b


def iso_c_reference(vectors):
    u, s, v = torch.linalg.svd(sum(vectors), full_matrices=False)
    return u @ torch.diag(torch.full_like(s, s.mean())) @ v


def iso_cts_reference(vectors, common=Fraction(8, 10)):
    """Iso-CTS in plain loops; a share of 30 that is a whole number is that number."""
    u, s, v = torch.linalg.svd(sum(vectors), full_matrices=False)
    own = int((1 - common) * len(s)) // len(vectors)
    rank = len(s) - own * len(vectors)
    lefts, values, rights = [u[:, :rank]], [s[:rank]], [v[:rank]]
    for matrix in vectors:
        a, b, c = torch.linalg.svd(matrix - u[:, :rank] @ u[:, :rank].T @ matrix, full_matrices=False)
        lefts, values, rights = [*lefts, a[:, :own]], [*values, b[:own]], [*rights, c[:own]]
    (p, _, q), (a, _, b) = (
        torch.linalg.svd(torch.cat(x, dim=d), full_matrices=False) for x, d in ((lefts, 1), (rights, 0))
    )
    return torch.cat(values).mean() * (p @ q) @ (a @ b)


@pytest.mark.parametrize(
    ("name", "reference"), [("tsv", tsv_reference), ("iso_c", iso_c_reference), ("iso_cts", iso_cts_reference)]
)
def test_spectral_transforms_sum_to_the_papers_merge(name, reference):
    """At coefficients of 1/K; vectors are averaged."""
    transform = TRANSFORMS.build(name)
    for shape in [(3, 40, 30), (3, 30, 40)]:
        vectors = matrices(*shape)
        torch.testing.assert_close(transform("t", vectors).mean(dim=0), reference(vectors))
    kernel = matrices(3, 40, 2, 3, 5)
    torch.testing.assert_close(transform("t", kernel).mean(dim=0).flatten(1), reference(kernel.flatten(2)))
    assert torch.equal(transform("t", matrices(3, 7)), matrices(3, 7))


def test_iso_cts_has_directions_of_its_own():
    vectors = matrices(3, 40, 30)
    own = TRANSFORMS.build("iso_cts")("t", vectors).mean(dim=0)
    assert (own - TRANSFORMS.build("iso_c")("t", vectors).mean(dim=0)).abs().max() > 0.01


def test_low_rank_is_the_truncated_decomposition():
    vectors = matrices(2, 16, 24)
    kept = TRANSFORMS.build({"name": "low_rank", "share": 0.25})("t", vectors)
    for matrix, found in zip(vectors, kept, strict=True):
        assert torch.linalg.matrix_rank(found) == 4
        values = torch.linalg.svdvals(matrix)
        torch.testing.assert_close((matrix - found).norm(), values[4:].norm())
    assert torch.allclose(TRANSFORMS.build({"name": "low_rank", "share": 1})("t", vectors), vectors)


def test_dare_keeps_the_expectation_and_its_seed():
    vectors = torch.ones(2, 400, 400)
    dare = TRANSFORMS.build({"name": "dare", "density": 0.25})
    found = dare("t", vectors)
    assert set(found.unique().tolist()) == {0.0, 4.0} and abs(found.mean().item() - 1) < 0.02
    assert not torch.equal(found[0], found[1]) and not torch.equal(found, dare("other", vectors))
    assert not torch.equal(found, TRANSFORMS.build({"name": "dare", "density": 0.25, "seed": 1})("t", vectors))
    state = torch.get_rng_state()
    dare("t", vectors)
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"


def test_sign_and_quantize_equal_their_definitions():
    vectors = torch.tensor([[4.0, -1.0, 0.0, 3.0]])
    assert TRANSFORMS.build("sign")("t", vectors).tolist() == [[2, -2, 0, 2]]
    assert TRANSFORMS.build({"name": "quantize", "bits": 2})("t", vectors).tolist() == [[4, 0, 0, 4]]
    noisy = matrices(2, 50, 50)
    errors = [(TRANSFORMS.build({"name": "quantize", "bits": b})("t", noisy) - noisy).abs().max() for b in (3, 5, 8)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    largest = noisy.flatten(1).abs().amax(dim=1)
    assert errors[1] <= (largest / 15 / 2).max() + 1e-9


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
    shapes["logit_bias"] = ()
    head = kind(["a", "b", "c"], **{tensor: torch.randn(shapes[tensor]) for tensor in kind.tensor_names})
    features = torch.randn(5, 6)
    assert head(features).shape == (5, 3)
    assert not any(p.requires_grad for p in head.parameters())
    head.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    assert type(again) is kind and again.class_names == ["a", "b", "c"] and again.key() == head.key()
    assert torch.equal(again(features), head(features))
    if head.linear() is not None:
        torch.testing.assert_close(head(features), torch.nn.functional.linear(features, *head.linear()))
    for full in (False, True):
        copy = head.trainable(full)
        assert {n for n, p in copy.named_parameters() if p.requires_grad} == {
            n for n in kind.trained_names if full or n != "projection"
        }
        assert torch.equal(copy(features), head(features)) and not any(p.requires_grad for p in head.parameters())
    with pytest.raises(InputError, match="class names"):
        kind(["a"], **{tensor: torch.randn(shapes[tensor]) for tensor in kind.tensor_names})


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_architecture(name, request, pixels):
    pool = request.getfixturevalue(f"{name}_pool")
    part = ARCHITECTURES.get(name)()
    assert type(architecture_of(AutoConfig.from_pretrained(pool.base.folder), "base")) is type(part)
    tower = pool.tower()
    assert part.features(tower(pixel_values=pixels)).shape == (3, 16)
    depths = part.depths(tower)
    assert list(depths) == [parameter for parameter, _ in tower.named_parameters()]
    assert depths == pool.depths(), "the adapter's towers have other names than the pool's"
    blocks = tower.config.num_hidden_layers
    assert set(depths.values()) == {-1, *range(blocks + 1)}
    assert all(depth == 0 for parameter, depth in depths.items() if parameter.startswith("embeddings"))
    name, found = part.find_tower(tower)
    assert name == "" and found is tower
    assert set(pool.experts) == set(TASKS)


def test_a_message_lists_no_more_than_a_line_holds():
    assert suggest("zzz", ["b", "a"]) == "known: a, b."
    assert suggest("zzz", map(str, range(100, 200))).endswith("118, 119 and 80 more.")


def test_registry_suggests():
    registry: Registry = Registry("colour")
    registry.register("green")(type("Green", (), {}))
    with pytest.raises(InputError, match="unknown colour 'gren': did you mean 'green'"):
        registry.get("gren")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("green")(type("Green", (), {}))
    with pytest.raises(InputError, match="has no 'name'"):
        registry.build({"shade": 1})
