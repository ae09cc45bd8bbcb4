"""LDA fitted to the teacher's targets."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.distributions import MultivariateNormal

from hf_mdft import SpecializeArguments
from hf_mdft.experts import joint_features
from hf_mdft.objectives import certainty
from hf_mdft.specialize import Source, build_teacher
from hf_mdft.specialize.teacher.lda import SHRINKAGE, log_posterior, mean_entropy, refine


def clusters(count=300, width=6, spread=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % 3
    centres = torch.eye(3, width)
    return truth, centres[truth] + spread * torch.randn(count, width, generator=generator)


def unsure(truth, wrong_every):
    """Targets with another class at every so-many-th image, hesitantly."""
    sure = torch.full((len(truth), 3), 0.05).scatter(1, truth[:, None], 0.9)
    swayed = torch.full((len(truth), 3), 0.4).scatter(1, ((truth + 2) % 3)[:, None], 0.1)
    swayed = swayed.scatter(1, ((truth + 1) % 3)[:, None], 0.5)
    return torch.where((torch.arange(len(truth)) % wrong_every == 0)[:, None], swayed, sure)


def test_posterior_is_that_of_gaussians_with_a_common_covariance():
    truth, features = clusters()
    targets = unsure(truth, 5)
    weights = targets * certainty(targets)[:, None]
    sizes = weights.sum(0)
    means = [(weights[:, c, None] * features).sum(0) / sizes[c] for c in range(3)]
    covariance = torch.zeros(6, 6)
    for c in range(3):
        for image, feature in enumerate(features):
            covariance += weights[image, c] * torch.outer(feature - means[c], feature - means[c])
    covariance /= sizes.sum()
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(6)
    densities = torch.stack([MultivariateNormal(mean, covariance).log_prob(features) for mean in means], dim=-1)
    expected = (densities + (sizes / sizes.sum()).log()).softmax(-1)
    torch.testing.assert_close(log_posterior(features, targets).softmax(-1), expected, atol=1e-4, rtol=1e-3)


def test_clusters_correct_single_images():
    truth, features = clusters()
    targets = unsure(truth, 5)
    found = refine(targets, features, 0.3)
    torch.testing.assert_close(found.sum(-1), torch.ones(300))
    assert (targets.argmax(-1) == truth).float().mean() < 0.81, "one in five is wrong"
    assert (found.argmax(-1) == truth).float().mean() > 0.97
    assert abs(mean_entropy(found) - mean_entropy(targets)) < 1e-3, "surer of some, but not on average"


def test_noise_changes_little_and_the_less_the_fewer_the_images():
    truth, _ = clusters()
    noise = torch.randn(300, 60, generator=torch.Generator().manual_seed(1))
    targets = unsure(truth, 5)
    moved = [(refine(targets[:n], noise[:n], 0.3) - targets[:n]).abs().mean().item() for n in (40, 300)]
    assert 0 < moved[0] < moved[1] < 0.05


def test_images_that_are_all_alike_are_no_trap():
    """Exact duplicates and certain targets: what is left of the scatter must not be rounding noise."""
    truth = torch.arange(300) % 3
    features = joint_features([torch.eye(3, 20)[truth], torch.eye(3, 20)[truth]])
    for certain in (1.0, 1 - 1e-6):
        targets = torch.full((300, 3), (1 - certain) / 2).scatter(1, truth[:, None], certain)
        assert torch.equal(refine(targets, features, 0.3).argmax(-1), truth)


@pytest.mark.parametrize("with_student", [False, True])
def test_clusters_count_in_the_embeddings_of_every_model_with_weight(with_student):
    """The clusters are in one model's embedding only; they count unless that model has no weight."""
    truth, features = clusters()
    logits = unsure(truth, 5).log()
    blind = Source(logits, logits, torch.ones(300, 6), logits.argmax(-1)[None], consistency=1.0)
    seeing = Source(logits, logits, features, logits.argmax(-1)[None], consistency=0.5)
    other = {"student": dataclasses.replace(seeing, trusted=True)} if with_student else {"base": seeing}

    def right(ensemble_weight, weight):
        args = SpecializeArguments(use_cpu=True, ensemble_weight=ensemble_weight, lda_weight=weight)
        teacher = build_teacher({"expert": blind, **other}, args)
        return (teacher.probabilities.argmax(-1) == truth).float().mean().item()

    assert right(1.0, 0.0) < 0.81 < 0.97 < right(1.0, 0.3)
    assert (right(0.0, 0.3) > 0.97) == with_student, "an ensemble weight of 0 leaves the student in"


def test_few_images_and_no_weight_leave_the_targets():
    truth, features = clusters(count=29)
    targets = unsure(truth, 5)
    assert refine(targets, features, 0.3) is targets
    truth, features = clusters()
    targets = unsure(truth, 5)
    assert refine(targets, features, 0.0) is targets


def test_no_model_counts_more_for_its_scale():
    _, features = clusters()
    other = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    joint = joint_features([features, other])
    torch.testing.assert_close(joint, joint_features([features, 100 * other]))
    assert joint.shape == (300, 10)
    torch.testing.assert_close(joint[:, :6].norm(dim=-1), joint[:, 6:].norm(dim=-1))
