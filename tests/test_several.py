"""Several experts of one task: found, weighed, combined, taught from; and teachers from outside the pool."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    TASKS,
    call,
    edited,
    fit_arguments,
    make_dataset,
    perturbed,
    pool_of,
    specialize_arguments,
    write_recipe,
)
from peft import get_peft_model
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_mdft import InputError, MdftConfig, MetaMerger, ModelPool, Task
from hf_mdft.core.class_names import displaced_classes, order_by_name, same_classes, shared_classes
from hf_mdft.core.reference import PoolReference
from hf_mdft.embedding import embed_images, embed_views
from hf_mdft.experts import (
    RelatedExpert,
    Source,
    TaskExperts,
    average_model,
    combined,
    greedy_average,
    learned_average,
    related_experts,
    weigh,
)
from hf_mdft.experts.average import model_stock
from hf_mdft.experts.ensemble import temperature, vote
from hf_mdft.experts.observation import observe_outside
from hf_mdft.experts.rank import h_score
from hf_mdft.experts.related import completed, related_shares
from hf_mdft.experts.weights import _groups
from hf_mdft.heads import LinearHead, build_expert_heads, build_head
from hf_mdft.recipes.schema import Recipe
from hf_mdft.shifts import SHIFTS
from hf_mdft.shifts.images import ShiftedImages
from hf_mdft.specialize import one_task, specialize_task
from hf_mdft.specialize.given import as_asked
from hf_mdft.specialize.starts import find_start
from hf_mdft.specialize.teacher import Models
from hf_mdft.studies.rank import spearman
from hf_mdft.tasks.pictures import pictures
from hf_mdft.teachers import OutsideTeacher, outside_teachers
from hf_mdft.teachers.classes import among, columns_of
from hf_mdft.teachers.classifier import scale_of


NUMBERS = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(clip_paths, tmp_path_factory):
    """Three experts of one task."""
    folder = tmp_path_factory.mktemp("runs")
    for number in NUMBERS:
        perturbed(CLIPVisionModel.from_pretrained(clip_paths["base"]), 200 + number).save_pretrained(
            folder / f"run-{9 + number}"
        )
    return folder


@pytest.fixture(scope="module")
def several(clip_paths, runs):
    return ModelPool.from_pretrained(
        clip_paths["base"], {"shade": f"{runs}/run-*", "colour": clip_paths["colour"], "stripes": None}
    )


def vit_expert(folder, vit_paths, names, seed):
    base = ViTForImageClassification.from_pretrained(vit_paths["base"])
    shape = {k: v for k, v in base.config.to_dict().items() if k not in ("id2label", "label2id")}
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    expert = ViTForImageClassification(ViTConfig(**{**shape, **labels}))
    expert.vit.load_state_dict(base.vit.state_dict())
    perturbed(expert, seed).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reordered(vit_paths, tmp_path_factory):
    """Three experts with classifiers of their own, two of which list the classes in another order and spelling."""
    folder = tmp_path_factory.mktemp("reordered")
    return [
        vit_expert(folder / "a", vit_paths, ["dark", "middle", "bright"], 1),
        vit_expert(folder / "b", vit_paths, ["bright", "dark", "middle"], 2),
        vit_expert(folder / "c", vit_paths, ["Middle", "BRIGHT", "_dark"], 3),
    ]


def test_names_and_order(several, runs):
    assert several.experts_of("shade") == ["shade/1", "shade/2", "shade/3"]
    assert several.experts_of("colour") == ["colour"] and several.experts_of("stripes") == []
    assert list(several.experts) == ["shade/1", "shade/2", "shade/3", "colour"] == several.vectors().experts
    found = [several.experts[name].folder.name for name in several.experts_of("shade")]
    assert found == ["run-10", "run-11", "run-12"], "a pattern's folders come in the order of their numbers"
    for number, name in enumerate(several.experts_of("shade")):
        own = CLIPVisionModel.from_pretrained(runs / f"run-{10 + number}").state_dict()
        tower = several.tower(name).state_dict()
        assert all(torch.equal(tower[key], own[key]) for key in tower)


def test_reference_goes_round_and_older_ones_are_read(several, tmp_path):
    reference = json.loads(json.dumps(several.reference(), sort_keys=True))
    assert isinstance(reference["experts"]["shade"], list) and isinstance(reference["experts"]["colour"], dict)
    assert reference["experts"]["stripes"] is None
    again = ModelPool.from_reference(reference)
    assert again.reference() == several.reference() and list(again.experts) == list(several.experts)
    assert PoolReference.from_dict(reference, "x") == several.pinned()
    words = [name for name, _ in several.pinned().models()]
    assert words[:2] == ["the expert of 'shade/1'", "the expert of 'shade/2'"]


def test_patterns_and_copies(clip_paths, runs, tmp_path, caplog):
    with pytest.raises(InputError, match=r"expert of 'shade': no folder with a config.json .*matches .*nothing-\*"):
        ModelPool.from_pretrained(clip_paths["base"], {"shade": str(tmp_path / "nothing-*")})
    copy = shutil.copytree(runs / "run-10", tmp_path / "copy")
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": [runs / "run-10", copy, runs / "run-11"]})
    assert pool.experts_of("shade") == ["shade/1", "shade/2"]
    assert f"{copy}: the same weights as {runs / 'run-10'}, also named for task 'shade'" in caplog.text
    with pytest.raises(InputError, match="the expert of 'shade' is the base itself"):
        ModelPool.from_pretrained(clip_paths["base"], {"shade": [runs / "run-10", clip_paths["base"]]})


def test_recipe_takes_lists_and_patterns(clip_paths, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade="runs/run-*", colour=[str(clip_paths["colour"])]))
    assert list(Recipe.load(recipe).pool().experts) == ["shade/1", "shade/2", "shade/3", "colour", "stripes"]
    edited(recipe, lambda c: c["pool"]["experts"].update(shade=[{"a": 1}]))
    with pytest.raises(InputError, match=r"pool.experts.shade must be a folder or a Hub id, or a list of them, got"):
        Recipe.load(recipe)


def source(classes, consistency, num_classes=4, sure=0.9):
    probabilities = torch.full((len(classes), num_classes), (1 - sure) / (num_classes - 1))
    probabilities[torch.arange(len(classes)), classes] = sure
    log_probs = probabilities.log()
    features = F.one_hot(classes, num_classes).float() + 0.01 * torch.randn(len(classes), num_classes)
    return Source(log_probs, log_probs, features, classes[None], consistency)


def noisy(truth, accuracy, seed):
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(truth), generator=generator) > accuracy
    return torch.where(wrong, torch.randint(0, 4, truth.shape, generator=generator), truth)


def test_weights_find_the_bad_and_the_good():
    truth = torch.arange(4).repeat(100)
    good = {str(n): source(noisy(truth, 0.7, n), 0.8) for n in range(3)}
    even = weigh(good)
    assert sum(even.values()) == pytest.approx(1) and max(even.values()) < 2 * min(even.values())
    assert weigh({**good, "bad": source(noisy(truth, 0.0, 9), 0.75)})["bad"] < 0.01
    better = weigh({**good, "strong": source(noisy(truth, 0.98, 8), 0.95)})
    assert better["strong"] > 0.8 and max(better, key=better.get) == "strong"
    assert weigh({"one": good["0"]}) == {"one": 1.0}


def test_models_with_the_same_outputs_share_a_vote():
    truth = torch.arange(4).repeat(100)
    a, b, c = (source(noisy(truth, 0.7, n), 0.8) for n in range(3))
    alone, twice = weigh({"a": a, "b": b, "c": c}), weigh({"a": a, "copy": a, "b": b, "c": c})
    assert twice["a"] == pytest.approx(twice["copy"]) and twice["a"] + twice["copy"] == pytest.approx(
        alone["a"], abs=0.05
    )


def test_of_two_the_one_that_knows_nothing_is_left_out():
    truth = torch.arange(4).repeat(100)
    unsure = source(noisy(truth, 0.0, 1), 0.9, sure=0.3)
    assert weigh({"unsure": unsure, "good": source(noisy(truth, 0.7, 2), 0.7)}) == {"unsure": 0.0, "good": 1.0}


def test_ensemble_is_the_confident_geometric_mean():
    torch.manual_seed(0)
    logits = torch.randn(2, 50, 4)
    both = {str(n): Source(x, x.log_softmax(-1), torch.randn(50, 3), x.argmax(-1)[None]) for n, x in enumerate(logits)}
    found = combined(both, {"0": 0.25, "1": 0.75})
    heat = torch.tensor([temperature(x, 1.0) for x in logits])
    heat = (heat / (heat.log() * torch.tensor([0.25, 0.75])).sum().exp())[:, None, None]
    shares = torch.tensor([0.25, 0.75])[:, None, None] * (logits / heat).softmax(-1).amax(-1, keepdim=True)
    wanted = ((shares * (logits / heat).log_softmax(-1)).sum(0) / shares.sum(0)).softmax(-1)
    torch.testing.assert_close(found.log_probs.exp(), wanted)
    assert found.features is both["1"].features and found.joint_features.shape == (50, 6)
    views = [x.argmax(-1)[None] for x in logits]
    assert torch.equal(vote(views, [0.25, 0.75], 4), views[1]), "the larger weight has the vote of two"
    assert combined(both, {"0": 1.0, "1": 0.0}) is both["0"]


@pytest.mark.parametrize("confidence", [0.4, 0.6, 0.9])
def test_temperature_gives_the_wanted_mean_confidence(confidence):
    logits = 2 * torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    found = (logits / temperature(logits, confidence)).softmax(-1).amax(-1).mean().item()
    assert abs(found - confidence) < 0.01


def test_a_model_that_is_surer_than_it_is_consistent_counts_less():
    """Two models contradict each other with the same confidence; small translations change one's predictions often."""
    logits = 2 * torch.eye(4).repeat(2, 100, 1)
    logits[1] = logits[1].roll(1, dims=-1)
    pair = {
        name: Source(x, x.log_softmax(-1), torch.randn(400, 3), x.argmax(-1)[None], consistency=consistency)
        for name, x, consistency in zip("ab", logits, (0.9, 0.5), strict=True)
    }
    even = {"a": 0.5, "b": 0.5}
    found = combined(pair, even)
    assert torch.equal(found.log_probs.argmax(-1), pair["a"].predictions)
    assert torch.equal(found.logits.argmax(-1), pair["a"].predictions)
    alike = {name: replace(source, consistency=0.7) for name, source in pair.items()}
    top = combined(alike, even).log_probs.topk(2, dim=-1).values
    torch.testing.assert_close(top[:, 0], top[:, 1])


def test_coefficients_are_learned_within_the_span_of_the_experts(several, unlabelled_data):
    """They fit the targets better than the average that they start as, and nothing but coefficients moves."""
    merger = MetaMerger(several, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})
    experts, images = merger.experts("shade"), merger.unlabelled("shade")
    seen = experts.observe(images)
    wanted = seen["shade/1"].logits.mul(20).softmax(-1)
    weights = {"shade/1": 0.4, "shade/2": 0.6, "shade/3": 0.0}
    tower, head = learned_average(experts, weights, images, wanted)

    def loss(tower, head):
        found = head(embed_images(tower, several.architecture, images))
        return -(wanted * found.log_softmax(-1)).sum(-1).mean().item()

    assert loss(tower, head) < loss(*average_model(experts, images, weights))
    base, first, second = (several.tower(name).state_dict() for name in (None, "shade/1", "shade/2"))
    rises = []
    for key, value in tower.named_parameters():
        vectors = torch.stack([(state[key] - base[key]).flatten() for state in (first, second)], dim=1).double()
        moved = (value - base[key]).flatten().double()
        found = torch.linalg.lstsq(vectors, moved[:, None]).solution
        torch.testing.assert_close(vectors @ found, moved[:, None], atol=2e-4, rtol=1e-3)  # half precision
        rises.append(found[0].item() - 0.4)
    assert max(map(abs, rises)) > 0.1
    again, _ = learned_average(experts, weights, images, wanted)
    assert all(torch.equal(a, b) for a, b in zip(tower.parameters(), again.parameters(), strict=True))


def test_coefficients_are_compared_on_images_that_they_were_not_learned_on(several, unlabelled_data, monkeypatch):
    learned, compared = [], []

    def learn(experts, weights, images, targets, **options):
        learned.append((images, targets))
        return average_model(experts, images, weights)

    def embed(models, tower, title, views, images=None):
        compared.append(images)
        return embed_views(tower, several.architecture, images, views)

    monkeypatch.setattr("hf_mdft.specialize.starts.learned_average", learn)
    monkeypatch.setattr(Models, "embed", embed)
    merger = MetaMerger(several, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})
    experts, images = merger.experts("shade"), merger.unlabelled("shade")
    models = Models(experts, several.tower(), merger.head("shade"), images)
    probabilities = torch.rand(len(images), 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    find_start(models, SimpleNamespace(probabilities=probabilities), dict.fromkeys(experts.heads, 1 / 3))
    ((rest, targets),) = learned
    seen = {tuple(images.rows) for images in compared}
    assert len(compared) == 6 and len(seen) == 1, "three experts, their average, Model Stock, learned coefficients"
    assert not set(rest.rows) & set(*seen) and len(rest) + len(*seen) == len(images)
    assert torch.equal(targets, probabilities[torch.isin(torch.tensor(images.rows), torch.tensor(rest.rows))])


def test_coefficients_start_at_the_average_of_all_experts(several):
    """One over the number of experts, of all tasks, not of tasks."""
    config = MdftConfig(pool=several.reference())
    assert len(several.experts) == 4 and config.start == 1 / 4
    model = get_peft_model(several.tower(), config)
    states = [several.tower(name).state_dict() for name in several.experts]
    for name, value in model.merge_and_unload().state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[name] for state in states]).mean(dim=0)
            torch.testing.assert_close(value, mean, atol=1e-3, rtol=1e-3)


def test_average_and_model_stock(several, unlabelled_data):
    merger = MetaMerger(several, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})
    images = merger.unlabelled("shade")
    head = build_head("shade", Task(None, class_names=TASKS["shade"]), several)
    experts = TaskExperts("shade", several, dict.fromkeys(several.experts_of("shade"), head))
    tower, mean = average_model(experts, images)
    states = [several.tower(name).state_dict() for name in several.experts_of("shade")]
    for key, value in tower.state_dict().items():
        torch.testing.assert_close(value, torch.stack([state[key] for state in states]).mean(0), atol=1e-6, rtol=1e-5)
    assert mean is not None and mean.class_names == head.class_names
    tower, _ = average_model(experts, images, {"shade/1": 3.0, "shade/2": 0.0, "shade/3": 1.0})
    for key, value in tower.state_dict().items():
        torch.testing.assert_close(value, 0.75 * states[0][key] + 0.25 * states[2][key], atol=1e-6, rtol=1e-5)
    a = torch.randn(8)
    torch.testing.assert_close(model_stock(torch.stack([a, a]), torch.tensor([0.5, 0.5])), a)
    right = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(model_stock(right, torch.tensor([0.5, 0.5])), torch.zeros(2))


@torch.no_grad()
def test_linear_heads_are_matched_by_name(vit_paths, reordered, pixels):
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": reordered})
    task = Task(None, class_names=["bright", "middle", "dark"])
    head = build_head("shade", task, pool)
    heads = build_expert_heads("shade", task, pool, head)
    for folder, (name, own) in zip(reordered, heads.items(), strict=True):
        model = ViTForImageClassification.from_pretrained(folder).eval()
        labels = [label.strip("_").lower() for label in model.config.id2label.values()]
        wanted = model(pixels).logits[:, [labels.index(c) for c in task.class_names]]
        found = own(pool.architecture.features(pool.tower(name)(pixel_values=pixels)))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.weight, torch.stack([own.weight for own in heads.values()]).mean(0))


def test_classes_that_differ_are_refused_by_name(vit_paths, reordered, tmp_path):
    other = vit_expert(tmp_path / "other", vit_paths, ["dark", "middle", "pink"], 5)
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": [*reordered[:1], other]})
    with pytest.raises(InputError, match=r"the classes of .*other are not those of .*a \(class 'pink'\)"):
        build_head("shade", Task(None), pool)


def test_experts_that_name_no_classes_are_told(vit_paths, tmp_path, caplog):
    nameless = [vit_expert(tmp_path / str(n), vit_paths, [f"LABEL_{i}" for i in range(3)], n) for n in (1, 2)]
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": nameless})
    assert build_head("shade", Task(None, class_names=TASKS["shade"]), pool).class_names == TASKS["shade"]
    assert "name no classes ('LABEL_0', ...); they are matched by their numbers" in caplog.text


@pytest.fixture(params=["clip", "vit"])
def pool_of_three(request, several, vit_paths, reordered):
    if request.param == "clip":
        return several
    return ModelPool.from_pretrained(vit_paths["base"], {"shade": reordered, "colour": vit_paths["colour"]})


def test_both_phases(pool_of_three, unlabelled_data, test_data, tmp_path):
    tasks = {
        name: Task(unlabelled_data[name], test_data[name], class_names=TASKS[name])
        for name in pool_of_three.tasks
        if name != "stripes"
    }
    merger = MetaMerger(pool_of_three, tasks)
    merger.fit(fit_arguments(tmp_path))
    made = merger.specialize(specialize_arguments(tmp_path, gate=False))
    shade = made["shade"]
    assert set(shade.trust.weights) == {"shade/1", "shade/2", "shade/3"} and shade.expert in shade.trust.weights
    assert shade.expert == merger.expert("shade") and made["colour"].trust.weights == {"colour": 1.0}
    report = merger.evaluate()
    rows = report.accuracy
    for row in ("experts_mean", "experts_average", "experts_greedy", "ensemble", "ensemble_views"):
        assert set(rows[row]) == set(tasks), row
        if row in ("experts_mean", "experts_average", "experts_greedy"):
            assert rows[row]["colour"] == rows["expert"]["colour"]
    assert (
        report.passes["ensemble"] == 3 and report.passes["ensemble_views"] == 27 and report.passes["specialist"] == 1
    )
    one_by_one = [
        (h(pool_of_three.architecture.features(pool_of_three.tower(n)(pixel_values=p))).argmax(-1) == y).float().mean()
        for n, h in merger.expert_heads("shade").items()
        for p, y in [(next(merger.labelled("shade").images.batches(99)), merger.labelled("shade").labels)]
    ]
    assert rows["experts_mean"]["shade"] == pytest.approx(torch.stack(one_by_one).mean().item(), abs=1e-6)
    gap = sum(rows["specialist"].values()) - sum(rows["ensemble_views"].values())
    assert report.overall_ensemble_views.difference == pytest.approx(gap / len(tasks), abs=1e-6)
    assert "Specialists over ensembles of experts with 9 views" in str(report)
    shade.save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "from the 3 experts below" in card and "ensemble of the task's experts, 9 views | " in card
    assert json.loads(json.dumps(report.to_dict()))["trust"]["shade"]["expert"] == shade.expert
    labels = merger.labelled("shade")
    with torch.no_grad():
        features = pool_of_three.architecture.features(shade.tower()(pixel_values=next(labels.images.batches(99))))
        mine = (shade.head(features).argmax(-1) == labels.labels).float().mean().item()
    assert rows["specialist"]["shade"] == pytest.approx(mine, abs=1e-6), "measured with the head that it is kept with"


def test_refused_students_leave_the_chosen_expert(several, tasks, tmp_path):
    merger = MetaMerger(several, {"shade": tasks["shade"]})
    made = specialize_task(
        "shade", several, several.tower(), merger.head("shade"), merger.unlabelled("shade").sample(9, 0),
        specialize_arguments(tmp_path), experts=merger.experts("shade"),
    )  # fmt: skip
    assert not made.improved and made.kept == made.expert != "shade"
    expert = several.tower(made.expert).state_dict()
    assert all(torch.equal(value, expert[key]) for key, value in made.tower().state_dict().items())


def test_rounds_go_on_with_one_expert(pool_of_three, unlabelled_data, tmp_path):
    merger = MetaMerger(pool_of_three, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})
    merger.fit(fit_arguments(tmp_path))
    merger.specialize(specialize_arguments(tmp_path, rounds=2, gate=False))
    first, second = (held["shade"] for held in merger.rounds)
    assert second.pool.experts_of("shade") == ["shade"] and second.trust.expert == first.trust.expert
    assert second.trust.weights == first.trust.weights and second.trust.start == "specialist of the round before"
    second.save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "started at the specialist of the round before" in card and "None" not in card.split("---")[2]
    weights = [made.head.state_dict() for made in (first, second)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]), "heads stay with their students"


# Teachers from outside the pool


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A ResNet of another input size, with more classes in another order, and a zero-shot CLIP."""
    folder = tmp_path_factory.mktemp("big")
    names = ["cat", "bright, very light", "Dark", "middle"]
    torch.manual_seed(3)
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **labels)
    ResNetForImageClassification(config).eval().save_pretrained(folder / "resnet")
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder / "resnet")
    return folder


def taught(big, unlabelled_data, test_data=None):
    evaluation = test_data and test_data["shade"]
    return Task(unlabelled_data["shade"], evaluation, class_names=TASKS["shade"], teachers=str(big / "resnet"))


def test_classes_are_matched_by_name():
    columns = columns_of(["dark", "bright", "middle"], ["cat", "bright, very light", "Dark", "middle", "dark"], "x")
    assert columns == [[4], [1], [3]], "the very spelling goes first"
    logits = torch.tensor([[5.0, 1.0, 0.0, 2.0, 0.0]])
    found = among(logits, [[2, 4], [1], [3]]).exp()
    wanted = torch.tensor([2 * 1.0, torch.e, torch.e**2])
    torch.testing.assert_close(found[0], wanted / wanted.sum())
    with pytest.raises(InputError, match="x: it has no class 'pink', and a teacher needs all classes"):
        columns_of(["dark", "pink"], ["dark"], "x")


@torch.no_grad()
def test_a_teacher_computes_what_transformers_does(big, clip_pool, unlabelled_data):
    merger = MetaMerger(
        clip_pool,
        {"shade": taught(big, unlabelled_data)},
    )
    (teacher,) = merger.teachers("shade")
    images = merger.unlabelled("shade").subset([3, 0, 7])
    (found,) = teacher.log_probs(images, ((0, 0),), device="cpu")
    model = ResNetForImageClassification.from_pretrained(big / "resnet").eval()
    processor = ViTImageProcessor.from_pretrained(big / "resnet")
    rows = [unlabelled_data["shade"][n]["image"] for n in (3, 0, 7)]
    logits = model(**processor(rows, return_tensors="pt")).logits[:, [2, 3, 1]]
    torch.testing.assert_close(found, logits.log_softmax(-1), atol=2e-2, rtol=2e-2)  # pictures are kept as bytes
    shown = [picture for batch in pictures(images, "shade", merger.tasks["shade"], 2) for picture in batch]
    assert [picture.tobytes() for picture in shown] == [row.convert("RGB").tobytes() for row in rows]


@torch.no_grad()
def test_a_zero_shot_teacher(clip_paths, vit_pool, unlabelled_data, tmp_path):
    task = Task(unlabelled_data["shade"], templates=["a photo of a {}."], teachers=str(clip_paths["base"]))
    merger = MetaMerger(vit_pool, {"shade": task})
    (teacher,) = merger.teachers("shade")
    images = merger.unlabelled("shade").subset([1, 2])
    (found,) = teacher.log_probs(images, ((0, 0),), device="cpu")
    model = CLIPModel.from_pretrained(clip_paths["base"]).eval()
    tokens = AutoTokenizer.from_pretrained(clip_paths["base"])(
        [f"a photo of a {name}." for name in TASKS["shade"]], padding=True, return_tensors="pt"
    )
    rows = [unlabelled_data["shade"][n]["image"] for n in (1, 2)]
    from transformers import CLIPImageProcessor

    pixel_values = CLIPImageProcessor.from_pretrained(clip_paths["base"])(rows, return_tensors="pt")["pixel_values"]
    wanted = model(**tokens, pixel_values=pixel_values).logits_per_image.log_softmax(-1)
    torch.testing.assert_close(found, wanted, atol=5e-2, rtol=5e-2)


def test_both_phases_with_a_teacher(big, clip_pool, unlabelled_data, test_data, tmp_path, monkeypatch):
    tasks = {
        "shade": Task(
            unlabelled_data["shade"], test_data["shade"], class_names=TASKS["shade"], teachers=str(big / "resnet")
        ),
        "colour": Task(unlabelled_data["colour"], test_data["colour"], class_names=TASKS["colour"]),
    }
    merger = MetaMerger(clip_pool, tasks)
    merger.fit(fit_arguments(tmp_path))
    made = merger.specialize(specialize_arguments(tmp_path, gate=False))["shade"]
    assert set(made.trust.weights) == {"shade", "teacher resnet"}
    made.save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Teachers from outside the pool" in card and "`resnet` (a local folder" in card and str(big) not in card
    monkeypatch.setattr(OutsideTeacher, "_run", lambda *_: pytest.fail("computed again"))
    again = MetaMerger(clip_pool, tasks)
    again.fit(fit_arguments(tmp_path / "again"))
    assert again.specialize(specialize_arguments(tmp_path / "again", gate=False))["shade"].trust == made.trust
    student = [load_file(s.candidate / "model.safetensors") for s in (made, again.specialists["shade"])]
    assert all(torch.equal(student[0][key], student[1][key]) for key in student[0])


def test_a_teacher_of_a_task_without_an_expert(big, clip_paths, unlabelled_data, test_data, tmp_path):
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": None, "colour": clip_paths["colour"]})
    task = taught(big, unlabelled_data, test_data)
    merger = MetaMerger(pool, {"shade": task})
    merger.fit(fit_arguments(tmp_path))
    made = merger.specialize(specialize_arguments(tmp_path, gate=False))["shade"]
    assert made.trust.weights == {"teacher resnet": 1.0} and made.expert is None and made.trust.start == "meta-model"
    merger.evaluate()


def test_the_scale_of_cosines_is_the_models_own():
    """ALIGN keeps a temperature, CLIP the logarithm of its inverse."""
    align, clip, plain = torch.nn.Module(), torch.nn.Module(), torch.nn.Module()
    align.temperature, clip.logit_scale = torch.nn.Parameter(torch.tensor(0.05)), torch.nn.Parameter(torch.tensor(3.0))
    assert scale_of(align).item() == pytest.approx(20) and scale_of(clip).item() == pytest.approx(math.exp(3))
    assert scale_of(plain).item() == 100


def test_teachers_are_refused_in_the_first_minute(big, clip_paths, vit_paths, tmp_path, monkeypatch, capsys):
    nameless = shutil.copytree(big / "resnet", tmp_path / "nameless")
    config = json.loads((nameless / "config.json").read_text())
    config["id2label"] = {str(n): f"LABEL_{n}" for n in range(4)}
    (nameless / "config.json").write_text(json.dumps(config))
    text = tmp_path / "text"
    text.mkdir()
    (text / "config.json").write_text(json.dumps({"model_type": "bert"}))
    shutil.copy(big / "resnet" / "model.safetensors", text)
    headless = tmp_path / "headless"
    shutil.copytree(big / "resnet", headless)
    several = shutil.copytree(big / "resnet", tmp_path / "several")
    (several / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    large = shutil.copytree(vit_paths["colour"], tmp_path / "large")
    processor = json.loads((vit_paths["base"] / "preprocessor_config.json").read_text())
    (large / "preprocessor_config.json").write_text(json.dumps({**processor, "size": {"height": 48, "width": 48}}))
    cases = {
        str(large): "does not take the 48 x 48 pixels of its image processor",
        str(several): "problem_type is multi_label_classification; a teacher has one label for each image",
        str(big / "resnet"): "resnet, teacher of task 'colour': it has no class 'red', 'green', 'blue' and 1 more",
        str(nameless): "its config names no classes ('LABEL_0', ...), so they cannot be matched by name",
        str(text): "model type 'bert' is no image classifier of transformers",
    }
    for number, (spec, message) in enumerate(cases.items()):
        recipe = write_recipe(tmp_path / str(number), clip_paths, teachers={"colour": [spec]})
        code, _, err = call(["run", recipe, "--output-dir", tmp_path / f"out{number}"], monkeypatch, capsys)
        assert code == 2 and message in err, err
        assert "Preprocessing" not in err, "before any image is read"
    recipe = write_recipe(tmp_path / "unknown", clip_paths, teachers={"color": ["x/y"]})
    with pytest.raises(InputError, match="teachers.color: no such task: did you mean 'colour'"):
        Recipe.load(recipe)


def test_recipe_teachers_are_relative_and_stay_private(big, clip_paths, tmp_path):
    shutil.copytree(big / "resnet", tmp_path / "resnet")
    recipe = write_recipe(tmp_path, clip_paths, teachers={"shade": "./resnet", "colour": ["lab/big@v1"]})
    tasks = Recipe.load(recipe).tasks
    assert tasks["shade"].teachers == [str((tmp_path / "resnet").resolve())]
    assert "teachers" not in tasks["shade"].to_dict() and tasks["colour"].to_dict()["teachers"] == ["lab/big@v1"]
    foreign = Task.from_dict({"teachers": ["lab/big", "/etc", "../x"]}, "x", foreign=True)
    assert foreign.teachers == ["lab/big"]
    assert yaml.safe_load(recipe.read_text())["teachers"]["shade"] == "./resnet"


def test_a_teacher_that_was_never_trained_is_refused(vit_paths, clip_pool, tmp_path):
    from transformers import ViTModel

    names = TASKS["shade"]
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)},
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path / "headless")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "headless")
    task = Task(make_dataset("shade", 4, 0), class_names=names, teachers=str(tmp_path / "headless"))
    merger = MetaMerger(clip_pool, {"shade": task})
    (teacher,) = merger.teachers("shade")
    with pytest.raises(InputError, match="its weights lack 'classifier"):
        teacher.log_probs(merger.unlabelled("shade"), ((0, 0),), device="cpu")


@pytest.fixture
def small(vit_paths, tmp_path):
    """A teacher in a folder, with a change of its weights."""

    def make(change=lambda model: None):
        names = TASKS["shade"]
        config = ViTConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32,
            patch_size=16, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)},
        )  # fmt: skip
        model = ViTForImageClassification(config)
        with torch.no_grad():
            change(model)
        model.save_pretrained(tmp_path / "teacher")
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "teacher")
        return tmp_path / "teacher"

    return make


def test_a_teacher_that_gives_no_numbers_is_refused_before_any_work(small, clip_pool, tmp_path):
    folder = small(lambda model: model.classifier.weight[0, 0].fill_(torch.nan))
    task = Task(make_dataset("shade", 4, 0), class_names=TASKS["shade"], teachers=str(folder))
    merger = MetaMerger(clip_pool, {"shade": task})
    for use in (merger.inputs, merger.checked, lambda: merger.fit(fit_arguments(tmp_path))):
        with pytest.raises(InputError, match="teacher of task 'shade': its outputs are no finite numbers"):
            use()


def test_teachers_are_looked_at_once(small, clip_pool, monkeypatch):
    task = Task(make_dataset("shade", 4, 0), class_names=TASKS["shade"], teachers=str(small()))
    MetaMerger(clip_pool, {"shade": task}).checked()
    monkeypatch.setattr("hf_mdft.teachers.outside.load_classifier", lambda *_: pytest.fail("loaded again"))
    MetaMerger(clip_pool, {"shade": task}).checked()


def test_a_zero_shot_teacher_without_a_tokenizer_is_refused(clip_paths, tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(clip_paths["base"] / name, folder)
    task = Task(make_dataset("shade", 4, 0), class_names=TASKS["shade"], teachers=str(folder))
    with pytest.raises(InputError, match="no tokenizer"):
        MetaMerger(pool_of(clip_paths), {"shade": task}).teachers("shade")


def test_a_zero_shot_teacher_of_classes_that_it_cannot_tell_apart_is_refused(clip_paths):
    task = Task(
        make_dataset("shade", 4, 0),
        class_names=["猫", "犬", "bright"],
        head="linear",
        teachers=str(clip_paths["base"]),
    )
    with pytest.raises(InputError, match="the classes '猫' and '犬' are the same tokens to this model's tokenizer"):
        outside_teachers("shade", task, task.class_names)[0].check()


def test_models_that_are_alike_in_a_chain_are_one_whatever_their_order():
    generator = torch.Generator().manual_seed(0)
    near = torch.rand(400, 3, generator=generator).softmax(-1)  # every class has 0.2 or more

    def moved(share):
        found = near.clone()
        found[:, 0], found[:, 1] = near[:, 0] + share, near[:, 1] - share
        return found.log()

    sources = {name: moved(share) for name, share in {"a": 0.0, "b": 0.015, "c": 0.03, "d": 0.2}.items()}
    for order in ("abcd", "acbd", "dcab"):
        found = _groups(torch.stack([sources[name] for name in order]))
        by_name = dict(zip(order, found.tolist(), strict=True))
        assert by_name["a"] == by_name["b"] == by_name["c"] != by_name["d"]


def test_the_learning_rate_is_that_of_the_experts_that_are_trusted(clip_paths, tmp_path, monkeypatch):
    """One that is left out changes neither the student's rate nor how many steps it takes."""
    seen = {}
    asked = one_task._task_arguments

    def recorded(pool, task, experts, args, work, steps):
        seen["experts"] = experts
        return asked(pool, task, experts, args, work, steps)

    monkeypatch.setattr(one_task, "_task_arguments", recorded)
    monkeypatch.setattr(TaskExperts, "weights", lambda self, *_, **__: dict(zip(self.heads, (1.0, 0.0), strict=True)))
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": [clip_paths["shade"], clip_paths["colour"]]})
    merger = MetaMerger(pool, {"shade": Task(make_dataset("shade", 12, 0))})
    head = merger.head("shade")
    experts = TaskExperts("shade", pool, dict.fromkeys(pool.experts_of("shade"), head))
    args = specialize_arguments(tmp_path, max_steps=1, gate=False)
    specialize_task("shade", pool, pool.tower(), head, merger.unlabelled("shade"), args, experts=experts)
    assert seen["experts"] == ["shade/1"]


# Experts of other tasks


@pytest.mark.parametrize("name", ["LABEL_{}", "label_{}", "class {}"])
def test_placeholders_of_one_task_are_no_classes_of_another(name):
    names = [name.format(number) for number in range(3)]
    assert related_experts("a", names, {"b": {"b": LinearHead(names, weight=torch.eye(3), bias=torch.zeros(3))}}) == []


def test_related_experts_share_classes_by_name():
    torch.manual_seed(0)
    own, other = (
        LinearHead(names, weight=torch.randn(len(names), 4), bias=torch.zeros(len(names)))
        for names in (["a", "b", "c"], ["C", "x", "a"])
    )
    heads = {"mine": {"mine": own}, "theirs": {"theirs": other}, "else": {"else": LinearHead(
        ["a", "q"], weight=torch.randn(2, 4), bias=torch.zeros(2)
    )}}  # fmt: skip
    (found,) = related_experts("mine", own.class_names, heads)
    assert (found.expert, found.classes, found.columns) == ("theirs", (0, 2), (2, 0)), "one shared class tells nothing"


def test_a_related_expert_divides_what_shared_classes_have():
    truth = torch.arange(4).repeat(100)
    mine = {str(n): source(noisy(truth, 0.8, n), 0.8) for n in range(3)}
    weights = weigh(mine)
    together = combined(mine, weights)
    head = LinearHead(["c", "a"], weight=torch.randn(2, 4), bias=torch.zeros(2))
    expert = RelatedExpert("theirs", head, (2, 0), (0, 1))
    good = torch.where(truth == 2, 0, 1)
    good = torch.where(noisy(truth, 0.9, 5) == truth, good, 1 - good)
    theirs = source(good, 0.9, 2)
    shares = related_shares(mine, weights, together, {expert: theirs})
    assert 0.1 < shares["related theirs"] <= 0.5
    found = completed(theirs, expert.classes, together).log_probs.exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(400))
    torch.testing.assert_close(found[:, [1, 3]], together.log_probs.exp()[:, [1, 3]])
    shared = found[:, [2, 0]] / found[:, [2, 0]].sum(-1, keepdim=True)
    torch.testing.assert_close(shared, theirs.log_probs.exp())
    assert not related_shares(mine, weights, together, {expert: source(1 - good, 0.9, 2)}), "it disagrees"


def test_related_experts_are_an_option(clip_pool, unlabelled_data, tmp_path, monkeypatch):
    names = {"shade": ["dark", "middle", "bright"], "colour": ["bright", "dark", "blue", "grey"]}
    tasks = {task: Task(unlabelled_data[task], class_names=own) for task, own in names.items()}
    merger, asked = MetaMerger(clip_pool, tasks), []
    merger.fit(fit_arguments(tmp_path))
    assert [r.expert for r in merger.experts("shade").related] == ["colour"]
    plain = RelatedExpert.observe
    monkeypatch.setattr("hf_mdft.experts.related.LEAST_IMAGES", 1)
    monkeypatch.setattr(
        RelatedExpert, "observe", lambda self, *a, **k: asked.append(self.expert) or plain(self, *a, **k)
    )
    merger.specialize(specialize_arguments(tmp_path / "off", related_experts=False), ["shade"])
    assert not asked
    merger.specialize(specialize_arguments(tmp_path / "on"), ["shade"])
    assert set(asked) == {"colour"}


# Options, order, tables


def test_only_what_the_options_take(several, big, unlabelled_data, tmp_path):
    merger = MetaMerger(several, {"shade": taught(big, unlabelled_data)})
    experts, images = merger.experts("shade"), merger.unlabelled("shade")
    whole = as_asked(experts, specialize_arguments(tmp_path), images)
    assert len(whole.heads) == 3 and len(whole.teachers) == 1
    options = {"further_experts": False, "outside_teachers": False}
    one = as_asked(experts, specialize_arguments(tmp_path, **options), images)
    assert list(one.heads) == [experts.chosen(images)] and not one.teachers
    merger.fit(fit_arguments(tmp_path))
    made = merger.specialize(specialize_arguments(tmp_path, gate=False, **options))["shade"]
    assert made.trust.weights == {made.expert: 1.0} and made.trust.start == "expert"


def test_presets_of_one_model_take_one_expert(several, runs, clip_paths, tmp_path):
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade=f"{runs}/run-*"))
    args = Recipe.load(recipe).with_preset("shot").specialize_arguments(tmp_path)
    assert not (args.further_experts or args.outside_teachers or args.related_experts)


def test_rank_orders_by_trust(several, runs, clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade=f"{runs}/run-*"))
    code, out, _ = call(["pool", "rank", recipe, "--task", "shade", "--format", "json"], monkeypatch, capsys)
    found = json.loads(out)
    assert code == 0 and [r["trust"] for r in found] == sorted((r["trust"] for r in found), reverse=True)
    assert {r["expert"] for r in found} == {"shade/1", "shade/2", "shade/3"}
    vectors = [torch.cat([(several.weights(n).tensor(k) - b).flatten() for k, b in several.weights(None).parameters()])
               for n in ("shade/1", "shade/2", "shade/3")]  # fmt: skip
    cosines = [[F.cosine_similarity(a, b, dim=0).item() for b in vectors if b is not a] for a in vectors]
    wanted = {f"shade/{n + 1}": sum(row) / 2 for n, row in enumerate(cosines)}
    assert {r["expert"]: r["cosine"] for r in found} == pytest.approx(wanted, abs=1e-5)
    code, out, _ = call(["pool", "rank", recipe, "--task", "shade"], monkeypatch, capsys)
    assert code == 0 and out.splitlines()[0].startswith("expert") and len(out.splitlines()) == 4
    code, _, err = call(["pool", "rank", recipe, "--task", "colour"], monkeypatch, capsys)
    assert code == 2 and "task 'colour' has fewer than two experts" in err


def test_h_score_against_its_formula():
    torch.manual_seed(0)
    classes = torch.arange(3).repeat(200)
    features = 4 * F.one_hot(classes, 5).float() + torch.randn(600, 5)
    apart, mixed = h_score(features, classes), h_score(features, classes[torch.randperm(600)])
    assert 0.8 < apart < 1 and mixed < 0.05
    centred = (features - features.mean(0)).double()
    covariance = centred.T @ centred / 600
    means = torch.stack([centred[classes == c].mean(0) for c in range(3)])
    plain = torch.linalg.solve(covariance, means.T @ means / 3).trace().item() / 2
    assert apart == pytest.approx(plain, rel=0.02)


@pytest.mark.slow
def test_study_of_the_order(runs, clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade=f"{runs}/run-*"))
    arguments = ["study", "rank", recipe, "--specialists", "--max-steps", "1", "--output-dir", tmp_path / "rank"]
    code, out, _ = call(arguments, monkeypatch, capsys)
    assert code == 0 and "| trust |" in out
    found = json.loads((tmp_path / "rank" / "rank.json").read_text())
    assert len(found) == 3 and all(0 <= row["specialist"] <= 1 for row in found)
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1) and spearman([1, 2, 2], [3, 1, 1]) == pytest.approx(
        -1
    )


def test_greedy_average_takes_what_helps(several, tasks):
    merger = MetaMerger(several, {"shade": tasks["shade"]})
    experts, images = merger.experts("shade"), merger.unlabelled("shade")
    tower, head = greedy_average(experts, images)
    wanted = experts.ensemble(images).log_probs.argmax(-1)

    def agreement(model):
        pixels = torch.cat(list(images.batches(99)))
        with torch.no_grad():
            found = head(several.architecture.features(model(pixel_values=pixels))).argmax(-1)
        return (found == wanted).float().mean()

    assert agreement(tower) >= agreement(several.tower(experts.chosen(images)))


def test_class_names_are_matched_and_never_guessed():
    assert order_by_name(["crane", "x", "crane"], ["crane", "x", "crane"]) == [0, 1, 2]
    assert order_by_name(["x", "crane", "crane"], ["crane", "x", "crane"]) == [1, 0, 2]
    assert same_classes(["Sea-Lake", "a"], ["A", "sea_lake"]) and not same_classes(["a", "A"], ["A", "A"])
    assert displaced_classes(["bag", "top"], ["top/shirt", "Bag"]) == ["bag"] and not displaced_classes(["a"], ["b"])
    names = ["missile", "projectile, missile", "crane", "crane"]
    assert columns_of(names, names, "x") == [[0], [1], [2], [3]]
    assert columns_of(["missile", "projectile"], names[:2], "x") == [[0], [1]], "a whole name goes first"
    assert columns_of(["A", "a"], ["a", "A", "b"], "x") == [[1], [0]], "spelling decides where it tells classes apart"
    assert shared_classes(["A", "a", "B"], ["a", "b", "A"]) == [(0, 2), (1, 0), (2, 1)]
    assert shared_classes(["A", "b"], ["a", "a ", "B"]) == [(1, 2)], "which of two is not known"
    with pytest.raises(InputError, match="its class 'b, c' stands for both 'b' and 'c'"):
        columns_of(["b", "c"], ["b, c"], "x")


def test_class_names_that_match_in_part_are_refused(vit_pool, test_data):
    with pytest.raises(InputError, match="both name 'green', at different positions, but not all classes alike"):
        build_head("colour", Task(None, class_names=["green", "Rot", "blau", "grey"]), vit_pool)
    task = Task(None, test_data["colour"], class_names=["green", "rot", "blau", "grau"])
    head = LinearHead(task.class_names, weight=torch.randn(4, 16), bias=torch.zeros(4))
    with pytest.raises(InputError, match=r"label 'red' is none of the classes \(green, rot, blau, grau\)"):
        MetaMerger(vit_pool, {"colour": replace(task, head=head)}).labelled("colour")


def test_labels_follow_names_whatever_their_spelling(vit_pool, test_data):
    task = Task(None, test_data["colour"], class_names=["_Grey", "BLUE", "green", "red"])
    found = MetaMerger(vit_pool, {"colour": task}).labelled("colour").labels
    assert torch.equal(found, torch.tensor([3, 2, 1, 0])[torch.tensor(test_data["colour"]["label"])])


def test_a_far_better_teacher_leaves_a_start_and_evidence(several, big, unlabelled_data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hf_mdft.experts.of_task.weigh", lambda seen: {name: float(name.startswith("teacher")) for name in seen}
    )
    merger = MetaMerger(several, {"shade": taught(big, unlabelled_data)})
    experts, images = merger.experts("shade"), merger.unlabelled("shade")
    together = experts.ensemble(images)
    assert together.of_pool and together.features.shape[1] == 16
    assert experts.held_out(images, experts.weights(images)).shape == (4, len(images))
    merger.fit(fit_arguments(tmp_path))
    made = merger.specialize(specialize_arguments(tmp_path, alignment_weight=0.5))["shade"]
    assert made.trust.weights["teacher resnet"] == 1.0 and made.expert in made.trust.start
    assert made.decision.agreement_gain == made.decision.agreement_gain, "no NaN"


def test_teachers_of_one_name_are_told_apart(big, clip_pool, unlabelled_data, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(big / "resnet", tmp_path / folder / "best")
    config = ResNetForImageClassification.from_pretrained(tmp_path / "b" / "best")
    perturbed(config, 5).save_pretrained(tmp_path / "b" / "best")
    task = Task(unlabelled_data["shade"], class_names=TASKS["shade"])
    merger = MetaMerger(clip_pool, {"shade": replace(task, teachers=[str(tmp_path / f / "best") for f in "ab"])})
    weights = merger.experts("shade").weights(merger.unlabelled("shade"))
    assert set(weights) == {"shade", "teacher best, number 1", "teacher best, number 2"}


def test_what_a_teacher_depends_on_is_in_its_key(big, clip_pool, unlabelled_data, tmp_path):
    def key(folder):
        task = Task(unlabelled_data["shade"], class_names=TASKS["shade"], teachers=str(folder))
        (teacher,) = MetaMerger(clip_pool, {"shade": task}).teachers("shade")
        return teacher.key()

    folder = shutil.copytree(big / "resnet", tmp_path / "teacher")
    first = key(folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "dark", "1": "bright", "2": "cat", "3": "middle"}
    (folder / "config.json").write_text(json.dumps(config))
    assert key(folder) != first, "corrected labels"


def test_patterns_with_more_than_one_star(clip_paths, tmp_path, monkeypatch):
    for run in ("x", "y"):
        shutil.copytree(clip_paths["shade" if run == "x" else "colour"], tmp_path / "runs" / run / "best")
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade="runs/*/best"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Recipe.load(recipe).pool().experts_of("shade") == ["shade/1", "shade/2"]


def test_a_teacher_sees_shifted_images_as_they_are_shifted(big, clip_pool, unlabelled_data):
    merger = MetaMerger(clip_pool, {"shade": taught(big, unlabelled_data)})
    plain = merger.unlabelled("shade").subset([0, 1])
    shifted = ShiftedImages(plain, [SHIFTS.get("bright")()], 5, np.zeros(2, dtype=int), 0)
    shown = next(pictures(shifted, "shade", merger.tasks["shade"], 2))
    wanted = shifted.pixels([0, 1]).permute(0, 2, 3, 1).numpy()
    assert all((np.asarray(picture) == pixels).all() for picture, pixels in zip(shown, wanted, strict=True))
    (teacher,) = merger.teachers("shade")
    found = [teacher.log_probs(images, ((0, 0),), device="cpu")[0] for images in (plain, shifted)]
    assert not torch.allclose(*found)


def test_of_uneven_classes_the_student_starts_at_the_expert(several, tasks, tmp_path, monkeypatch):
    """Weights must stay near the expert's, so that is where the way begins."""
    merger = MetaMerger(several, {"shade": tasks["shade"]})
    monkeypatch.setattr("hf_mdft.specialize.one_task.find_start", lambda *_, **__: pytest.fail("another start"))
    module = importlib.import_module("hf_mdft.specialize.gate.familiarity")  # a function has its name
    monkeypatch.setattr(module, "LEAST_COVERAGE", 0.0)
    monkeypatch.setattr(module, "LEAST_EVENNESS", 2.0)
    made = specialize_task(
        "shade", several, several.tower(), merger.head("shade"), merger.unlabelled("shade"),
        specialize_arguments(tmp_path, restore=False), experts=merger.experts("shade"),
    )  # fmt: skip
    assert made.decision.trained and made.trust.start == f"expert {made.expert}"
    between = replace(made, interpolated=tmp_path, trust=replace(made.trust, start="weighted average of the experts"))
    assert " of the way from weighted average of the experts to specialist" in between.kept
    assert f" of the way from {made.expert} to specialist" in replace(made, interpolated=tmp_path).kept


def test_without_views_teachers_from_outside_see_the_image_alone():
    views = [
        torch.tensor([[2.0, 0.0], [0.0, 1.0]]).log_softmax(-1),
        torch.tensor([[0.0, 3.0], [0.0, 1.0]]).log_softmax(-1),
    ]
    alone, averaged = observe_outside(views, averaged=False), observe_outside(views)
    torch.testing.assert_close(alone.log_probs, views[0])
    assert not torch.allclose(averaged.log_probs, views[0]) and alone.consistency == averaged.consistency == 0.5
