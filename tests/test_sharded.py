"""Task vectors spread over processes: the same weights and gradients as with all of them in one."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from hf_mdft import MdftConfig
from hf_mdft.adapter import MdftLayer, Shard, combined_once, sharded
from hf_mdft.adapter.combine import combine
from hf_mdft.adapter.grouped import Part
from hf_mdft.adapter.sharded import combine_sharded


SHAPES = ((3, 5), (7,), (1,), (2, 3, 4), (16, 16))
ROWS = (0, 1, 1, 2, 0)


class Messages:
    """Stands in for `torch.distributed`: ranks run one after the other, once to send and once more to receive."""

    def __init__(self, world):
        self.world, self.sent = world, []

    def all_gather(self, out, own):
        if len(self.sent) < self.world:
            self.sent.append(own.clone())
        if len(self.sent) == self.world:
            for place, sent in zip(out, self.sent, strict=True):
                place.copy_(sent)

    def all_reduce(self, message):
        if len(self.sent) < self.world:
            self.sent.append(message.clone())
        if len(self.sent) == self.world:
            message.copy_(torch.stack(self.sent).sum(dim=0))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("bucket", [1, 20, 1 << 25])
def test_combined_as_by_one_process(world, dtype, bucket, monkeypatch):
    torch.manual_seed(0)
    starts = [torch.randn(shape) for shape in SHAPES]
    vectors = [torch.randn(4, *shape).to(dtype) for shape in SHAPES]
    weights = [[torch.randn(shape) for shape in SHAPES] for _ in range(world)]  # each rank's loss is another one
    coefficients = torch.randn(3, 4, requires_grad=True)
    wanted = [combine(s, v, coefficients[r]) for s, v, r in zip(starts, vectors, ROWS, strict=True)]
    loss = sum((w * tensor).sum() for own in weights for w, tensor in zip(own, wanted, strict=True))
    (slope,) = torch.autograd.grad(loss, coefficients)

    def parts(shard):
        return [
            Part(s, v.flatten(1)[:, shard.part(s.numel())], r) for s, v, r in zip(starts, vectors, ROWS, strict=True)
        ]

    monkeypatch.setattr(sharded, "BUCKET", bucket)
    shards, found = [Shard(rank, world) for rank in range(world)], []
    buckets = [list(sharded._buckets(parts(shard))) for shard in shards]
    total = torch.zeros_like(coefficients)
    for number in range(len(buckets[0])):
        there, back = Messages(world), Messages(world)
        monkeypatch.setattr(sharded.dist, "all_gather", there.all_gather)
        monkeypatch.setattr(sharded.dist, "all_reduce", back.all_reduce)
        of = slice(len(found), len(found) + len(buckets[0][number]))
        for _ in range(2):
            combined = [combine_sharded(own[number], coefficients, s) for own, s in zip(buckets, shards, strict=True)]
        for _ in range(2):
            losses = [
                sum((w * tensor).sum() for w, tensor in zip(own[of], tensors, strict=True))
                for own, tensors in zip(weights, combined, strict=True)
            ]
            slopes = [torch.autograd.grad(own, coefficients, retain_graph=True)[0] for own in losses]
        total += sum(slopes)
        assert all(torch.equal(a, b) for own in combined for a, b in zip(own, combined[0], strict=True))
        found += combined[0]
    assert all(torch.allclose(a, b, atol=1e-6) and a.dtype == b.dtype for a, b in zip(found, wanted, strict=True))
    assert torch.allclose(total, slope, atol=1e-4)


def test_parts_are_all_numbers_once():
    for count in (0, 1, 2, 5, 12, 100):
        for world in (1, 2, 3, 7):
            parts = [range(count)[Shard(rank, world).part(count)] for rank in range(world)]
            assert [number for part in parts for number in part] == list(range(count))
            assert all(len(part) <= Shard(0, world).size(count) for part in parts)


def test_one_process_keeps_all():
    assert Shard.current() is None


@pytest.mark.parametrize("granularity", ["tensor", "layer", "task"])
def test_a_model_combined_once(granularity, clip_pool, monkeypatch):
    """Through PEFT's layers, the one process of a world keeping all: weights, and gradients of coefficients."""
    config = MdftConfig(pool=clip_pool.reference(), granularity=granularity)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 32, 32)
    model = get_peft_model(clip_pool.tower(), config)
    coefficients = [p for p in model.parameters() if p.requires_grad]
    outputs, slopes = [], []
    for shard in (None, Shard(0, 1)):
        there, back = Messages(1), Messages(1)
        monkeypatch.setattr(sharded.dist, "all_gather", there.all_gather)
        monkeypatch.setattr(sharded.dist, "all_reduce", back.all_reduce)
        for parameter in coefficients:
            parameter.grad = None
        with combined_once(model, shard):
            outputs.append(model(pixel_values=pixels).pooler_output)
            outputs[-1].square().sum().backward()
        slopes.append([parameter.grad for parameter in coefficients])
        assert bool(there.sent) == bool(back.sent) == (shard is not None)
    assert torch.allclose(*outputs, atol=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*slopes, strict=True))


def test_what_cannot_be_sharded_is_refused(clip_pool):
    model = get_peft_model(clip_pool.tower(), MdftConfig(pool=clip_pool.reference()))
    layer = next(module for module in model.modules() if isinstance(module, MdftLayer))
    next(layer.base_layer.parameters()).requires_grad_()
    with pytest.raises(ValueError, match="own weights cannot be trained"), combined_once(model, Shard(0, 2)):
        pass
    model.add_adapter("other", MdftConfig(pool=clip_pool.reference()))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ValueError, match="one adapter must be active"), combined_once(model, Shard(0, 2)):
        pass
