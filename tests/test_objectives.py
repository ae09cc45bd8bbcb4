"""Losses, filters and statistics against what is known of them."""

from __future__ import annotations

import math

import pytest
import torch

from hf_mdft.evaluation import mcnemar
from hf_mdft.objectives import (
    FILTERS,
    agreement_rule,
    certainty,
    concentration,
    embedding_distance,
    entropy,
    estimate_prior,
    expert_divergence,
    hard_distillation,
    image_information,
    prior_divergence,
)


def test_entropy_of_uniform_is_ln_c():
    assert entropy(torch.zeros(2, 7)).tolist() == pytest.approx([math.log(7)] * 2)
    assert entropy(torch.tensor([[100.0, 0, 0]])).item() == pytest.approx(0, abs=1e-6)


def test_certainty_is_one_where_a_prediction_is_certain_and_zero_where_it_is_uniform():
    found = certainty(torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]))
    assert found.tolist() == pytest.approx([1, 0, 0.5], abs=1e-6)


def test_entropy_equals_its_definition():
    p = torch.randn(5, 4).softmax(-1)
    torch.testing.assert_close(entropy(p.log()), -(p * p.log()).sum(-1))


@pytest.mark.parametrize("classes", [2, 10, 43, 397])
def test_eata_keeps_confident_predictions_whatever_the_class_count(classes):
    """With balanced classes the published fixed cosine of 0.05 would reject nearly all of them below 400 classes."""
    sample_filter = FILTERS.build({"name": "eata", "num_classes": classes})
    labels = torch.arange(4 * classes) % classes
    logits = 20.0 * torch.nn.functional.one_hot(labels, classes)
    for _ in range(3):
        weights = sample_filter(logits)
    assert (weights > 0).all() and (weights <= 1).all()


def test_eata_rejects_uncertain_and_redundant():
    sample_filter = FILTERS.build({"name": "eata", "num_classes": 10})
    assert not sample_filter(torch.zeros(4, 10)).any()
    same = torch.zeros(8, 10)
    same[:, 3] = 20
    assert sample_filter(same).all()
    assert not sample_filter(same).any(), "all predictions equal the moving mean"
    other = torch.zeros(8, 10)
    other[:, 5] = 20
    assert sample_filter(other).all()


def test_a_prediction_that_is_none_leaves_no_trace_in_eatas_memory():
    """An overflow in half precision skips the step; the filter must go on as if the image had not been there."""
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    clean, broken = (
        FILTERS.build({"name": "eata", "num_classes": 3}),
        FILTERS.build({"name": "eata", "num_classes": 3}),
    )
    weights = broken(torch.cat([logits, torch.full((1, 3), torch.nan)]))
    assert torch.equal(weights[:3], clean(logits)) and weights[3] == 0
    assert clean.mean.any() and torch.equal(broken.mean, clean.mean)


def test_eata_weighs_by_confidence_and_is_not_differentiated():
    sample_filter = FILTERS.build({"name": "eata", "num_classes": 4})
    logits = torch.tensor([[9.0, 0, 0, 0], [0, 4.0, 0, 0]], requires_grad=True)
    weights = sample_filter(logits)
    assert weights[0] > weights[1] > 0 and not weights.requires_grad


def test_nothing_kept_gives_zero_loss_and_finite_gradient():
    logits = torch.zeros(4, 10, requires_grad=True)
    loss = (FILTERS.build({"name": "eata", "num_classes": 10})(logits) * entropy(logits)).mean()
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(logits.grad).all()


def test_distillation_is_zero_at_the_expert_and_positive_elsewhere():
    q = torch.randn(6, 5)
    torch.testing.assert_close(expert_divergence(q, q), torch.zeros(6), atol=1e-6, rtol=0)
    assert (expert_divergence(torch.randn(6, 5), q) > 0).all()
    p, t = torch.randn(6, 5), 2.0
    expected = t**2 * ((q / t).softmax(-1) * ((q / t).log_softmax(-1) - (p / t).log_softmax(-1))).sum(-1)
    torch.testing.assert_close(expert_divergence(p, q, t), expected)


def test_other_objectives_equal_their_definitions():
    logits, expert = torch.randn(6, 4), torch.randn(6, 4)
    p = logits.softmax(-1)
    wanted = -p[range(6), expert.argmax(-1)].log()
    torch.testing.assert_close(hard_distillation(logits, expert), wanted)
    mean = p.mean(0)
    torch.testing.assert_close(concentration(logits), (mean * mean.log()).sum() / math.log(4))
    assert concentration(50 * torch.eye(4)) == pytest.approx(-1, abs=1e-4)


def test_em_prior_finds_the_fixed_point_and_a_shift():
    """A calibrated model trained under a uniform prior, on images of a skewed one."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(20_000, generator=generator) < 0.8).long()
    x = torch.randn(20_000, generator=generator) + 2 * labels - 1
    p = torch.stack([torch.sigmoid(-2 * x), torch.sigmoid(2 * x)], dim=-1)
    found = estimate_prior(p, "em")
    assert found[1] == pytest.approx(0.8, abs=0.02) and found.sum() == pytest.approx(1)
    assert abs(p.mean(0)[1] - 0.8) > 0.05, "the mean prediction does not"
    assert estimate_prior(p, "uniform").tolist() == [0.5, 0.5]


def test_agreement_rule_drops_confident_disagreement_only():
    expert = torch.tensor([[2.0, 0], [2.0, 0], [2.0, 0]])
    model = torch.tensor([[0, 5.0], [0, 1.0], [5.0, 0]])
    assert agreement_rule(model, expert).tolist() == [0, 1, 1]


def test_embedding_distance():
    a = torch.tensor([[1.0, 0], [1.0, 0], [2.0, 0]])
    b = torch.tensor([[1.0, 0], [0, 1.0], [-1.0, 0]])
    assert embedding_distance(a, b).tolist() == pytest.approx([0, 1, 2])


def test_prior():
    p = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
    prior = estimate_prior(p)
    assert prior.tolist() == pytest.approx([0.65, 0.35])
    assert prior_divergence(prior.log()[None], prior).item() == pytest.approx(0, abs=1e-6)
    assert prior_divergence(torch.tensor([[0.0, 3.0]]), prior) > 0.1


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 3), (10, 2), (40, 15), (0, 6)])
def test_mcnemar_equals_the_binomial_test(b, c):
    from scipy.stats import binomtest

    ours = torch.tensor([True] * b + [False] * c + [True] * 5)
    theirs = torch.tensor([False] * b + [True] * c + [True] * 5)
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(ours, theirs) == pytest.approx(expected)


def test_a_class_that_nothing_predicts_has_a_gradient():
    """Where its mean prediction is far below what single precision adds up to 1."""
    for gap in (5.0, 25.0, 80.0):
        logits = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
        logits[:, 2] -= gap
        logits.requires_grad_(True)
        prior = torch.tensor([0.4, 0.4, 0.2])
        loss = prior_divergence(logits, prior)
        (grad,) = torch.autograd.grad(loss, logits)
        exact = logits.detach().double().requires_grad_(True)
        wanted = (prior.double() * (prior.double().log() - exact.softmax(-1).mean(0).log())).sum()
        (wanted_grad,) = torch.autograd.grad(wanted, exact)
        torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-3, atol=1e-5)
        assert grad[:, 2].sum() < -0.1


def test_both_may_exclude_a_class():
    logits = torch.tensor([[0.3, -0.1, -torch.inf]], requires_grad=True)
    expert = torch.tensor([[1.0, 0.2, -torch.inf]])
    for found, wanted in (
        (expert_divergence(logits, expert), expert_divergence(logits[:, :2], expert[:, :2])),
        (entropy(logits), entropy(logits[:, :2])),
    ):
        torch.testing.assert_close(found, wanted)
        (grad,) = torch.autograd.grad(found.sum(), logits)
        assert grad.isfinite().all() and grad[0, 2] == 0


def test_an_expert_may_exclude_a_class():
    logits, expert = torch.randn(5, 3), torch.randn(5, 3)
    expert[:, 1] = -torch.inf
    found = expert_divergence(logits, expert, 1.0)
    rest = expert[:, [0, 2]].log_softmax(-1)
    wanted = (rest.exp() * (rest - logits.log_softmax(-1)[:, [0, 2]])).sum(-1)
    torch.testing.assert_close(found, wanted)


def test_information_of_images_is_finite_where_a_mean_underflows():
    logits = torch.zeros(1000, 3)
    logits[:, 2], logits[0, 2] = -140.0, -102.5
    found = image_information(logits.softmax(-1))
    assert found.isfinite().all() and found.abs().max() < 1e-3
