"""What needs an accelerator: `make test-gpu`. On a machine without one these are not run."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS, fit_arguments, specialize_arguments

from hf_mdft import MetaMerger
from hf_mdft.adapter.combine import combine
from hf_mdft.adapter.grouped import Part, can_combine_together, combine_together
from hf_mdft.core.device import fast_bf16


pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_the_sum_is_that_of_the_formula(kind):
    """Value by value, with gradients, for more numbers than one block holds."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1 << 20, 40, generator=generator).cuda()
    vectors = torch.randn(4, *start.shape, generator=generator).to(kind).cuda()
    row = torch.rand(4, generator=generator).cuda().requires_grad_()
    found = combine(start, vectors, row)
    expected = start.double() + (row.double().view(-1, 1, 1) * vectors.double()).sum(dim=0)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    grad = torch.randn(start.shape, generator=generator).cuda()
    found.backward(grad)
    wanted = (vectors.double() * grad.double()).sum(dim=(1, 2))
    torch.testing.assert_close(row.grad.double(), wanted, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
@pytest.mark.parametrize("experts", [1, 3, 8, 40])
def test_one_kernel_combines_all_parameters(experts, kind):
    """Sizes that are aligned and others, rows that several parameters share, one without a gradient; twice the same
    bits."""
    generator = torch.Generator().manual_seed(0)
    shapes, rows = [(768, 3072), (5,), (3, 7, 11), (2048,), (64, 64), (1,)], [0, 2, 2, 1, 3, 0]
    parts = [
        Part(
            torch.randn(shape, generator=generator).cuda(),
            torch.randn(experts, *shape, generator=generator).to(kind).cuda(),
            row,
        )
        for shape, row in zip(shapes, rows, strict=True)
    ]
    assert can_combine_together(parts)
    coefficients = torch.rand(5, experts, generator=generator).cuda().requires_grad_()
    grads = [torch.randn(shape, generator=generator).cuda() for shape in shapes]
    found = [combine_together(parts, coefficients) for _ in range(2)]
    slopes = [torch.autograd.grad(some[:-1], coefficients, grads[:-1])[0] for some in found]
    expected = [
        p.start.double() + torch.einsum("k,k...->...", coefficients[p.row].double(), p.vectors.double()) for p in parts
    ]
    (wanted,) = torch.autograd.grad(expected[:-1], coefficients, [grad.double() for grad in grads[:-1]])
    for first, second, right in zip(*found, expected, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first.double(), right, atol=1e-4, rtol=1e-5)
    assert torch.equal(*slopes)
    torch.testing.assert_close(slopes[0], wanted, atol=2e-2, rtol=1e-4)
    assert (slopes[0][4] == 0).all(), "a row that no parameter has"


def test_both_phases_equal_those_of_a_processor(pool, tasks, tmp_path, monkeypatch):
    """In fp32, outputs of experts too, within what another order of summation gives."""
    for module in ("embedding.expert_outputs", "specialize.teacher.sources", "experts.learned", "meta.finish_heads"):
        monkeypatch.setattr(f"hf_mdft.{module}.fast_bf16", lambda _: False)
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path / "cache"))  # without the outputs of other tests
    found = {}
    for name, options in (("cpu", {"use_cpu": True}), ("gpu", {"use_cpu": False})):
        merger = MetaMerger(pool, tasks)
        merger.fit(fit_arguments(tmp_path / name, bf16=False, **options))
        specialists = merger.specialize(specialize_arguments(tmp_path / name, bf16=False, **options))
        towers = {task: made.tower(gated=False).state_dict() for task, made in specialists.items()}
        found[name] = (merger.model.base_model.coefficients(), towers)
    (mine, towers), (theirs, others) = found["gpu"], found["cpu"]
    for name, row in mine.items():
        torch.testing.assert_close(row.cpu(), theirs[name], atol=2e-3, rtol=0)
    for task in TASKS:
        for name, tensor in towers[task].items():
            torch.testing.assert_close(tensor, others[task][name], atol=2e-3, rtol=0)


def test_bfloat16_trains(pool, tasks, tmp_path):
    assert fast_bf16("cuda") == torch.cuda.is_bf16_supported(including_emulation=False)
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(tmp_path, use_cpu=False, bf16=True))
    merger.specialize(specialize_arguments(tmp_path, use_cpu=False))
    assert all(torch.isfinite(row).all() for row in merger.model.base_model.coefficients().values())
    assert set(merger.evaluate().accuracy["specialist"]) == set(TASKS)
