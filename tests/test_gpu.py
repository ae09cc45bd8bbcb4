"""What needs an accelerator: `make test-gpu`. On a machine without one these are not run."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS, fit_arguments, specialize_arguments

from hf_mdft import MetaMerger
from hf_mdft.adapter.combine import combine
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


def test_both_phases_equal_those_of_a_processor(pool, tasks, tmp_path):
    """In fp32, within what another order of summation gives."""
    found = {}
    for name, options in (("cpu", {"use_cpu": True}), ("gpu", {"use_cpu": False, "fp16": False})):
        merger = MetaMerger(pool, tasks)
        merger.fit(fit_arguments(tmp_path / name, **options))
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
