"""Images that are no evidence: too few different ones, of few classes, or another task's."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import TASKS, make_dataset, specialize_arguments

from hf_mdft import ModelPool, Task
from hf_mdft.embedding import embed_images
from hf_mdft.objectives.prior import class_shares, effective_classes
from hf_mdft.specialize import Source
from hf_mdft.specialize.gate import Familiarity, information_by_others
from hf_mdft.specialize.gate.familiarity import familiarity
from hf_mdft.specialize.gate.strangers import information
from hf_mdft.specialize.teacher import Models
from hf_mdft.studies.hostile import HOSTILE, HostileRow, as_markdown, hostile_study
from hf_mdft.studies.hostile.sets import FEW, Request
from hf_mdft.studies.hostile.study import shuffled
from hf_mdft.task_data import TaskData
from hf_mdft.tasks import Preprocessor, read_unlabelled


@dataclass
class ClassCount:
    """A head of so many classes."""

    num_classes: int


@pytest.fixture(scope="module")
def preprocessor(clip_paths):
    return Preprocessor(clip_paths["base"], "base")


def test_noise_on_a_picture_makes_no_other_picture(preprocessor):
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (5, 32, 32, 3))
    near = np.clip(few[np.arange(40) % 5] + rng.integers(-3, 4, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
    images = read_unlabelled("x", Task(list(near)), preprocessor)
    assert len(images.distinct()) == 40 and images.different() == 5
    other = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    images = read_unlabelled("x", Task(list(other)), preprocessor)
    assert images.different() == 30 and images.different(10) == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Familiarity(10), "too few clearly different images to show an improvement: 10"),
        (Familiarity(100, coverage=0.2, information=0.5), "the images are of few classes: as if of 20% of them"),
        (
            Familiarity(100, information=0.3, other="gtsrb", other_information=0.6),
            "the expert of 'gtsrb' knows the images better",
        ),
        (Familiarity(100, information=0.6, other="gtsrb", other_information=0.3), None),
        (Familiarity(16), None),
    ],
)
def test_what_speaks_against_images(given, said):
    found = given.against()
    assert found is None if said is None else found.startswith(said)


def test_evenness_is_that_of_the_predicted_classes():
    even = torch.tensor([25, 25, 25, 25])
    assert effective_classes(even / 100, 100) == pytest.approx(math.exp(3 / 200), rel=1e-3), "Miller 1955"
    assert effective_classes(torch.tensor([1.0, 0, 0, 0]), 10_000) == pytest.approx(0.25, abs=1e-3)
    uneven = torch.tensor([0.7, 0.2, 0.1])
    drawn = torch.eye(3)[[0] * 7 + [1] * 2 + [2]] + torch.rand(10, 3) / 2
    assert torch.allclose(class_shares(drawn), uneven)
    by_hand = 0.7**-0.7 * 0.2**-0.2 * 0.1**-0.1 / 3
    assert effective_classes(uneven, 1_000_000) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(("classes", "images"), [(1000, 64), (43, 64), (10, 16), (10, 4000), (2, 16)])
def test_even_draws_are_even_whatever_their_number(classes, images):
    """Also where most classes have no image; images of one class are not, though a few are many of the seen."""
    drawn = torch.randint(0, classes, (400, images), generator=torch.Generator().manual_seed(0))
    shares = torch.stack([row.bincount(minlength=classes) for row in drawn]) / images
    entropy = -torch.xlogy(shares, shares).sum(dim=1).mean().item()
    found = effective_classes(shares[0], images)
    by_hand = math.exp(-torch.xlogy(shares[0], shares[0]).sum().item() - entropy)
    assert found == pytest.approx(by_hand, rel=0.02)
    assert effective_classes(torch.eye(classes)[0], images) == pytest.approx(math.exp(-entropy), rel=0.02)


def test_information():
    sure = torch.eye(4).repeat(5, 1)
    assert information(sure) == pytest.approx(1.0) and information(sure[:1].repeat(9, 1)) == pytest.approx(0.0)
    assert information(torch.full((9, 4), 0.25)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("others", "images", "expected"), [(1, 300, 256), (16, 300, 256), (64, 300, 64), (500, 300, 32), (1, 20, 20)]
)
def test_many_experts_of_other_tasks_look_at_fewer_images(others, images, expected):
    seen = []

    class Counted:
        def __len__(self):
            return images

        def subset(self, rows):
            seen.append(len(rows))

    module = importlib.import_module("hf_mdft.specialize.gate.strangers")
    module._evenly_spread(Counted(), others)
    assert seen == [expected]


def test_each_expert_is_loaded_once_for_all_tasks(clip_paths, tmp_path, monkeypatch):
    """Information is that of the expert's own head on its embeddings, and is kept."""
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))
    pool = ModelPool.from_pretrained(clip_paths["base"], {task: clip_paths[task] for task in TASKS})
    data = TaskData(pool, {task: Task(make_dataset(task, 40, 0)) for task in TASKS})
    experts = {task: data.experts(task) for task in TASKS}
    images = {task: data.unlabelled(task) for task in TASKS}
    loaded, tower = [], ModelPool.tower
    monkeypatch.setattr(ModelPool, "tower", lambda pool, expert: loaded.append(expert) or tower(pool, expert))
    found = information_by_others(experts, images, "cpu")
    assert sorted(loaded) == sorted(TASKS) and {task: set(own) for task, own in found.items()} == {
        task: set(TASKS) - {task} for task in TASKS
    }
    for task, own in found.items():
        for expert, value in own.items():
            features = embed_images(tower(pool, expert), pool.architecture, images[task])
            logits = data.expert_heads(expert)[expert](features)
            assert value == pytest.approx(information(logits.softmax(dim=-1)), abs=1e-6)
    assert information_by_others(experts, images, "cpu") == found and len(loaded) == len(TASKS), "kept"
    (alone,) = information_by_others({"shade": experts["shade"]}, images, "cpu").values()
    assert alone == found["shade"]


def test_evenness_of_what_the_reference_predicts(clip_done):
    models = Models(clip_done.experts("shade"), None, clip_done.head("shade"), clip_done.unlabelled("shade"))
    logits = torch.eye(3).repeat(100, 1)
    reference = Source(logits, logits.log_softmax(-1), torch.zeros(300, 2), torch.zeros(0, 300))
    assert familiarity(models, reference, {}).evenness == pytest.approx(1, abs=0.01)
    rows = torch.tensor([0] * 250 + [1] * 30 + [2] * 20)
    uneven = Source(logits[rows], logits[rows].log_softmax(-1), torch.zeros(300, 2), torch.zeros(0, 300))
    shares = torch.tensor([250, 30, 20]) / 300
    found = familiarity(models, uneven, {})
    assert found.evenness == pytest.approx(effective_classes(shares, 300)) and found.furthest == 0.3
    shifted = replace(models, restorations=("invert",))
    assert familiarity(shifted, uneven, {}).furthest == 1.0, "restorations explain it"


def test_an_expert_of_two_classes_is_not_better_for_being_sure(clip_done):
    models = Models(clip_done.experts("shade"), None, clip_done.head("shade"), clip_done.unlabelled("shade"))
    heads = {"two": ClassCount(2), "nine": ClassCount(9)}
    models = replace(models, experts=replace(models.experts, strangers=heads))
    logits = 2 * torch.eye(3).repeat(100, 1)
    reference = Source(logits, logits.log_softmax(-1), torch.zeros(300, 2), torch.zeros(0, 300))
    known = familiarity(models, reference, {}).information
    sure = familiarity(models, reference, {"two": 1.2 * known})
    assert sure.other is None, "of its own two classes, but it knows less in nats"
    assert familiarity(models, reference, {"two": 1.2 * known, "nine": 1.1 * known}).other == "nine"


def test_another_tasks_images_are_known_as_such(clip_done, tmp_path):
    """Experts of tasks whose images they were trained on; the task's own expert sees stripes of another task."""
    clip_done.tasks["shade"].unlabelled = make_dataset("stripes", 24, 1)
    clip_done._images.pop("shade")
    strangers = clip_done.experts("shade").strangers
    assert set(strangers) == {"stripes", "colour"} and strangers["stripes"].class_names == TASKS["stripes"]
    kept = clip_done.specialize(specialize_arguments(tmp_path), tasks=["shade"])["shade"]
    assert kept.decision.chosen == "expert" and kept.decision.reason.startswith("no improvement shown")


def test_nothing_is_trained_from_what_is_no_evidence(clip_done, tmp_path, caplog):
    (picture,) = make_dataset("shade", 1, 0)["image"]
    noise = np.random.default_rng(0).integers(-3, 4, (24, *np.asarray(picture).shape))
    clip_done.tasks["shade"].unlabelled = list(np.clip(picture + noise, 0, 255).astype(np.uint8))
    clip_done._images.pop("shade")
    made = clip_done.specialize(specialize_arguments(tmp_path / "gate"), tasks=["shade"])["shade"]
    assert "too few clearly different images to show an improvement: 1" in made.decision.reason
    assert "shade: nothing is trained" in caplog.text and not made.history and made.kept == "expert"
    assert not made.decision.trained and not any((made.decision.changed, made.decision.agreement_gain))
    expert = clip_done.pool.tower("shade").state_dict()
    for gated in (True, False):
        assert all(torch.equal(tensor, expert[name]) for name, tensor in made.tower(gated).state_dict().items())
    trained = clip_done.specialize(specialize_arguments(tmp_path / "none", gate=False), tasks=["shade"])["shade"]
    assert (
        trained.history
        and trained.decision.trained
        and trained.decision.reason.startswith("gate off (no improvement shown")
    )
    assert any(not torch.equal(tensor, expert[name]) for name, tensor in trained.tower().state_dict().items())


# The study


@pytest.mark.parametrize("kind", [kind for kind, hostile in HOSTILE.items() if hostile.expert == "own"])
def test_hostile_sets_are_what_they_are_called(clip_done, kind):
    given = Request(clip_done, "shade", 0)
    images, again = HOSTILE[kind].images(given), HOSTILE[kind].images(given)
    assert images.key == again.key and len(images) > 1
    different = {"one-picture": 1, "ten-pictures": FEW, "near-copies": FEW, "black": 1}
    if kind in different:
        assert images.different() == different[kind]


def test_a_head_is_shuffled(clip_done):
    head = clip_done.head("shade")
    mixed = shuffled(head, 1)
    features = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))[:, : head.width]
    a, b = head(features), mixed(features)
    assert not torch.equal(a, b) and torch.equal(a.sort(dim=1).values, b.sort(dim=1).values)
    assert mixed.class_names == head.class_names


@pytest.mark.slow
def test_the_study_measures_and_goes_on(clip_paths, tmp_path, monkeypatch):
    from conftest import write_recipe

    from hf_mdft import Recipe
    from hf_mdft.studies.hostile import study

    recipe, lines = Recipe.load(write_recipe(tmp_path, clip_paths)), []
    options = {"tasks": ["shade"], "seeds": [0], "max_steps": 2}
    rows = hostile_study(recipe, tmp_path / "work", lines.append, **options)
    assert [row.kind for row in rows] == list(HOSTILE) and len(lines) == len(HOSTILE)
    kept = {row.kind: row.chosen for row in rows}
    assert {kept[kind] for kind in ("one-picture", "ten-pictures", "near-copies", "black")} == {"expert"}
    assert all(row.kept == row.expert for row in rows if row.chosen == "expert")
    monkeypatch.setattr(study, "specialize_task", lambda *_, **__: pytest.fail("made again"))
    assert hostile_study(recipe, tmp_path / "work", lines.append, **options) == rows


def test_the_table_names_what_lost():
    rows = [
        HostileRow("noise", "a", 0, 480, 0.7, 0.5, 0.7, "expert", "no improvement shown", 480, 0.2, 0.3, 0.0),
        HostileRow(
            "noise", "b", 0, 480, 0.7, 0.6, 0.6, "specialist", "10 % of predictions changed", 16, 0.9, 0.8, 1.2
        ),
    ]
    tables = as_markdown(rows)
    assert "| 2 | 1 | 70.0 | -15.00 | -5.00 | -10.0 | 1 |" in tables["hostile"]
    assert "| noise | b | 0 | 70.0 | -10.0 |" in tables["below"]
    assert "| noise | 16 to 480 | 0.20 to 0.90 | 0.30 to 0.80 | 0.00 to 1.20 |" in tables["evidence"]
