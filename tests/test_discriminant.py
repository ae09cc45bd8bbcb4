"""The discriminant fitted to the teacher's targets."""

from __future__ import annotations

import torch
from torch.distributions import MultivariateNormal

from hf_mdft.specialize.discriminant import SHRINKAGE, certainty, joint_features, log_posterior, mean_entropy, refine


def clusters(count=300, width=6, spread=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % 3
    centres = torch.eye(3, width)
    return truth, centres[truth] + spread * torch.randn(count, width, generator=generator)


def unsure(truth, wrong_every):
    """Targets that name another class at every so-many-th image, hesitantly."""
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


def test_no_clusters_no_change_of_class():
    truth, _ = clusters()
    noise = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    sure = torch.full((300, 3), 0.01).scatter(1, truth[:, None], 0.98)
    assert torch.equal(refine(sure, noise, 0.3).argmax(-1), truth)


def test_few_images_and_no_weight_leave_the_targets():
    truth, features = clusters(count=29)
    targets = unsure(truth, 5)
    assert refine(targets, features, 0.3) is targets
    truth, features = clusters()
    targets = unsure(truth, 5)
    assert refine(targets, features, 0.0) is targets


def test_no_model_counts_more_for_its_scale_or_offset():
    _, features = clusters()
    other = torch.randn(300, 4, generator=torch.Generator().manual_seed(2)) + 1
    joint = joint_features([features, other])
    torch.testing.assert_close(joint, joint_features([features, 100 * other]))
    assert joint.shape == (300, 10)
    torch.testing.assert_close(joint[:, :6].norm(dim=-1), joint[:, 6:].norm(dim=-1))
