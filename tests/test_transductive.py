"""Training-free baselines: their maths against plain loops, their memory, and as rows of a run."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import TASKS, both_architectures, call, write_recipe
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hf_mdft import InputError, MetaMerger, Recipe
from hf_mdft.embedding import embed_images
from hf_mdft.evaluation import TRANSDUCTIVE
from hf_mdft.evaluation.transductive import mixture, stata, transclip
from hf_mdft.recipes.presets import TRAINING_FREE, names
from hf_mdft.recipes.run import Baseline


def clusters(count=90, classes=3, width=6, spread=0.5, seed=0):
    """Labels, embeddings in clusters, and predictions of which every fifth is wrong."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % classes
    centers = torch.randn(classes, width, generator=generator)
    features = 3 * (centers[truth] + spread * torch.randn(count, width, generator=generator))
    logits = 2.0 * F.one_hot(truth, classes) + 0.3 * torch.randn(count, classes, generator=generator)
    wrong = torch.arange(count) % 5 == 0
    logits[wrong] = 0.4 * logits[wrong].roll(1, dims=-1)
    return truth, features, logits.softmax(dim=-1)


# Plain loops, from the formulas


def slow_graph(units):
    weights = torch.zeros(len(units), len(units), dtype=torch.float64)
    for i, unit in enumerate(units):
        cosines = {j: float(unit @ other) for j, other in enumerate(units) if j != i}
        for j in sorted(cosines, key=cosines.get, reverse=True)[:3]:
            weights[i, j] = max(0.0, cosines[j])
    return weights


def slow_assign(y, units, means, variances, weights, z):
    likelihood = torch.zeros_like(y)
    for i, unit in enumerate(units):
        for c, mean in enumerate(means):
            likelihood[i, c] = -0.5 * ((unit - mean) ** 2 / variances[c]).sum()
    for _ in range(5):
        new = torch.zeros_like(z)
        for i in range(len(z)):
            votes = 50 / (2 * 3) * sum((weights[i, j] + weights[j, i]) * z[j] for j in range(len(z)))
            new[i] = y[i] * torch.exp((likelihood[i] + votes) / 50)
        z = new / new.sum(dim=-1, keepdim=True)
    return z


def mean_of(z, units, c):
    mean = sum(z[i, c] * unit for i, unit in enumerate(units)) / z[:, c].sum()
    return mean / mean.norm()


def square_around(z, units, c, mean):
    return sum(z[i, c] * (unit - mean) ** 2 for i, unit in enumerate(units))


def slow_transclip(probabilities, features):
    y, units = probabilities.double(), F.normalize(features.double(), dim=-1)
    classes, width, weights = y.shape[1], units.shape[1], slow_graph(units)
    means = []
    for c in range(classes):
        best = sorted(range(len(y)), key=lambda i, c=c: y[i, c].item(), reverse=True)[:8]
        mean = sum(units[i] for i in best) / len(best)
        means.append(mean / mean.norm())
    variances, z = [torch.full((width,), 1 / width).double()] * classes, y
    for turn in range(11):
        z = slow_assign(y, units, means, variances, weights, z)
        if turn < 10:
            means = [mean_of(z, units, c) for c in range(classes)]
            shared = sum(square_around(z, units, c, means[c]) for c in range(classes)) / len(units)
            variances = [shared] * classes
    return z


def slow_stata(probabilities, features):
    y, units = probabilities.double(), F.normalize(features.double(), dim=-1)
    classes, weights = y.shape[1], slow_graph(units)
    anchors = means = [mean_of(y, units, c) for c in range(classes)]
    at_first = sum(square_around(y, units, c, anchors[c]) for c in range(classes)) / len(units)
    variances, z = [at_first] * classes, y
    for turn in range(11):
        z = slow_assign(y, units, means, variances, weights, z)
        if turn < 10:
            means, variances = [], []
            for c in range(classes):
                n = sum(row.argmax() == c for row in z)
                beta = n / (1 + n)
                mean = beta * mean_of(z, units, c) + (1 - beta) * anchors[c]
                means.append(mean / mean.norm())
                own = square_around(z, units, c, means[c]) / z[:, c].sum()
                variances.append(beta * own + (1 - beta) * (at_first + (anchors[c] - means[c]) ** 2))
    return z


@pytest.mark.parametrize(("method", "slow"), [(transclip, slow_transclip), (stata, slow_stata)])
def test_methods_are_their_formulas(method, slow):
    truth, features, probabilities = clusters(count=40)
    found = method(probabilities, features)
    assert (found - probabilities).abs().max() > 0.1, "something happened"
    torch.testing.assert_close(found, slow(probabilities, features), atol=1e-6, rtol=1e-5)


def test_the_two_methods_differ():
    _, features, probabilities = clusters(count=40)
    assert (transclip(probabilities, features) - stata(probabilities, features)).abs().max() > 1e-3


@pytest.mark.parametrize("name", TRANSDUCTIVE.names())
def test_clusters_correct_single_images(name):
    truth, features, probabilities = clusters(count=300, width=64)
    given = (features.clone(), probabilities.clone())
    found = TRANSDUCTIVE.get(name)(probabilities, features)
    assert torch.equal(features, given[0]) and torch.equal(probabilities, given[1]), "the input was changed"
    torch.testing.assert_close(found.sum(-1), torch.ones(300, dtype=found.dtype))
    assert (probabilities.argmax(-1) == truth).float().mean() < 0.85
    assert (found.argmax(-1) == truth).float().mean() > 0.97
    torch.testing.assert_close(TRANSDUCTIVE.get(name)(probabilities, 7 * features), found, atol=1e-4, rtol=1e-4)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    again = TRANSDUCTIVE.get(name)(probabilities[order], features[order])
    torch.testing.assert_close(again, found[order], atol=1e-6, rtol=1e-6)
    assert "https://huggingface.co/papers/" in TRANSDUCTIVE.get(name).__doc__


@pytest.mark.parametrize("name", TRANSDUCTIVE.names())
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_images_certain_predictions_and_images_all_alike(name, count):
    """No neighbors, a class without an image, dimensions without variance, zeros in the predictions."""
    certain = F.one_hot(torch.arange(count) % 2, 4).float()
    for features in (torch.randn(count, 6, generator=torch.Generator().manual_seed(0)), torch.ones(count, 6)):
        found = TRANSDUCTIVE.get(name)(certain, features)
        assert found.isfinite().all() and torch.equal(found.argmax(-1), certain.argmax(-1))


class Largest(TorchDispatchMode):
    """Entries of the largest dense tensor that was made."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor) and made.layout == torch.strided:
                self.entries = max(self.entries, made.numel())
        return result


def test_the_graph_never_holds_all_pairs(monkeypatch):
    _, features, _ = clusters(count=1000)
    units = F.normalize(features, dim=-1)
    at_once = mixture.neighbor_graph(units)
    monkeypatch.setattr(mixture, "BLOCK", 20_000)
    with Largest() as largest:
        found = mixture.neighbor_graph(units)
    assert largest.entries <= 20_000 < 1000 * 1000
    assert torch.equal(found.to_dense(), at_once.to_dense()) and found.dtype == torch.float64
    reference = slow_graph(F.normalize(features[:50].double(), dim=-1))
    few = mixture.neighbor_graph(F.normalize(features[:50], dim=-1)).to_dense()
    torch.testing.assert_close(few, reference + reference.T, atol=1e-6, rtol=1e-6)
    assert not few.diagonal().any()


# In a comparison


@both_architectures
def test_rows_are_the_methods_on_the_experts_outputs(pool, tasks):
    merger = MetaMerger(pool, tasks)
    report = merger.evaluate({"transclip": transclip, "stata": stata})
    for task in TASKS:
        data = merger.labelled(task)
        features = embed_images(pool.tower(task), pool.architecture, data.images)
        probabilities = merger.head(task)(features).softmax(dim=-1)
        for method in (transclip, stata):
            right = method(probabilities, features).argmax(-1) == data.labels
            assert report.accuracy[method.name][task] == pytest.approx(right.float().mean().item())
    assert report.passes["transclip"] == 1 and report.timing_s["baseline stata"] > 0
    assert report.average["stata"] == pytest.approx(sum(report.accuracy["stata"].values()) / 3)


def test_methods_see_no_label_and_every_image(pool, tasks):
    seen = []

    def spy(probabilities, features):
        seen.append((probabilities.shape, features.shape))
        return probabilities

    report = MetaMerger(pool, tasks).evaluate({"spy": spy})
    assert [shape for shape, _ in seen] == [(12, len(TASKS[task])) for task in TASKS]
    assert report.accuracy["spy"] == report.accuracy["expert"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda p, f: p[:, :1], r"baseline 'bad': task 'shade': expected \(12, 3\), got shape \(12, 1\)"),
        (lambda p, f: p / 0 * 0, r"baseline 'bad': task 'shade': expected \(12, 3\), got numbers that are none"),
    ],
)
def test_a_method_that_goes_wrong_is_named(clip_pool, tasks, method, message):
    with pytest.raises(InputError, match=message):
        MetaMerger(clip_pool, tasks).evaluate({"bad": method})


def test_run_takes_them_beside_presets(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, specialize={"rounds": 0})
    options = ["--baseline", "transclip", "--baseline", "weight_average_of_none"]
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "out", *options], monkeypatch, capsys)
    assert code == 2 and "unknown baseline 'weight_average_of_none'" in err and not (tmp_path / "out").exists()
    options = ["--baseline", "transclip", "--baseline", "ties", "--baseline", "stata"]
    code, out, _ = call(["run", recipe, "--output-dir", tmp_path / "out", *options], monkeypatch, capsys)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[-3:]] == ["transclip", "stata", "ties"]
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {"transclip", "stata", "ties"} <= set(found["accuracy"]) and found["passes"]["stata"] == 1
    assert all(found["timing_s"][f"baseline {name}"] > 0 for name in ("transclip", "stata", "ties"))


def test_names(clip_paths, tmp_path, monkeypatch, capsys):
    """Of methods and presets: apart, suggested together, and shown in the help."""
    assert set(TRAINING_FREE) == set(TRANSDUCTIVE.names()) and not set(TRAINING_FREE) & set(names())
    recipe = Recipe.load(write_recipe(tmp_path, clip_paths))
    for wrong, near in (("tranclip", "transclip"), ("simerge", "symerge")):
        with pytest.raises(InputError, match=f"unknown baseline '{wrong}': did you mean '{near}'"):
            Baseline.named(wrong, recipe, tmp_path)
    for reserved in ("expert_views", "specialist_views"):
        with pytest.raises(InputError, match="every comparison has a model of that name"):
            Baseline.named(reserved, recipe, tmp_path)
    with pytest.raises(InputError, match="'stata' trains nothing, so it is no preset; compare with it: --baseline"):
        recipe.with_preset("stata")
    code, out, _ = call(["run", "--help"], monkeypatch, capsys)
    assert code == 0 and all(name in out for name in TRAINING_FREE)
