"""Label-free scores against plain references, and on a model that has collapsed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from hf_mdft.objectives.scores import SCORES, Evidence
from hf_mdft.objectives.scores.aetta import estimated_error
from hf_mdft.objectives.scores.mano import norm, normalized, to_uniform
from hf_mdft.objectives.scores.mutual_information import information
from hf_mdft.objectives.scores.nuclear_norm import dispersion
from hf_mdft.objectives.scores.snd import density
from hf_mdft.objectives.scores.transport import assign, label_counts, transport_error


PREFER_COLLAPSE = {"consistency", "mano", "ensv", "snd"}
"""Scores that their makers do not protect against a model that predicts one class for every image."""


@dataclass
class Given:
    """Outputs as a score sees them."""

    logits: torch.Tensor
    consistency: float = 0.9
    held_out: torch.Tensor = None

    @property
    def predictions(self):
        return self.logits.argmax(-1)

    @property
    def class_frequencies(self):
        return self.logits.softmax(-1).mean(0)


def outputs(seed, count=60, classes=5, scale=2.0, **options):
    logits = scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    views = torch.randint(0, classes, (4, count), generator=torch.Generator().manual_seed(seed + 1))
    return Given(logits, held_out=views, **options)


def against(specialist, expert, **options):
    return {name: SCORES.get(name)(Evidence(specialist, expert, **options)) for name in SCORES.names()}


def probabilities(seed=0, **options):
    return outputs(seed, **options).logits.softmax(-1)


@pytest.mark.parametrize("name", SCORES.names())
def test_nothing_speaks_for_a_copy_of_the_expert_and_both_ways_are_mirrored(name):
    a, b = outputs(0), outputs(5, consistency=0.95)
    score = SCORES.get(name)
    assert score(Evidence(a, a)) == pytest.approx(0, abs=1e-9)
    assert (score.__doc__ or "").strip()
    if name not in (
        "agreement",
        "class_drift",
        "mano",
        "transport",
    ):  # the expert is more than the other side there
        assert score(Evidence(a, b)) == pytest.approx(-score(Evidence(b, a)), abs=1e-6) != 0


@pytest.mark.parametrize("name", SCORES.names())
def test_who_prefers_a_collapsed_model(name):
    """An expert that is right on four images of five, against one class everywhere, with certainty."""
    truth = torch.arange(300) % 5
    predicted = torch.where(torch.arange(300) % 5 == 4, (truth + 1 + torch.arange(300) // 5 % 4) % 5, truth)
    noise = outputs(0, 300, scale=0.3).logits
    expert = Given(3.0 * torch.nn.functional.one_hot(predicted, 5) + noise, 0.9, predicted[None])
    collapsed = Given(20.0 * torch.nn.functional.one_hot(torch.zeros(300, dtype=torch.long), 5) + noise, 1.0)
    assert (SCORES.get(name)(Evidence(collapsed, expert)) > 0) == (name in PREFER_COLLAPSE)
    better = Given(6.0 * torch.nn.functional.one_hot(truth, 5) + noise, 0.97)
    if name not in ("class_drift", "snd"):  # which see no difference of this kind
        assert SCORES.get(name)(Evidence(better, expert, others=((1.0, truth), (1.0, truth)))) > 0


def test_one_class_gives_no_score():
    one = Given(torch.zeros(4, 1), 1.0, torch.zeros(2, 4))
    assert set(against(one, one).values()) == {0.0}


def test_aetta():
    seen = outputs(0, consistency=0.85)
    mean = seen.logits.softmax(-1).mean(0).double()
    spread = -(mean * mean.log()).sum().item() / math.log(5)
    assert estimated_error(seen) == pytest.approx(0.15 / spread**3, rel=1e-5)
    assert estimated_error(outputs(0, consistency=0.0)) == pytest.approx(0.8), "at most that of chance"
    one_class = Given(torch.tensor([[50.0, 0, 0, 0, 0]]).repeat(60, 1), consistency=1.0)
    assert estimated_error(one_class) == pytest.approx(0.8)
    better = outputs(0, consistency=0.95)
    found = SCORES.get("aetta")(Evidence(better, seen))
    assert found == pytest.approx(0.1 / spread**3, rel=1e-5)


def test_nuclear_norm():
    p = probabilities()
    singular = np.linalg.svd(p.numpy(), compute_uv=False).sum()
    assert dispersion(p) == pytest.approx(singular / math.sqrt(5 * 60), rel=1e-5)
    even = torch.eye(5).repeat(12, 1)
    assert dispersion(even) == pytest.approx(1.0) and dispersion(even[:1].repeat(60, 1)) == pytest.approx(5**-0.5)
    assert dispersion(probabilities(count=3)) <= 1


@pytest.mark.parametrize(("scale", "trusted"), [(0.5, False), (20.0, True)])
def test_mano_switches_its_normalization_by_the_expert(scale, trusted):
    z = outputs(0, scale=scale).logits
    assert (to_uniform(z) > 5) == trusted
    rows = []
    for row in z.double().numpy():
        values = np.exp(row - row.max()) if trusted else 1 + row + row**2 / 2 - (1 + row + row**2 / 2).min()
        rows.append(values / values.sum())
    wanted = (np.stack(rows) ** 4).sum() ** 0.25 / (60 * 5) ** 0.25
    assert norm(normalized(z, trusted)) == pytest.approx(wanted, rel=1e-4)
    other = outputs(3, scale=1.0).logits
    found = SCORES.get("mano")(Evidence(Given(other), Given(z)))
    assert found == pytest.approx(norm(normalized(other, trusted)) - wanted, rel=1e-3)


def test_mutual_information():
    p = probabilities().double().numpy()
    mean = p.mean(0)
    wanted = -(mean * np.log(mean)).sum() + (p * np.log(p)).sum(1).mean()
    assert information(torch.tensor(p)) == pytest.approx(wanted / math.log(5), rel=1e-9)
    assert information(torch.eye(5)) == pytest.approx(1.0)


def test_snd():
    p = probabilities(count=12).double().numpy()
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    entropies = []
    for i in range(12):
        near = np.array([np.exp(unit[i] @ unit[j] / 0.05) for j in range(12) if j != i])
        near /= near.sum()
        entropies.append(-(near * np.log(near)).sum())
    assert density(torch.tensor(p)) == pytest.approx(np.mean(entropies), rel=1e-9)
    assert density(torch.eye(5)[:1]) == 0.0


def test_ensv_counts_all_candidates():
    a, b, c = outputs(0, scale=1.0), outputs(5, scale=4.0), outputs(9, scale=4.0)
    for more in ((), (c.logits,)):
        mean = sum(z.softmax(-1) for z in (a.logits, b.logits, *more)).argmax(-1)
        wanted = (a.predictions == mean).float().mean() - (b.predictions == mean).float().mean()
        found = SCORES.get("ensv")(Evidence(a, b, candidates=more))
        assert found == pytest.approx(wanted.item(), abs=1e-6)


def test_consistency_agreement_and_drift():
    a, b = outputs(0, consistency=0.97), outputs(5, consistency=0.9)
    found = against(a, b, others=((0.5, outputs(9).predictions),))
    assert found["consistency"] == pytest.approx(0.07)
    votes = [(0.25, view) for view in b.held_out] + [(0.5, outputs(9).predictions)]
    wanted = 0.0
    for i in range(60):
        for weight, view in votes:
            same = (a.predictions[i] == view[i]).int() - (b.predictions[i] == view[i]).int()
            wanted += weight * same.item() / 1.5 / 60
    assert found["agreement"] == pytest.approx(wanted, abs=1e-6)
    q, p = (o.logits.softmax(-1).mean(0).double().numpy() for o in (a, b))
    r = (p + 0.2) / 2
    kl = lambda x, y: (x * np.log(x / y)).sum()  # noqa: E731
    assert found["class_drift"] == pytest.approx(kl(r, p) - max(kl(r, q), kl(q, p)), abs=1e-6)


@pytest.mark.parametrize(("count", "classes"), [(40, 3), (60, 10), (30, 40), (120, 7)])
def test_transport_is_optimal(count, classes):
    for seed in range(3):
        p = (torch.randn(classes) + outputs(seed, count, classes, 2.5).logits).softmax(-1).double()
        prior = torch.rand(classes, generator=torch.Generator().manual_seed(seed)).double()
        counts = label_counts(prior / prior.sum(), count)
        assert counts.sum() == count and (counts - count * prior / prior.sum()).abs().max() <= 1
        held = assign(p, counts)
        assert torch.equal(torch.bincount(held, minlength=classes), counts)
        cost = 1 - p[:, torch.arange(classes).repeat_interleave(counts)].numpy()
        wanted = cost[linear_sum_assignment(cost)].mean()
        assert 1 - p.gather(1, held[:, None]).mean().item() == pytest.approx(wanted, abs=1e-9)
        assert transport_error(p, prior / prior.sum()) == pytest.approx(wanted, abs=1e-9)


def test_transport_of_many_images_takes_some_of_them(monkeypatch):
    p = probabilities(count=50)
    monkeypatch.setattr("hf_mdft.objectives.scores.transport.MOST", 10)
    rows = torch.linspace(0, 49, 10).long()
    uniform = torch.full((5,), 0.2)
    assert transport_error(p, uniform) == pytest.approx(transport_error(p[rows], uniform))
    one_class = torch.eye(5)[:1].repeat(50, 1)
    assert transport_error(one_class, uniform) == pytest.approx(0.8)
