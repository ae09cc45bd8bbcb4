"""The face: everything end to end on a tiny pool."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import datasets
import pytest
import torch
import yaml
from conftest import TASKS, both_architectures, fit_arguments, make_dataset, specialize_arguments
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPModel,
    CLIPVisionModel,
    ViTForImageClassification,
    pipeline,
)

from hf_mdft import (
    InputError,
    MdftConfig,
    MdftTrainingArguments,
    MetaMerger,
    ModelPool,
    Task,
    load_head,
)
from hf_mdft.artifacts import open_result
from hf_mdft.evaluation import accuracy, predict
from hf_mdft.heads import LinearHead
from hf_mdft.meta import resume_key
from hf_mdft.specialize.gate import Thresholds
from hf_mdft.specialize.teacher.sources import Meta


def improved(specialist, chosen=True):
    """The same with another decision of the gate."""
    decision = replace(specialist.decision, chosen="specialist" if chosen else "expert")
    return replace(specialist, decision=decision)


@both_architectures
def test_everything(done):
    report = done.evaluate()
    models = {
        "base", "expert", "expert_views", "weight_average", "task_arithmetic", "meta", "specialist_ungated",
        "specialist", "specialist_views",
    }  # fmt: skip
    assert set(report.accuracy) == models
    assert set(report.average) == models
    for model, row in report.accuracy.items():
        assert set(row) == set(TASKS)
        assert report.average[model] == pytest.approx(sum(row.values()) / 3)
    for task in TASKS:
        kept = "specialist_ungated" if report.gate[task].improved else "expert"
        assert report.accuracy["specialist"][task] == report.accuracy[kept][task]
        data = done.labelled(task)
        found = predict(done.pool.tower(task), done.pool.architecture, done.head(task), data.images)
        assert report.accuracy["expert"][task] == accuracy(found, data.labels)
        assert report.comparison[task].images == 12 and report.comparison[task].transductive is False
    assert set(report.coefficients) == {name for name, _ in done.pool.tower().named_parameters()}
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["schema"] == 2 and content["peak_memory_bytes"] > 1e8
    assert set(content["history"]) == {"meta", "specialists"} and set(content["history"]["specialists"]) == set(TASKS)
    assert content["accuracy"] == report.accuracy and content["gate"]["shade"]["images"] == 24
    assert content["pool"] == done.pool.reference() and "specialist shade" in content["timing_s"]
    assert "specialists" in str(report) and "100.0" not in str(report).splitlines()[0]


def test_experts_are_compared_with_transduction_named(pool, unlabelled_data, tmp_path):
    tasks = {"shade": Task(unlabelled=unlabelled_data["shade"], evaluation=unlabelled_data["shade"])}
    tasks["shade"].class_names = TASKS["shade"]
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(tmp_path))
    merger.specialize(specialize_arguments(tmp_path))
    assert merger.evaluate().comparison["shade"].transductive is True


def test_cards_tell_which_images_were_used_before(clip_pool, tasks, tmp_path):
    both = datasets.concatenate_datasets([tasks["shade"].unlabelled, tasks["shade"].evaluation.select(range(3))])
    some = {"shade": Task(unlabelled=both, evaluation=tasks["shade"].evaluation, class_names=TASKS["shade"])}
    merger = MetaMerger(clip_pool, some)
    merger.fit(fit_arguments(tmp_path))
    merger.evaluate()
    merger.save_pretrained(tmp_path / "meta")
    card = (tmp_path / "meta" / "README.md").read_text()
    assert "25.0 % of them are among the unlabelled images (**transductive**)" in card
    assert "One set of weights for 1 tasks" in card


def test_no_card_claims_what_was_not_compared(done, tasks, tmp_path, monkeypatch):
    """Images to evaluate on alone: nothing says whether they were used before, and no others are read."""
    done.save_pretrained(tmp_path / "meta")
    alone = {name: Task(None, task.evaluation, class_names=TASKS[name]) for name, task in tasks.items()}
    again = MetaMerger.from_pretrained(tmp_path / "meta", tasks=alone)
    assert again.evaluate().accuracy["meta"]
    again.save_pretrained(tmp_path / "again")
    card = (tmp_path / "again" / "README.md").read_text()
    assert "not compared with the unlabelled images" in card and "held-out" not in card
    plain = MetaMerger(done.pool, tasks)
    monkeypatch.setattr(plain, "unlabelled", lambda task: pytest.fail("unlabelled images were read"))
    assert plain.evaluate().accuracy["expert"]


def test_a_loaded_meta_model_tells_what_was_done_since(merger, tasks, tmp_path):
    two = {name: tasks[name] for name in ("shade", "colour")}
    first = MetaMerger(merger.pool, two)
    first.fit(fit_arguments(tmp_path, learning_rate=0.02))
    first.save_pretrained(tmp_path / "meta")
    again = MetaMerger.from_pretrained(tmp_path / "meta", tasks=tasks)
    again.evaluate()
    found = again.specialize(specialize_arguments(tmp_path, l2_sp_weight=0.5), ["stripes"])
    found["stripes"].save_pretrained(tmp_path / "stripes")
    again.save_pretrained(tmp_path / "saved")
    for folder in ("stripes", "saved"):
        recipe = yaml.safe_load((tmp_path / folder / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
        assert recipe["meta"]["learning_rate"] == 0.02 and recipe["specialize"]["l2_sp_weight"] == 0.5
        assert set(recipe["tasks"]) == set(TASKS)


def test_heads_that_the_pool_cannot_build_travel_along(merger, tasks, tmp_path):
    head = merger.head("shade")
    head.save(tmp_path / "secret-place.safetensors")
    given = {**tasks, "shade": Task(tasks["shade"].unlabelled, head=str(tmp_path / "secret-place.safetensors"))}
    given["colour"] = Task(tasks["colour"].unlabelled, head=merger.head("colour"))
    made = MetaMerger(merger.pool, given)
    made.fit(fit_arguments(tmp_path))
    made.save_pretrained(tmp_path / "meta")
    (tmp_path / "secret-place.safetensors").unlink()
    again = MetaMerger.from_pretrained(tmp_path / "meta")
    assert all(again.head(task).key() == merger.head(task).key() for task in TASKS)
    assert "secret-place" not in (tmp_path / "meta" / "mdft.json").read_text().replace("secret-place.safetensors", "")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_meta_model_without_its_files(done, tmp_path, name):
    done.save_pretrained(tmp_path / "meta")
    (tmp_path / "meta" / name).unlink()
    torch.save({}, tmp_path / "meta" / "adapter_model.bin")
    with pytest.raises(InputError, match=f"no {name}"):
        MetaMerger.from_pretrained(tmp_path / "meta")


def labels_that_raise(task):
    """Unlabelled images whose label column cannot be decoded."""
    images = make_dataset(task, 24, seed=1)
    broken = [{"bytes": b"no image", "path": None}] * 24
    return images.remove_columns("label").add_column("label", broken).cast_column("label", datasets.Image())


def test_labels_are_never_read_outside_evaluation(pool, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mdft.task_data.read_labelled", lambda *_: pytest.fail("labels were read"))
    data = {task: labels_that_raise(task) for task in TASKS}
    for dataset in data.values():
        with pytest.raises(Exception, match="cannot identify image"):
            dataset[0]
    tasks = {
        task: Task(unlabelled=data[task], evaluation=data[task], class_names=names) for task, names in TASKS.items()
    }
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(tmp_path))
    specialists = merger.specialize(specialize_arguments(tmp_path, rounds=2, gate=False))
    assert set(specialists) == set(TASKS)


def test_labels_do_not_change_anything(pool, tasks, tmp_path):
    """The same images with shuffled labels give the same models."""
    results = []
    for number in range(2):
        for task in tasks.values():
            if number:
                names = task.unlabelled.features["label"]
                shuffled = task.unlabelled["label"][::-1]
                task.unlabelled = task.unlabelled.remove_columns("label").add_column("label", shuffled)
                task.unlabelled = task.unlabelled.cast_column("label", names)
        merger = MetaMerger(pool, tasks)
        merger.fit(fit_arguments(tmp_path / str(number)))
        found = merger.specialize(specialize_arguments(tmp_path / str(number)))
        results.append((merger.model.base_model.coefficients(), found))
    (a, first), (b, second) = results
    assert all(torch.equal(a[name], b[name]) for name in a)
    for task in TASKS:
        x, y = first[task].tower(False).state_dict(), second[task].tower(False).state_dict()
        assert all(torch.equal(x[name], y[name]) for name in x) and first[task].decision == second[task].decision


@both_architectures
def test_meta_model_round_trip(done, tmp_path, pixels):
    done.evaluate()
    done.save_pretrained(tmp_path / "saved")
    assert sum(f.stat().st_size for f in (tmp_path / "saved").iterdir()) < 60_000
    again = MetaMerger.from_pretrained(tmp_path / "saved")
    features = done.pool.architecture.features
    expected = features(done.meta_tower()(pixel_values=pixels))
    assert torch.equal(features(again.meta_tower()(pixel_values=pixels)), expected)
    assert (
        again.head("colour").class_names == TASKS["colour"] and again.head("colour").key() == done.head("colour").key()
    )
    with pytest.raises(InputError, match="no images are known"):
        again.fit(fit_arguments(tmp_path))
    afresh = MetaMerger.from_pretrained(tmp_path / "saved", tasks=done.tasks)
    afresh.fit(fit_arguments(tmp_path / "afresh"))
    assert any(p.requires_grad for p in afresh.model.parameters())
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "import hf_mdft" in card and "| specialists made with it |" in card
    with pytest.raises(InputError, match="no mdft.json"):
        MetaMerger.from_pretrained(tmp_path)


WITHOUT_PACKAGE = """
import sys
sys.modules["hf_mdft"] = None
import torch
from transformers import {kind}
model = {kind}.from_pretrained(sys.argv[1]).eval()
pixels = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save({expression}, sys.argv[3])
"""


def test_specialist_loads_without_this_package(done, tmp_path, pixels):
    done.evaluate()
    specialist = improved(done.specialists["shade"])
    specialist.save_pretrained(tmp_path / "shade")
    torch.save(pixels, tmp_path / "pixels.pt")
    clip = done.pool.architecture.name == "clip"
    kind, expression = (
        ("CLIPVisionModel", "model(pixels).pooler_output")
        if clip
        else ("ViTForImageClassification", "model(pixels).logits")
    )
    script = WITHOUT_PACKAGE.format(kind=kind, expression=expression)
    arguments = [str(tmp_path / name) for name in ("shade", "pixels.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    with torch.no_grad():
        features = done.pool.architecture.features(specialist.tower(False)(pixel_values=pixels))
        expected = features if clip else specialist.head(features)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@both_architectures
def test_towers_alone_and_folded(done, tmp_path, pixels):
    """Of both architectures, with plain transformers' classes."""
    specialist, clip = done.specialists["shade"], done.pool.architecture.name == "clip"
    specialist.save_pretrained(tmp_path / "tower", vision_only=True)
    specialist.save_pretrained(tmp_path / "whole")
    open_result(tmp_path / "whole").forms()["vision-only"](tmp_path / "copy")
    done.save_pretrained(tmp_path / "folded", folded=True)
    expected = {"tower": specialist.tower(), "copy": specialist.tower(), "folded": done.meta_tower()}
    for name, tower in expected.items():
        model = (CLIPModel if clip and name == "folded" else AutoModel).from_pretrained(tmp_path / name).eval()
        model = getattr(model, "vision_model", model)
        with torch.no_grad():
            found, wanted = (done.pool.architecture.features(m(pixel_values=pixels)) for m in (model, tower))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
        AutoImageProcessor.from_pretrained(tmp_path / name)
    cards = {name: (tmp_path / name / "README.md").read_text() for name in ("tower", "copy", "folded")}
    assert cards["tower"] == cards["copy"] and "vision tower alone" in cards["tower"]
    head = load_head(tmp_path / "folded" / "heads" / "shade.safetensors")
    assert head.key() == done.meta_head("shade").key() != done.head("shade").key()
    with pytest.raises(InputError, match="a folded meta-model is a plain model"):
        MetaMerger.from_pretrained(tmp_path / "folded")


@both_architectures
def test_specialist_folder_is_complete(done, tmp_path, unlabelled_data):
    done.evaluate()
    for task, specialist in done.specialists.items():
        specialist.save_pretrained(tmp_path / task)
    names = {path.name for path in (tmp_path / "shade").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "head.safetensors"} <= names
    image = unlabelled_data["shade"][0]["image"]
    if done.pool.architecture.name == "clip":
        assert "tokenizer.json" in names
        CLIPModel.from_pretrained(tmp_path / "shade")
        CLIPVisionModel.from_pretrained(tmp_path / "shade")
        classify = pipeline("zero-shot-image-classification", model=str(tmp_path / "shade"))
        answers = classify(image, candidate_labels=TASKS["shade"], hypothesis_template="a photo of a {}.")
    else:
        model = ViTForImageClassification.from_pretrained(tmp_path / "shade")
        assert list(model.config.id2label.values()) == TASKS["shade"]
        answers = pipeline("image-classification", model=str(tmp_path / "shade"))(image)
    assert {answer["label"] for answer in answers} == set(TASKS["shade"])
    AutoModel.from_pretrained(tmp_path / "shade")
    pool = ModelPool.from_pretrained(done.pool.base.folder, {task: tmp_path / task for task in TASKS})
    expected = done.specialists["colour"].tower().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in pool.tower("colour").state_dict().items())


def test_overall_difference_is_the_averages(done):
    report = done.evaluate()
    kept, experts = (report.average[model] for model in ("specialist", "expert"))
    assert report.overall.difference == pytest.approx(kept - experts, abs=1e-6)
    assert report.overall.low <= report.overall.difference <= report.overall.high
    assert "Specialists over experts" in str(report)


def test_phases_may_differ_in_precision(merger, tmp_path):
    """Both sets of arguments are made before either phase runs, as a recipe does."""
    first = fit_arguments(tmp_path / "meta")
    second = specialize_arguments(tmp_path / "specialists", bf16=True, use_cpu=True)
    merger.fit(first)
    assert merger.specialize(second, ["shade"])
    assert first.mixed_precision == "no" and second.mixed_precision == "bf16"
    merger.fit(fit_arguments(tmp_path / "again"))


def test_a_second_call_of_specialize_does_not_keep_the_first_ones_results(merger, tmp_path, monkeypatch):
    merger.fit(fit_arguments(tmp_path))
    first = merger.specialize(specialize_arguments(tmp_path / "first", gate=False))
    assert all(specialist.improved for specialist in first.values())
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", Thresholds(consistency_gain=2.0, information_gain=2.0))
    second = merger.specialize(specialize_arguments(tmp_path / "second"))
    assert not any(specialist.improved for specialist in second.values())
    assert all("second" in str(specialist.candidate) for specialist in second.values())


@pytest.mark.slow
def test_rounds_put_specialists_into_the_pool(merger, tmp_path):
    merger.fit(fit_arguments(tmp_path))
    specialists = merger.specialize(specialize_arguments(tmp_path, rounds=2, gate=False))
    for task, specialist in specialists.items():
        assert "round-2" in str(specialist.candidate)
        source = specialist.pool.experts[task].folder
        assert "round-1" in str(source)
    report = merger.evaluate()
    for task, specialist in specialists.items():
        data, head = merger.labelled(task), merger.head(task)
        for model, tower in (
            ("specialist_round_1", merger.rounds[0][task].tower()), ("specialist", specialist.tower())
        ):  # fmt: skip
            found = predict(tower, merger.pool.architecture, head, data.images)
            assert report.accuracy[model][task] == accuracy(found, data.labels)
    assert "specialists, round 1" in str(report)


def test_rounds_end_when_the_gate_finds_nothing(done, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", Thresholds(consistency_gain=2.0, information_gain=2.0))
    found = done.specialize(specialize_arguments(tmp_path, rounds=3))
    assert not any(specialist.improved for specialist in found.values()) and len(done.rounds) == 1
    assert not (tmp_path / "specialists" / "round-2").exists()


def test_a_task_without_an_expert(clip_paths, tasks, tmp_path):
    experts = {"shade": clip_paths["shade"], "stripes": clip_paths["stripes"], "colour": None}
    merger = MetaMerger(ModelPool.from_pretrained(clip_paths["base"], experts), tasks)
    merger.fit(fit_arguments(tmp_path))
    merger.specialize(specialize_arguments(tmp_path))
    report = merger.evaluate()
    assert "colour" not in report.accuracy["expert"] and "expert" not in report.average
    assert set(report.accuracy["specialist"]) == set(TASKS) and "specialist" in report.average
    assert "-" in str(report)
    specialist = improved(merger.specialists["colour"], False)
    meta, kept = merger.meta_tower().state_dict(), specialist.tower().state_dict()
    assert specialist.kept == "meta-model" and all(torch.equal(meta[name], kept[name]) for name in meta)


def test_fit_goes_on_and_notices_changes(merger, tmp_path, monkeypatch):
    merger.fit(fit_arguments(tmp_path))
    first = merger.model.base_model.coefficients()
    again = MetaMerger(merger.pool, merger.tasks)
    with monkeypatch.context() as patch:
        patch.setattr("hf_mdft.meta.MdftTrainer.training_step", lambda *_: pytest.fail("trained again"))
        again.fit(fit_arguments(tmp_path))
    second = again.model.base_model.coefficients()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = MetaMerger(merger.pool, merger.tasks, MdftConfig(init_coefficient=0.1))
    other.fit(fit_arguments(tmp_path))
    third = other.model.base_model.coefficients()
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_errors(pool, tasks):
    with pytest.raises(InputError, match="task 'shape' is not in the pool: did you mean 'shade'"):
        MetaMerger(pool, {"shape": tasks["shade"]})
    with pytest.raises(InputError, match="call fit"):
        MetaMerger(pool, tasks).specialize()
    with pytest.raises(InputError, match="unknown task 'shad': did you mean 'shade'"):
        MetaMerger(pool, tasks).specialize(tasks=["shad"])
    with pytest.raises(InputError, match="call fit"):
        MetaMerger(pool, tasks).save_pretrained("nowhere")


def test_a_run_goes_on_however_its_steps_are_divided(merger, tmp_path):
    images, heads = {task: merger.unlabelled(task) for task in TASKS}, merger.heads()

    def key(**options):
        args = MdftTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
        return resume_key(merger.pool, merger.config, heads, images, args)

    assert key(images_per_micro_batch=1) == key() != key(images_per_task=8)
    assert key(gradient_accumulation_steps=2) != key(), "each part has a prior and a filter of its own"
    assert key(accelerator_config={"use_seedable_sampler": False}) != key()


def test_names_of_tasks_and_models_never_meet(clip_paths, tasks, tmp_path):
    """Tasks called like a model, the average, or a phase keep their accuracy, history and folders."""
    names = ["average", "base", "meta"]
    experts = {name: clip_paths[task] for name, task in zip(names, TASKS, strict=True)}
    merger = MetaMerger(
        ModelPool.from_pretrained(clip_paths["base"], experts), dict(zip(names, tasks.values(), strict=True))
    )
    merger.fit(fit_arguments(tmp_path, logging_steps=1))
    merger.specialize(specialize_arguments(tmp_path, logging_steps=1))
    report = merger.evaluate()
    content = json.loads(json.dumps(report.to_dict()))
    for model, row in content["accuracy"].items():
        assert set(row) == set(names) and content["average"][model] == pytest.approx(sum(row.values()) / 3)
    assert any("loss_entropy" in line for line in content["history"]["meta"])
    assert all(any("loss_distillation" in line for line in content["history"]["specialists"][name]) for name in names)
    merger.save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| model | average | base | meta | average |" in card
    with pytest.raises(InputError, match=r"folders of this machine \(the expert of 'average', the expert of 'base'"):
        merger.push_to_hub("me/x")


def test_a_fit_that_is_interrupted_changes_nothing(merger, tmp_path, monkeypatch):
    merger.fit(fit_arguments(tmp_path / "first"))
    merger.specialize(specialize_arguments(tmp_path / "first", gate=False), ["shade"])
    merger.save_pretrained(tmp_path / "saved")
    before = (merger.model, dict(merger.specialists), {t: merger.meta_head(t).key() for t in merger.tasks})

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_mdft.meta.MdftTrainer.train", interrupted)
        merger.fit(fit_arguments(tmp_path / "second", max_steps=7))
    assert (merger.model, merger.specialists, {t: merger.meta_head(t).key() for t in merger.tasks}) == before
    merger.save_pretrained(tmp_path / "again")
    for name in ("adapter_model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()
    merger.fit(fit_arguments(tmp_path / "third", max_steps=0))
    assert not merger.specialists and not merger.rounds, "they are of the earlier meta-model"
    fresh = MetaMerger(merger.pool, merger.tasks)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_mdft.meta.MdftTrainer.train", interrupted)
        fresh.fit(fit_arguments(tmp_path / "fourth"))
    with pytest.raises(InputError, match="call fit"):
        fresh.specialize(specialize_arguments(tmp_path / "fourth"))


def test_trained_heads_go_by_the_names_of_classes(merger, test_data, tmp_path):
    """A loaded meta-model's tasks take the order of classes from their data set."""
    merger.fit(fit_arguments(tmp_path))
    merger.save_pretrained(tmp_path / "saved")
    names = TASKS["shade"][::-1]

    def turned(data):
        labels = [names.index(TASKS["shade"][label]) for label in data["label"]]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"image": data["image"], "label": labels}, features=features)

    others = Task(turned(test_data["shade"]), turned(test_data["shade"]))
    again = MetaMerger.from_pretrained(tmp_path / "saved", tasks={"shade": others})
    wanted = names if merger.head("shade").name == "zero_shot" else TASKS["shade"]  # a classifier names its own
    assert again.meta_head("shade").class_names == again.head("shade").class_names == wanted
    own, found = (found.evaluate().accuracy["meta"]["shade"] for found in (merger, again))
    assert own == found
    strange = Task(None, class_names=["a", "b", "c"])
    with pytest.raises(InputError, match="other class_names"):
        MetaMerger.from_pretrained(tmp_path / "saved", tasks={"shade": strange}).meta_head("shade")


def test_a_specialist_whose_folder_another_run_took_over_is_refused(merger, tmp_path):
    merger.fit(fit_arguments(tmp_path))
    first = merger.specialize(specialize_arguments(tmp_path, gate=False, learning_rate=1e-5), ["shade"])["shade"]
    assert first.tower()
    second = merger.specialize(specialize_arguments(tmp_path, gate=False, learning_rate=1e-2), ["shade"])["shade"]
    assert second.tower()
    for use in (first.tower, lambda: first.save_pretrained(tmp_path / "saved")):
        with pytest.raises(InputError, match="no longer what this specialist of 'shade' was made as"):
            use()
    shutil.rmtree(tmp_path / "specialists", ignore_errors=True)


def test_the_gate_asks_the_meta_model_with_the_head_that_was_trained_with_it(merger, tmp_path, monkeypatch):
    asked, head_of = [], Meta.head
    monkeypatch.setattr(Meta, "head", staticmethod(lambda models: asked.append(head_of(models)) or asked[-1]))
    merger.fit(fit_arguments(tmp_path, max_steps=2, head_steps=5))
    merger.specialize(specialize_arguments(tmp_path), ["shade"])
    assert asked and all(head.key() == merger.meta_head("shade").key() for head in asked)
    assert merger.meta_head("shade").key() != merger.head("shade").key()


def test_a_head_that_no_complete_model_can_have_is_refused_before_its_student_is_trained(vit_pool, tmp_path):
    class Odd(LinearHead):
        def linear(self):
            return None

    count = len(TASKS["shade"])
    head = Odd(TASKS["shade"], weight=torch.randn(count, vit_pool.width), bias=torch.zeros(count))
    task = Task(make_dataset("shade", 8, 0), class_names=TASKS["shade"], head=head)
    merger = MetaMerger(vit_pool, {"shade": task})
    merger.fit(fit_arguments(tmp_path, max_steps=1))
    with pytest.raises(InputError, match="its head is not linear"):
        merger.specialize(specialize_arguments(tmp_path, gate=False))
    assert not list(tmp_path.rglob("checkpoint-*/model.safetensors"))
