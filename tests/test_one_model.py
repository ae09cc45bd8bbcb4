"""Label-free methods for one model: their losses against plain references, and their presets from end to end."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import both_architectures, call, write_recipe
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from hf_mdft import InputError, Recipe, SpecializeArguments
from hf_mdft.core.state_files import load_state
from hf_mdft.embedding.augment import mild_augment, strong_augment
from hf_mdft.embedding.views import FEW_VIEWS
from hf_mdft.experts import TaskExperts
from hf_mdft.recipes.presets import names, preset
from hf_mdft.specialize import STUDENT_TERMS, Source, StudentTrainer, Teacher, build_teacher, specialize_task
from hf_mdft.specialize.callbacks import TellTerms, due
from hf_mdft.specialize.teacher import Models, observe_sources
from hf_mdft.specialize.teacher.centroids import nearest_centroids
from hf_mdft.specialize.terms import StudentBatch, StudentTerm
from hf_mdft.specialize.trainable import train_only


ONE_MODEL = ["aad", "eata", "must", "pseudo_labels", "shot", "tent"]


def arguments(folder, **options):
    defaults = dict(max_steps=4, per_device_train_batch_size=8, save_steps=2, fewer_steps=False)
    defaults |= dict(use_cpu=True, disable_tqdm=True)
    defaults |= dict(learning_rate=1e-3)
    return SpecializeArguments(output_dir=str(folder), **{**defaults, **options})


def preset_arguments(name, folder, **options):
    small = {"max_steps": 4, "per_device_train_batch_size": 8}
    return arguments(folder, **{**preset(name).specialize, **small, **options})


@pytest.fixture
def setting(merger):
    meta = merger.pool.tower("colour")
    return merger.pool, meta, merger.head("shade"), merger.unlabelled("shade")


def trainer_of(setting, args, teacher=None):
    pool, _, head, images = setting
    if teacher is None:
        generator = torch.Generator().manual_seed(5)
        targets = torch.randn(len(images), 3, generator=generator).softmax(-1)
        features = torch.randn(len(images), 16, generator=generator)
        teacher = Teacher(targets, torch.ones(len(images)), features)
    return StudentTrainer(
        pool.tower("shade"), args, architecture=pool.architecture, head=copy.deepcopy(head), images=images,
        teacher=teacher,
    )  # fmt: skip


def only(**terms):
    """Options of a student with these terms alone."""
    return dict(distillation_weight=0, alignment_weight=0, infomax_weight=0, l2_sp_weight=0, ema_decay=0, terms=terms)


def batch_of(logits, features=None, index=None, **more):
    count, classes = logits.shape
    features = torch.zeros(count, 2) if features is None else features
    uniform = torch.full((classes,), 1 / classes)
    return StudentBatch(
        features, logits, uniform.expand(count, classes), torch.ones(count), features, uniform, index, **more
    )


# Augmentation


def test_mild_augmentation_is_seeded_stays_in_range_and_is_mild():
    pixels = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    once, twice = (mild_augment(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, twice) and torch.equal(pixels, before) and once.min() >= 0 and once.max() <= 1
    assert not torch.equal(once, mild_augment(pixels, torch.Generator().manual_seed(2)))
    gray = torch.full((64, 3, 32, 32), 0.5)
    changed = (mild_augment(gray, torch.Generator().manual_seed(0)) - gray).abs()
    assert 0.005 < changed.mean() < 0.06, "much less than by the strong one"
    assert mild_augment(torch.rand(2, 3, 7, 9), torch.Generator().manual_seed(0)).shape == (2, 3, 7, 9)


def test_strong_augmentation_is_seeded_and_stays_in_range():
    pixels = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    once, twice = (strong_augment(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, twice) and torch.equal(pixels, before)
    assert once.shape == pixels.shape and once.dtype == pixels.dtype and once.min() >= 0 and once.max() <= 1
    assert not torch.equal(once, strong_augment(pixels, torch.Generator().manual_seed(2)))
    same = (once == pixels).flatten(1).all(dim=1)
    assert same.sum() <= 3, "an image is left alone once in 256"
    assert strong_augment(torch.rand(2, 3, 7, 9), torch.Generator().manual_seed(0)).shape == (2, 3, 7, 9)


def test_every_image_is_augmented_in_its_own_way_and_keeps_what_it_shows():
    """Copies of one image differ; a dark upper half stays above a bright lower half: nothing turns or flips."""
    image = torch.full((3, 32, 32), 0.25)
    image[:, 16:] = 0.75
    made = strong_augment(image.expand(64, 3, 32, 32), torch.Generator().manual_seed(0))
    assert len({one.numpy().tobytes() for one in made}) > 55
    assert (made[:, :, 24:].mean(dim=(1, 2, 3)) - made[:, :, :8].mean(dim=(1, 2, 3)) > 0.1).all()
    assert (made - image).abs().mean() > 0.05, "and it is strong"


# Targets


def shot_labels(probabilities, features):
    """SHOT's pseudo-labels, written as their authors describe them."""
    points = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    known = [c for c in range(probabilities.shape[1]) if (probabilities.argmax(1) == c).any()]
    weights = probabilities
    for _ in range(2):
        centers = [weights[:, c] @ points / (weights[:, c].sum() + 1e-8) for c in known]
        distance = [[1 - x @ m / np.linalg.norm(x) / np.linalg.norm(m) for m in centers] for x in points]
        labels = np.array(known)[np.argmin(distance, axis=1)]
        weights = np.eye(probabilities.shape[1])[labels]
    return labels


def test_centroids_are_those_of_shot():
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(4, 6, generator=generator)
    truth = torch.arange(80) % 4
    features = means[truth] + 2.5 * torch.randn(80, 6, generator=generator)
    logits = F.one_hot(truth, 5) + torch.randn(80, 5, generator=generator)
    logits[:, 4] = -5  # nobody predicts it
    found = nearest_centroids(logits.softmax(-1), features)
    expected = shot_labels(logits.softmax(-1).double().numpy(), features.double().numpy())
    assert found.argmax(-1).tolist() == expected.tolist() and found.unique().tolist() == [0, 1]
    before, after = ((p.argmax(-1) == truth).float().mean() for p in (logits, found))
    assert before + 0.1 < after, "clusters correct what the classifier gets wrong"


def test_a_class_that_a_round_leaves_empty_drops_out():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1]])
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55]])
    found = nearest_centroids(probabilities, features)
    assert torch.isfinite(found).all() and (found.sum(-1) == 1).all()


def source(logits, features=None, **more):
    features = torch.zeros(len(logits), 2) if features is None else features
    return Source(logits, logits.log_softmax(-1), features, logits.argmax(-1)[None], **more)


def test_hard_targets_count_above_a_confidence():
    logits = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [0.2, 0.2, 0.6]]).log()
    args = SpecializeArguments(use_cpu=True, teacher=["hard"], confidence_threshold=0.5)
    taught = build_teacher({"expert": source(logits)}, args)
    assert taught.probabilities.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]] and taught.weights.tolist() == [1, 0, 1]
    plain = build_teacher({"expert": source(logits)}, SpecializeArguments(use_cpu=True, teacher=[]))
    assert ((0 < plain.weights) & (plain.weights < 1)).all(), "else an image counts by the certainty of its target"
    batch = dataclasses.replace(batch_of(torch.randn(3, 3)), targets=taught.probabilities, weights=taught.weights)
    loss = STUDENT_TERMS.get("distillation")(nn.Linear(1, 1))(batch)
    torch.testing.assert_close(loss, F.cross_entropy(batch.logits[[0, 2]], torch.tensor([0, 2])))


def test_the_student_alone_teaches_once_there_is_one():
    torch.manual_seed(0)
    expert, own = (source(torch.randn(20, 3), torch.randn(20, 4)) for _ in range(2))
    args = SpecializeArguments(use_cpu=True, teacher=["student"])
    torch.testing.assert_close(build_teacher({"expert": expert}, args).probabilities, expert.log_probs.exp())
    both = {"expert": expert, "student": own}
    torch.testing.assert_close(build_teacher(both, args).probabilities, own.log_probs.exp())
    args = SpecializeArguments(use_cpu=True, teacher=["student", "centroids"])
    for sources, used in (({"expert": expert}, expert), (both, own)):
        taught = build_teacher(sources, args)
        expected = nearest_centroids(used.log_probs.exp(), used.features)
        assert torch.equal(taught.probabilities, expected) and taught.weights.tolist() == [1] * 20


# When the teacher is made anew


def test_refreshes_are_evenly_spaced():
    def steps(refreshes, max_steps, epoch=1000):
        return [step for step in range(max_steps) if due(step, refreshes, max_steps, epoch)]

    assert steps(0, 200) == [] and steps(1, 200) == [100] and steps(3, 200) == [50, 100, 150]
    assert steps(1, 7) == [3] and steps(1, 1) == [] and steps(2, 10) == [3, 6]
    assert steps(-1, 10, epoch=3) == [3, 6, 9] and steps(-1, 3, epoch=3) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"refreshes": 1}, [3]),
        ({"refreshes": 2}, [2, 4]),
        ({"refreshes": -1}, [3]),  # 24 images, 8 in a batch
        ({"refreshes": -1, "gradient_accumulation_steps": 2}, [2, 4]),
    ],
)
def test_the_teacher_is_made_anew_at_these_steps(setting, tmp_path, monkeypatch, options, expected):
    pool, meta, head, images = setting
    made, real = [], StudentTrainer.set_teacher

    def set_teacher(self, teacher, device):
        if hasattr(self, "state"):
            made.append((self.state.global_step, teacher))
        real(self, teacher, device)

    monkeypatch.setattr(StudentTrainer, "set_teacher", set_teacher)
    args = arguments(tmp_path, max_steps=6, teacher=["student"], save_strategy="no", **options)
    specialize_task("shade", pool, meta, head, images, args)
    assert [step for step, _ in made] == expected
    assert len({teacher.probabilities.numpy().tobytes() for _, teacher in made}) == len(made), "from another student"


@pytest.mark.parametrize(("averaged", "views"), [(True, FEW_VIEWS), (False, FEW_VIEWS[:1])])
def test_the_student_is_run_under_no_more_views_than_are_used(setting, monkeypatch, averaged, views):
    pool, meta, head, images = setting
    models = Models(TaskExperts("shade", pool, {"shade": head}), meta, head, images)
    known, seen, embed = observe_sources(models, averaged), {}, Models.embed

    def noted(self, tower, title, views):
        seen[title] = views
        return embed(self, tower, title, views)

    monkeypatch.setattr(Models, "embed", noted)
    found = observe_sources(dataclasses.replace(models, student=pool.tower("shade")), averaged, known)
    assert seen == {"student": views} and list(found) == ["expert", "meta", "base", "student"]
    if not averaged:
        torch.testing.assert_close(found["student"].log_probs, found["expert"].log_probs, atol=1e-4, rtol=1e-4)


def test_refreshes_out_of_range_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"refreshes must be at least 0 \(or -1: before every epoch\), got -2"):
        arguments(tmp_path, refreshes=-2)
    with pytest.raises(InputError, match=r"confidence_threshold must lie in \[0, 1\], got 2"):
        arguments(tmp_path, confidence_threshold=2)
    with pytest.raises(InputError, match="trainable: unknown 'norms': did you mean 'norm'"):
        arguments(tmp_path, trainable="norms")


# What is trained


class LlamaRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


def test_norm_layers_are_found_by_their_class():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(3))
            self.parts = nn.ModuleList([nn.Linear(3, 3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.Conv2d(3, 3, 1)])
            self.more = nn.ModuleList([nn.BatchNorm2d(3), nn.RMSNorm(3), LlamaRMSNorm(), nn.LayerNorm(3, bias=False)])

    block = Block()
    train_only(block, "all")
    assert all(p.requires_grad for p in block.parameters())
    train_only(block, "norm")
    assert {name for name, p in block.named_parameters() if p.requires_grad} == {
        "parts.1.weight", "parts.1.bias", "parts.2.weight", "parts.2.bias", "more.0.weight", "more.0.bias",
        "more.1.weight", "more.2.weight", "more.3.weight",
    }  # fmt: skip
    with pytest.raises(InputError, match="no normalisation layer"):
        train_only(nn.Linear(3, 3), "norm")


@pytest.mark.parametrize("name", ["tent", "eata"])
@both_architectures
def test_norms_move_and_nothing_else(setting, tmp_path, name):
    pool, meta, head, images = setting
    made = specialize_task("shade", pool, meta, head, images, preset_arguments(name, tmp_path))
    tower, start = made.tower(), pool.tower("shade")
    before = dict(start.named_parameters())
    moved = {key for key, p in tower.named_parameters() if not torch.equal(p, before[key])}
    norms = {
        f"{path}.{key}"
        for path, module in tower.named_modules()
        if isinstance(module, nn.LayerNorm)
        for key, _ in module.named_parameters()
    }
    assert norms and moved and moved <= norms
    assert len(moved) > len(norms) / 2


# Terms


def test_mutual_information_and_entropy():
    logits = 2 * torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)
    mean_entropy = -(p * p.log()).sum(-1).mean()
    entropy_of_mean = -(p.mean(0) * p.mean(0).log()).sum()
    term = STUDENT_TERMS.get("mutual_information")(nn.Linear(1, 1))
    torch.testing.assert_close(term(batch_of(logits)), mean_entropy - entropy_of_mean)
    torch.testing.assert_close(STUDENT_TERMS.get("entropy")(nn.Linear(1, 1))(batch_of(logits)), mean_entropy)
    infomax = STUDENT_TERMS.get("infomax")(nn.Linear(1, 1))(batch_of(logits))
    torch.testing.assert_close(term(batch_of(logits)), infomax - math.log(4))  # where the teacher's classes are even


def test_filtered_entropy_counts_reliable_and_new_images():
    """EATA over three batches, its coefficient up to the constant exp(E0)."""
    generator = torch.Generator().manual_seed(0)
    term = STUDENT_TERMS.get("filtered_entropy")(nn.Linear(1, 1))
    term.prepare(Teacher(torch.full((9, 4), 0.25), torch.ones(9), torch.zeros(9, 2)), None)
    mean, redundant = None, 0
    for _ in range(3):
        logits = 4 * torch.randn(12, 4, generator=generator) + torch.tensor([3.0, 0, 0, 0])
        p = logits.softmax(-1)
        entropies = -(p * p.log()).sum(-1)
        kept = [i for i in range(12) if entropies[i] < 0.4 * math.log(4)]
        assert 0 < len(kept) < 12
        if mean is not None:
            reliable, kept = kept, [i for i in kept if abs(F.cosine_similarity(p[i], mean, dim=0)) < 1.3 / 2]
            redundant += len(reliable) - len(kept)
        mean = p[kept].mean(0) if mean is None else 0.9 * mean + 0.1 * p[kept].mean(0)
        expected = sum(torch.exp(-entropies[i]) * entropies[i] for i in kept) / len(kept)
        torch.testing.assert_close(term(batch_of(logits)), expected)
    assert redundant > 3
    assert set(term.state_dict()) == {"filter.mean"}, "its memory is in checkpoints"
    assert term(batch_of(torch.zeros(3, 4))) == 0, "where no image counts"


def test_attracting_and_dispersing_equals_its_definition():
    """Over two batches: what the first left in memory is used in the second."""
    generator = torch.Generator().manual_seed(0)
    features, bank = torch.randn(20, 6, generator=generator), torch.randn(20, 4, generator=generator).softmax(-1)
    term = STUDENT_TERMS.get("aad")(nn.Linear(1, 1))
    term.prepare(Teacher(bank, torch.ones(20), features), None)
    near, scores = F.normalize(features, dim=-1).tolist(), bank.clone()
    for progress, index in ((0.0, [3, 7, 1, 12]), (0.5, [7, 0, 19])):
        logits = torch.randn(len(index), 4, generator=generator).requires_grad_()
        new = torch.randn(len(index), 6, generator=generator)
        found = term(batch_of(logits, new, torch.tensor(index), progress=progress))
        (gradient,) = torch.autograd.grad(found, logits)
        p = logits.softmax(-1)
        for row, image in enumerate(index):
            near[image], scores[image] = F.normalize(new[row], dim=0).tolist(), p[row].detach()
        total = 0.0
        for row, image in enumerate(index):
            cosine = [np.dot(near[image], near[other]) if other != image else -2.0 for other in range(20)]
            for other in np.argsort(cosine)[-5:]:
                total = total - p[row] @ scores[other]
            for other in range(len(index)):
                if other != row:
                    total = total + (1 + 10 * progress) ** -5.0 * (p[row] @ p[other])
        torch.testing.assert_close(found, total / len(index))
        torch.testing.assert_close(gradient, torch.autograd.grad(total / len(index), logits)[0])
    torch.testing.assert_close(term.predictions, scores)
    torch.testing.assert_close(term.features, torch.tensor(near))
    assert set(term.state_dict()) == {"features", "predictions"}
    assert not torch.equal(term.predictions, bank), "the teacher's own targets stay"


def test_must_step_by_step(setting, tmp_path):
    """Two steps of training against plain PyTorch: the average teaches on the weak view, the student sees the strong
    one, and the average follows it."""
    pool, _, head, images = setting
    plain = images.preprocessor.normalize(images.pixels(range(24)))
    with torch.no_grad():
        for name in {"weight", "bias"}.intersection(head.tensor_names):
            getattr(head, name).mul_(0.05)  # the tiny ViT's is sure of all
        sure = head(pool.architecture.features(pool.tower("shade")(pixel_values=plain))).softmax(-1).amax(-1)
    threshold = sure.median().item() + 1e-4
    args = arguments(
        tmp_path, **only(must=1.0), augmentation="strong", confidence_threshold=threshold, max_steps=2, optim="sgd",
        learning_rate=0.01, lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=0, save_strategy="no", seed=3,
        logging_steps=1,
    )  # fmt: skip
    trainer = trainer_of(setting, args)
    seen, forward = [], trainer.compute_loss

    def compute_loss(model, inputs, **kwargs):
        views = trainer.views(model, inputs["pixels"], inputs["index"])
        seen.append((views.weak, views.augmented(strong_augment)))
        return forward(model, inputs, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    student, average = pool.tower("shade").train(), pool.tower("shade")
    losses = []
    for weak, strong in seen:
        assert not torch.equal(weak, strong)
        with torch.no_grad():
            confidence, labels = head(pool.architecture.features(average(pixel_values=weak))).softmax(-1).max(-1)
        logits = head(pool.architecture.features(student(pixel_values=strong)))
        kept = confidence > threshold
        assert 0 < kept.sum() < 8, "the threshold matters"
        loss = F.cross_entropy(logits[kept], labels[kept]) - logits.softmax(-1).mean(0).log().mean()
        losses.append(loss.item())
        student.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, mine in zip(student.parameters(), average.parameters(), strict=True):
                if p.grad is not None:
                    p -= 0.01 * p.grad
                mine.copy_(0.99 * mine + 0.01 * p)
    found = [line["loss_must"] for line in trainer.state.log_history if "loss_must" in line]
    assert found == pytest.approx(losses, rel=1e-4)
    held = trainer.terms["must"].average
    for name, p in average.named_parameters():
        torch.testing.assert_close(held.get_parameter(name), p, atol=1e-6, rtol=1e-5)
    moved = sum((held.get_parameter(n) - p).abs().sum() for n, p in pool.tower("shade").named_parameters())
    assert 0 < moved < sum((p - q).abs().sum() for p, q in zip(student.parameters(), held.parameters(), strict=True))


@pytest.fixture
def looking():
    """A term that looks at its batch in every way."""
    calls = []

    @STUDENT_TERMS.register("looking")
    class Looking(StudentTerm):
        def prepare(self, teacher, args):
            calls.append(("prepare", teacher, args))

        def forward(self, batch):
            calls.append(("forward", batch))
            features, logits = batch.views.forward(batch.views.plain())
            return (logits - batch.logits.detach()).square().mean()

        def after_step(self, student):
            calls.append(("after_step", next(student.parameters()).detach().clone()))

    yield calls
    del STUDENT_TERMS._parts["looking"]


def test_a_term_may_look_again(setting, tmp_path, looking):
    """At any view, with gradients; it is told of all images before and of every step."""
    pool, _, head, images = setting
    args = arguments(tmp_path, **only(looking=1.0), max_steps=3, save_strategy="no", gradient_accumulation_steps=2)
    trainer = trainer_of(setting, args)
    trainer.train()
    kinds = [kind for kind, *_ in looking]
    assert kinds[0] == "prepare" and kinds.count("prepare") == 1 and len(looking[0][1].probabilities) == len(images)
    step = ["forward", "forward", "after_step"]
    assert kinds[1:] == [*step, "forward", "after_step", *step], "24 images are three batches"
    batches = [call[1] for call in looking if call[0] == "forward"]
    assert [batch.progress for batch in batches] == pytest.approx([0, 0, 1 / 3, 2 / 3, 2 / 3])
    assert sorted(torch.cat([batch.index for batch in batches[:3]]).tolist()) == list(range(24))
    for batch in batches:
        assert torch.equal(batch.views.pixels, images.pixels(batch.index))
        assert torch.equal(batch.targets, trainer.targets[batch.index])
    steps = [call[1] for call in looking if call[0] == "after_step"]
    assert not torch.equal(steps[0], steps[1]), "the view that it made has gradients"


def test_nothing_runs_that_no_term_asks_for(setting, tmp_path, monkeypatch):
    """One forward pass of the student for each batch, without an augmentation."""
    runs = []
    monkeypatch.setattr("hf_mdft.specialize.terms.BatchViews.augmented", lambda *_: pytest.fail("augmented"))
    trainer = trainer_of(setting, arguments(tmp_path, save_strategy="no", augmentation="none"))
    trainer.model.register_forward_hook(lambda *_: runs.append(1))
    trainer.train()
    assert len(runs) == 4


@pytest.mark.parametrize(("name", "augmentation"), [("mild", mild_augment), ("strong", strong_augment)])
def test_the_student_sees_augmented_images(setting, tmp_path, name, augmentation):
    trainer = trainer_of(setting, arguments(tmp_path, augmentation=name))
    pixels, seen = trainer.train_dataset.__getitems__([0, 1, 2]), []
    trainer.model.register_forward_pre_hook(lambda m, a, k: seen.append(k["pixel_values"]), with_kwargs=True)
    trainer.compute_loss(trainer.model, pixels)
    views = trainer.views(trainer.model, pixels["pixels"], pixels["index"])
    assert torch.equal(seen[0], views.augmented(augmentation)) and not torch.equal(seen[0], views.weak)


# Presets


def test_presets_for_one_model_share_images_steps_and_optimizer():
    assert set(ONE_MODEL) < set(names())
    shared = {
        "max_steps": 200, "per_device_train_batch_size": 64, "optim": "adamw_torch", "weight_decay": 0.0,
        "lr_scheduler_type": "cosine", "start": 0.0, "ema_decay": 0.0, "gate": False, "rounds": 1,
        "teacher_views": False, "l2_sp_weight": 0.0, "alignment_weight": 0.0, "infomax_weight": 0.0,
    }  # fmt: skip
    for name in ONE_MODEL:
        found = preset(name)
        assert shared.items() <= found.specialize.items(), name
        assert found.specialize["learning_rate"] == (1e-3 if name in ("tent", "eata") else 3e-5)
        assert not found.makes_meta_model and "images" not in found.specialize


TERMS = {
    "aad": {"loss_aad"}, "eata": {"loss_filtered_entropy"}, "must": {"loss_must"},
    "pseudo_labels": {"loss_distillation"}, "shot": {"loss_distillation", "loss_mutual_information"},
    "tent": {"loss_entropy"},
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_MODEL)
def test_preset_from_end_to_end(name, clip_paths, tmp_path):
    """As it is but for the number of steps; the gate is off."""
    recipe = Recipe.load(write_recipe(tmp_path, clip_paths, meta={"max_steps": 0, "use_cpu": True})).with_preset(name)
    merger = recipe.merger()
    merger.fit(recipe.meta_arguments(tmp_path))
    options = dict(max_steps=3, logging_steps=1, confidence_threshold=0.0)  # tiny experts are sure of nothing
    found = merger.specialize(recipe.specialize_arguments(tmp_path, **options), ["shade"])
    for task, made in found.items():
        assert made.decision.chosen == "specialist"
        lines = [line for line in made.history if "loss" in line]
        assert len(lines) == 3 and all(math.isfinite(line["loss"]) for line in lines)
        assert {key for key in lines[0] if key.startswith("loss_")} == TERMS[name]
        expert, student = merger.pool.tower(task).state_dict(), made.tower().state_dict()
        assert any(not torch.equal(expert[key], student[key]) for key in expert)


@pytest.mark.parametrize("name", ["aad", "eata", "must", "shot"])
def test_interrupted_training_goes_on_exactly(setting, tmp_path, monkeypatch, name):
    """With what each remembers: killed in the fifth of six steps, in the second epoch."""
    pool, meta, head, images = setting
    options = dict(max_steps=6, save_total_limit=None, learning_rate=1e-3, confidence_threshold=0.0)

    def done(folder):
        return specialize_task("shade", pool, meta, head, images, preset_arguments(name, tmp_path / folder, **options))

    whole = load_file(done("whole").candidate / "model.safetensors")

    class Killed(Exception):
        pass

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TellTerms, "on_step_begin", kill)
        with pytest.raises(Killed):
            done("parts")
    work = tmp_path / "parts" / "shade"
    assert {path.name for path in work.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}

    def kept(number):
        folder = work / f"checkpoint-{number}"
        return load_file(folder / "extra_state.safetensors") | load_state(folder / "random_0.safetensors")["own"]

    state, early = kept(4), kept(2)
    memory = {
        "aad": "aad/predictions", "eata": "filtered_entropy/filter.mean", "must": "must/average.",
        "shot": "teacher/targets",
    }  # fmt: skip
    keys = [key for key in state if key.startswith(memory[name])]
    assert keys and any(state[key].any() for key in keys)
    if name in ("aad", "must"):
        assert any(not torch.equal(early[key], state[key]) for key in keys), "it is renewed with every step"
    parts = load_file(done("parts").candidate / "model.safetensors")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.slow
def test_presets_and_baselines_for_one_model_on_the_command_line(clip_paths, tmp_path, monkeypatch, capsys):
    """In one table, on the run's meta-model."""
    recipe = write_recipe(tmp_path, clip_paths, meta={"max_steps": 0, "use_cpu": True}, specialize={"use_cpu": True})

    def quick(name):
        found = preset(name)
        return dataclasses.replace(found, specialize={**found.specialize, "max_steps": 2})

    monkeypatch.setattr("hf_mdft.recipes.schema.preset", quick)
    command = ["run", recipe, "--output-dir", tmp_path / "out", "--preset", "tent"]
    code, out, _ = call([*command, "--baseline", "shot", "--baseline", "must"], monkeypatch, capsys)
    assert code == 0 and "shot" in out and "must" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {"shot", "must", "specialist", "expert"} <= set(results["accuracy"])
    assert all(gate["chosen"] == "specialist" for gate in results["gate"].values())
    work = tmp_path / "out" / "checkpoints"
    assert not (work / "baselines" / "shot" / "meta").exists(), "it shares the run's meta-model"
    moved = load_file(
        work
        / "baselines"
        / "must"
        / "specialists"
        / "round-1"
        / "shade"
        / "result"
        / "candidate"
        / "model.safetensors"
    )
    tent = load_file(tmp_path / "out" / "specialists" / "shade" / "model.safetensors")
    expert = load_file(clip_paths["shade"] / "model.safetensors")
    changed = {
        name: [key for key in expert if not torch.equal(expert[key], state[key])]
        for name, state in (("must", moved), ("tent", tent))
    }
    assert changed["tent"] and all("norm" in key for key in changed["tent"])
    assert any("norm" not in key for key in changed["must"])


def test_epochs_of_a_training_that_goes_on_are_counted_anew(setting, tmp_path):
    def trained(folder, go_on=False, **options):
        options = {"per_device_train_batch_size": 4, "max_steps": -1, **options}
        trainer = trainer_of(setting, arguments(tmp_path / folder, **options))
        trainer.train(resume_from_checkpoint=go_on)
        return trainer.state.global_step

    assert trained("a", num_train_epochs=2.5) == 15 and trained("a", True, num_train_epochs=3) == 18
    assert trained("b", max_steps=2) == 2 and trained("b", True, num_train_epochs=1) == 6
    assert trained("b", True, num_train_epochs=1) == 6, "done"
