"""Phase 1: what moves, what is logged, what resuming and splitting change (nothing)."""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import torch
from conftest import TASKS, both_architectures, make_dataset
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from hf_mdft import (
    InputError,
    MdftConfig,
    MdftTrainer,
    MdftTrainingArguments,
    MetaMerger,
    ModelPool,
    SpecializeArguments,
    Task,
)
from hf_mdft.core.sealed import seal
from hf_mdft.core.seeds import mixed_seed
from hf_mdft.core.typed import checked
from hf_mdft.embedding import embed_images, expert_features
from hf_mdft.embedding.views import FEW_VIEWS, translate
from hf_mdft.meta import META_TERMS, MixedTasks
from hf_mdft.meta.micro_batches import micro_batch_size, micro_batches
from hf_mdft.meta.sharpness import gradient_uphill
from hf_mdft.meta.terms import MetaTerm
from hf_mdft.objectives import entropy, expert_divergence
from hf_mdft.tasks import Images, LabelledImages
from hf_mdft.trainers import PhaseTrainer, own_arguments, resumable


def arguments(folder, **options):
    defaults = dict(
        max_steps=4, images_per_task=4, head_steps=3, use_cpu=True, disable_tqdm=True, logging_steps=1, save_steps=2
    )
    return MdftTrainingArguments(output_dir=str(folder), **{**defaults, **options})


@pytest.fixture
def make_trainer(merger, tmp_path):
    def make(folder="run", model=None, **options):
        model = model or get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
        images = {task: merger.unlabelled(task) for task in TASKS}
        heads = {task: merger.head(task) for task in TASKS}
        args = arguments(tmp_path / folder, **options)
        return MdftTrainer(model, args, train_dataset=images, heads=heads, pool=merger.pool)

    return make


def coefficients(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def test_no_more_images_are_used_than_asked_for(make_trainer, merger):
    trainer = make_trainer(images=8)
    for task, objective in trainer.objective.tasks.items():
        wanted = merger.unlabelled(task).sample(8, trainer.args.seed)
        assert len(objective.expert_logits) == 8 and trainer._images_of[task].key == wanted.key
    drawn = trainer.train_dataset.__getitems__(list(range(8 * len(TASKS))))
    assert drawn["index"].max() == 7


@both_architectures
def test_only_coefficients_move(make_trainer):
    trainer = make_trainer(train_heads=False)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    heads = {task: head.key() for task, head in trainer.heads.items()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) != (".mdft_lambda." in name), name
    assert {task: head.key() for task, head in trainer.heads.items()} == heads and not trainer.trained_heads


@pytest.mark.parametrize("projection", [True, False])
@both_architectures
def test_trained_heads_are_copies(make_trainer, merger, projection):
    """The expert keeps the head as it was; what the head does not train stays."""
    own = {task: merger.head(task).key() for task in TASKS}
    trainer = make_trainer(train_heads=True, train_projection=projection)
    trainer.train()
    assert {task: merger.head(task).key() for task in TASKS} == own
    assert set(trainer.trained_heads) == set(TASKS)
    for task, head in trainer.trained_heads.items():
        before = merger.head(task).state_dict()
        for name, tensor in head.state_dict().items():
            trained = name in head.trained_names and (projection or name != "projection")
            assert torch.equal(tensor.cpu(), before[name]) != trained, name


def test_finished_heads_follow_the_expert_better_and_leave_the_tower(make_trainer, merger):
    """Same coefficients, and heads that are nearer to the experts on the images they were trained on."""
    trainers = {steps: make_trainer(f"steps-{steps}", head_steps=steps) for steps in (0, 200)}
    distance = {}
    for steps, trainer in trainers.items():
        trainer.train()
        parts = []
        for task, objective in trainer.objective.tasks.items():
            features = embed_images(trainer.model, merger.pool.architecture, merger.unlabelled(task))
            with torch.no_grad():
                parts.append(expert_divergence(objective.head(features), objective.expert_logits).mean())
        distance[steps] = sum(parts)
    assert torch.equal(coefficients(trainers[0]), coefficients(trainers[200]))
    assert distance[200] < 0.8 * distance[0]


def test_coefficients_stay_in_their_range(make_trainer):
    trainer = make_trainer(coefficient_range=[0.33, 0.34], learning_rate=0.1)
    trainer.train()
    assert 0.33 <= coefficients(trainer).min() and coefficients(trainer).max() <= 0.34
    assert len(coefficients(trainer).unique()) > 1


@both_architectures
def test_sharpness_aware_step_is_the_gradient_uphill(make_trainer):
    """One step of SGD against the same by hand: the gradient at the perturbed point, applied at the start."""
    options = dict(max_steps=1, optim="sgd", learning_rate=0.5, max_grad_norm=0.0, train_heads=False, filter="none")
    trainer = make_trainer("sam", sharpness_radius=0.3, **options)
    reference = make_trainer("plain", **options)
    batch = trainer.train_dataset.__getitems__(list(range(trainer.train_dataset.images_per_task * len(TASKS))))
    parameters = [p for p in reference.model.parameters() if p.requires_grad]

    def gradient():
        return torch.autograd.grad(reference.compute_loss(reference.model, dict(batch)), parameters)

    uphill = gradient()
    norm = torch.stack([g.norm() for g in uphill]).norm()
    with torch.no_grad():
        for p, g in zip(parameters, uphill, strict=True):
            p.add_(0.3 * g / norm)
    there = gradient()
    with torch.no_grad():
        for p, g, h in zip(parameters, uphill, there, strict=True):
            p.sub_(0.3 * g / norm + 0.5 * h)
    trainer.train()
    torch.testing.assert_close(coefficients(trainer), coefficients(reference), atol=1e-5, rtol=1e-4)
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert len([key for key in line if key.startswith("loss_")]) == 3


def test_an_overflow_or_an_error_uphill_moves_nothing(make_trainer):
    """fp16 starts with gradients that overflow, and the scaler skips their step."""
    trainer = make_trainer()
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    calls = []

    def gradient(value):
        calls.append(value)
        for p in parameters:
            p.grad = torch.full_like(p, value)
        return "loss", "logs"

    assert gradient_uphill(parameters, lambda: gradient(torch.inf), 0.3) == ("loss", "logs")
    assert calls == [torch.inf] and parameters[0].grad.isinf().all()

    def fail():
        if len(calls) == 2:
            raise KeyboardInterrupt
        return gradient(1.0)

    with pytest.raises(KeyboardInterrupt):
        gradient_uphill(parameters, fail, 0.3)
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))


def test_a_skipped_step_leaves_no_gradient_behind(make_trainer):
    trainer = make_trainer(images_per_micro_batch=1, max_steps=1, filter="none")
    trainer.train()
    batch = trainer.train_dataset.__getitems__(list(range(12)))
    heads = trainer.objective.head_parameters()
    for p in heads:
        p.grad = torch.full_like(p, torch.inf)
    for _ in range(2):
        trainer.training_step(trainer.model, dict(batch))
        found = [p.grad.clone() for p in heads]
        assert all(grad.isfinite().all() for grad in found)
    trainer.accelerator.gradient_state._set_sync_gradients(False)
    trainer.training_step(trainer.model, dict(batch))
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    trainer.training_step(trainer.model, dict(batch))
    for p, once in zip(heads, found, strict=True):
        torch.testing.assert_close(p.grad, 2 * once, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"sharpness_radius": 0.3}, {"gradient_accumulation_steps": 2}])
def test_a_step_in_micro_batches_is_the_step(make_trainer, options, monkeypatch):
    """Same coefficients, heads and log lines; more forward passes, no more combines."""
    from hf_mdft.adapter import layer

    counts = {"combine": 0, "passes": 0}
    combine = layer.combine

    def count_combine(*args):
        counts["combine"] += 1
        return combine(*args)

    monkeypatch.setattr(layer, "combine", count_combine)
    found = {}
    for images in (None, 1):
        trainer = make_trainer(f"run-{images}", images_per_micro_batch=images, head_steps=0, max_steps=3, **options)
        tower = trainer.model.get_base_model()
        tower.register_forward_hook(lambda *_: counts.update(passes=counts["passes"] + 1))
        counts.update(combine=0, passes=0)
        trainer.train()
        line = next(line for line in trainer.state.log_history if "loss" in line)
        found[images] = coefficients(trainer), trainer.extra_state(), line, dict(counts)
    (whole, state, line, once), (parts, other_state, other_line, several) = found.values()
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    for key, value in state.items():
        torch.testing.assert_close(other_state[key], value, atol=1e-5, rtol=1e-4)
    assert other_line.keys() == line.keys()
    for key in [key for key in line if key.startswith(("loss", "kept"))]:
        assert other_line[key] == pytest.approx(line[key], rel=1e-4), key
    assert several["passes"] == len(TASKS) * once["passes"] and several["combine"] == once["combine"] > 0


@pytest.mark.parametrize("distance", ["hard", "embedding"])
def test_other_distances_train(make_trainer, distance):
    trainer = make_trainer(distillation_distance=distance, diversity_weight=0.1)
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert line["loss_distillation"] > 0 and -1 <= line["loss_diversity"] <= 0


def test_every_term_is_logged_by_itself(make_trainer):
    trainer = make_trainer(filter="none")
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    terms = {"entropy": 0.1, "distillation": 1.0, "prior": 0.1}
    total = sum(len(TASKS) * weight * line[f"loss_{term}"] for term, weight in terms.items())
    assert line["loss"] == pytest.approx(total, rel=1e-4)
    for task in TASKS:
        assert line[f"kept_entropy/{task}"] == 1.0
        assert 0 <= line[f"kept_distillation/{task}"] <= 1


@pytest.fixture
def own_term():
    """A term of a stranger's, with a memory."""

    @META_TERMS.register("flatness")
    class Flatness(MetaTerm):
        def __init__(self, num_classes, args):
            super().__init__(num_classes, args)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, batch):
            assert batch.logits.shape == batch.expert_logits.shape and batch.prior.shape == (self.num_classes,)
            assert batch.features.shape == batch.expert_features.shape
            self.calls += 1
            return batch.logits.square().mean(), torch.tensor(0.5)

    yield
    del META_TERMS._parts["flatness"]


@pytest.mark.parametrize("radius", [0.0, 0.3])
def test_a_registered_term_takes_part_and_changes_the_result(make_trainer, own_term, radius):
    options = dict(filter="none", sharpness_radius=radius, head_steps=0)
    without, trainer = make_trainer("without", **options), make_trainer("with", terms={"flatness": 2.0}, **options)
    for each in (without, trainer):
        each.train()
    assert not torch.equal(coefficients(without), coefficients(trainer))
    lines = [line for line in trainer.state.log_history if "loss" in line]
    terms = {"entropy": 0.1, "distillation": 1.0, "prior": 0.1, "flatness": 2.0}
    for line in lines:
        total = sum(len(TASKS) * weight * line[f"loss_{term}"] for term, weight in terms.items())
        assert line["loss"] == pytest.approx(total, rel=1e-4) and line["loss_flatness"] > 0
        assert line["kept_flatness/shade"] == 0.5
    assert "loss_flatness" not in without.state.log_history[0]
    state = trainer.extra_state()
    assert {state[f"term/{task}/flatness/calls"].item() for task in TASKS} == {4.0}, "uphill leaves no trace"
    finished = make_trainer("finished", terms={"flatness": 2.0}, **{**options, "head_steps": 3})
    finished.train()
    assert finished.extra_state()["term/shade/flatness/calls"] == 7, "heads are finished with the same terms"


def test_unknown_terms_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown term of phase 1 'diversty': did you mean 'diversity'?"):
        arguments(tmp_path, terms={"diversty": 1.0})
    with pytest.raises(InputError, match="'diversity' is an option of its own; set diversity_weight"):
        arguments(tmp_path, terms={"diversity": 1.0})


def test_nothing_to_learn_is_refused(make_trainer):
    with pytest.raises(InputError, match="every term of phase 1 has weight 0"):
        make_trainer(entropy_weight=0.0, distillation_weight=0.0, prior_weight=0.0)


@pytest.mark.parametrize("term", ["entropy", "distillation", "prior"])
def test_a_term_can_be_switched_off(make_trainer, term):
    trainer = make_trainer(**{f"{term}_weight": 0.0}, max_steps=1)
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert f"loss_{term}" not in line and len([key for key in line if key.startswith("loss_")]) == 2


@both_architectures
def test_loss_equals_plain_tensors(make_trainer, merger, monkeypatch):
    """Routing of mixed rows to heads, against one task at a time."""
    monkeypatch.setattr("hf_mdft.embedding.expert_outputs.fast_bf16", lambda _: False)
    options = dict(filter="none", agreement_rule=False, prior_weight=0.0, distillation_views=False, restore=False)
    trainer = make_trainer(**options)
    batch = trainer.train_dataset.__getitems__(list(range(12)))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch)
        expected = 0.0
        for number, task in enumerate(TASKS):
            rows = torch.tensor(batch["task"]) == number
            images, head = merger.unlabelled(task), merger.head(task)
            x = images.preprocessor.normalize(images.pixels(batch["index"][rows]))
            logits = head(merger.pool.architecture.features(trainer.model(pixel_values=x)))
            expert = head(merger.pool.architecture.features(merger.pool.tower(task)(pixel_values=x)))
            uniform = torch.log(torch.tensor(float(len(TASKS[task]))))
            expected += expert_divergence(logits, expert).mean() + 0.1 * entropy(logits).mean() / uniform
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_follows_the_experts(make_trainer):
    trainer = make_trainer(max_steps=60, images_per_task=8, learning_rate=0.02, save_strategy="no")
    trainer.train()
    losses = [line["loss_distillation"] for line in trainer.state.log_history if "loss_distillation" in line]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@both_architectures
def test_resuming_is_exact(make_trainer, tmp_path):
    whole = make_trainer("whole")
    whole.train()
    first = make_trainer("parts", max_steps=2)
    first.args.max_steps = 4
    first.train_dataset.steps = 4
    first.add_callback(StopAt(2))
    first.train()
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    assert (checkpoint / "extra_state.safetensors").is_file()
    second = make_trainer("parts")
    second.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(coefficients(whole), coefficients(second))
    a, b = whole.objective.state(), second.objective.state()
    assert a and all(torch.equal(a[key], b[key]) for key in a)


def test_a_lost_filter_memory_would_be_noticed(make_trainer, tmp_path):
    """The test above can fail: without the filters' memory the coefficients differ."""
    options = dict(entropy_weight=5.0, filter={"name": "eata", "margin": 1.1, "redundancy": 1.0})
    whole = make_trainer("whole", **options)
    whole.train()
    first = make_trainer("parts", **options)
    first.add_callback(StopAt(2))
    first.train()
    file = tmp_path / "parts" / "checkpoint-2" / "extra_state.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)
    seal(file.parent)
    second = make_trainer("parts", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert not torch.equal(coefficients(whole), coefficients(second))


def test_a_checkpoint_that_was_cut_off_is_not_used(make_trainer, tmp_path):
    make_trainer(save_total_limit=None).train()
    folder = tmp_path / "run"
    parts = "the same run"
    assert resumable(folder, parts) is None
    make_trainer(save_total_limit=None).train(keyed=True)
    assert resumable(folder, parts).endswith("checkpoint-4")
    (folder / "checkpoint-4" / "trainer_state.json").unlink()
    assert resumable(folder, parts).endswith("checkpoint-2") and not (folder / "checkpoint-4").exists()
    assert resumable(folder, "another run") is None and not (folder / "checkpoint-2").exists()


def test_epochs_are_counted_once(make_trainer):
    trainer = make_trainer(max_steps=-1, num_train_epochs=2, images_per_task=8, save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 2 * 24 / 8


def test_labels_cannot_choose_the_model(make_trainer):
    with pytest.raises(InputError, match="would choose the model by evaluation labels"):
        make_trainer(load_best_model_at_end=True, eval_strategy="steps", eval_steps=2)


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_pushing_during_training_is_refused(strategy):
    with pytest.raises(InputError, match=f"hub_strategy '{strategy}' pushes while training goes on; use 'end'"):
        MdftTrainingArguments(use_cpu=True, push_to_hub=True, hub_strategy=strategy)
    own_arguments(MdftTrainingArguments(use_cpu=True, push_to_hub=True))


def test_a_push_that_does_not_block_is_refused(make_trainer):
    with pytest.raises(InputError, match="blocking=False is not supported"):
        make_trainer().push_to_hub(blocking=False)


@pytest.mark.parametrize("kind", [MdftTrainingArguments, SpecializeArguments])
def test_defaults_are_what_their_type_hints_allow(kind):
    """Recipes check values by the hints, and a value that a default has must pass."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in kind.__annotations__:
            value = field.default if field.default_factory is MISSING else field.default_factory()
            checked(value, hints[field.name], field.name)
            assert hints[field.name] is not Any, field.name
            assert field.metadata["help"].endswith("."), field.name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filter", 3),
        ("coefficient_range", "0 to 1"),
        ("distillation_distance", "soft"),
        ("prior", "flat"),
        ("lr_scheduler_type", "cosin"),
        ("agreement_rule", "false"),
        ("terms", {"diversity": "much"}),
        ("images_per_micro_batch", 2.5),
    ],
)
def test_type_hints_refuse_what_cannot_be_meant(name, value):
    with pytest.raises(InputError, match=name):
        checked(value, get_type_hints(MdftTrainingArguments)[name], name)


@pytest.mark.parametrize("option", ["fsdp", "deepspeed"])
def test_weights_in_parts_are_refused(option):
    args = MdftTrainingArguments(use_cpu=True)
    setattr(args, option, ["full_shard"])
    with pytest.raises(InputError, match="fsdp and deepspeed cut the weights into parts"):
        own_arguments(args)


def test_accumulation_sees_the_same_images(make_trainer):
    """Linear terms do not care whether a step is done at once or in parts."""
    options = dict(prior_weight=0.0, entropy_weight=0.0, max_steps=2, save_strategy="no")
    at_once, micro_batches = make_trainer(**options), make_trainer(**options, gradient_accumulation_steps=2)
    for trainer in (at_once, micro_batches):
        trainer.train()
    torch.testing.assert_close(coefficients(at_once), coefficients(micro_batches), atol=1e-4, rtol=1e-4)


def test_uneven_parts_are_refused(make_trainer):
    with pytest.raises(InputError, match="images_per_task=4 must be a multiple"):
        make_trainer(gradient_accumulation_steps=3)


def test_schedule(merger):
    images = {task: merger.unlabelled(task) for task in TASKS}
    schedule = MixedTasks(images, images_per_task=6, steps=8, seed=0)
    assert len(schedule) == 8 * 6 * 3
    located = [schedule.locate(item) for item in range(len(schedule))]
    for step in range(8):
        for half in (0, 9):
            part = located[18 * step + half : 18 * step + half + 9]
            assert sorted(task for task, _ in part) == [0] * 3 + [1] * 3 + [2] * 3
    for task in range(3):
        rows = [row for t, row in located if t == task]
        assert sorted(rows[:24]) == sorted(rows[24:48]) == list(range(24)), "a pass sees every image once"
        assert rows[:24] != rows[24:48]
    again = MixedTasks(images, images_per_task=6, steps=8, seed=0)
    assert [again.locate(item) for item in range(len(again))] == located
    other = MixedTasks(images, images_per_task=6, steps=8, seed=1)
    assert [other.locate(item) for item in range(len(other))] != located


def test_the_order_of_images_has_a_seed_of_its_own(make_trainer):
    assert make_trainer(seed=3, data_seed=5).train_dataset.seed == 5
    assert make_trainer(seed=3).train_dataset.seed == 3


def test_the_order_of_images_rests_on_no_hash_of_python():
    """Numbers of CPython 3.11's `hash((seed, task, turn)) % 2**63`, which made every published result."""
    pinned = {
        (0, 0, 0): 3010437511937009226,
        (0, 1, 2): 2187946392326065592,
        (42, 3, 1): 949248602330548787,
        (7, 31, 100): 3005410619412746663,
        (2**32 - 1, 0, 5): 473248903996704587,
    }
    assert {numbers: mixed_seed(*numbers) for numbers in pinned} == pinned


def test_the_first_images_of_a_run_are_pinned(merger):
    schedule = MixedTasks({task: merger.unlabelled(task) for task in TASKS}, images_per_task=4, steps=2, seed=0)
    rows = [15, 3, 3, 22, 4, 22, 13, 19, 14]
    assert [schedule.locate(item) for item in range(9)] == [(item % 3, row) for item, row in enumerate(rows)]


def test_expert_outputs_are_computed_once(merger, monkeypatch):
    images = merger.unlabelled("shade")
    (first,) = expert_features(merger.pool, "shade", images)
    monkeypatch.setattr("hf_mdft.embedding.expert_outputs.embed_views", lambda *_, **__: pytest.fail("again"))
    assert torch.equal(first, next(expert_features(merger.pool, "shade", images)))


def test_experts_are_distilled_from_restored_images_and_the_meta_model_sees_them_as_they_are(
    make_trainer, monkeypatch
):
    found = {"shade": ["invert"]}
    monkeypatch.setattr("hf_mdft.meta.targets.find_restorations", lambda pool, task, *_, **__: found.get(task, []))
    trainer, plain = make_trainer(), make_trainer(restore=False)
    for task, images in trainer._images_of.items():
        x = images.pixels(range(len(images)))
        x = images.preprocessor.normalize(255 - x if task == "shade" else x)
        tower = trainer.pool.tower(task)
        with torch.no_grad():
            wanted = [trainer.pool.architecture.features(tower(pixel_values=translate(x, v))) for v in FEW_VIEWS]
        features = trainer.objective.tasks[task].expert_features
        torch.testing.assert_close(features, torch.stack(wanted).mean(0), atol=1e-3, rtol=1e-3)
        same = torch.allclose(features, plain.objective.tasks[task].expert_features, atol=1e-3)
        assert same == (task != "shade")
        assert trainer._images_of[task].key == plain._images_of[task].key


def test_evaluate_by_task(make_trainer, merger):
    trainer = make_trainer()
    with pytest.raises(ValueError, match="requires an eval_dataset"):
        trainer.evaluate()
    labelled = {task: merger.labelled(task) for task in TASKS}
    metrics = trainer.evaluate(labelled)
    assert metrics["eval_accuracy"] == pytest.approx(sum(metrics[f"eval_{t}_accuracy"] for t in TASKS) / 3)
    perfect = {}
    for task, data in labelled.items():
        x = data.images.preprocessor.normalize(data.images.pixels(range(len(data.images))))
        with torch.no_grad():
            logits = merger.head(task)(merger.pool.architecture.features(trainer.model(pixel_values=x)))
        perfect[task] = LabelledImages(data.images, logits.argmax(-1))
    assert trainer.evaluate(perfect)["eval_accuracy"] == 1.0


def test_plain_datasets_will_do(merger, unlabelled_data, tmp_path):
    model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
    heads = {task: merger.head(task) for task in TASKS}
    trainer = MdftTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=unlabelled_data, heads=heads)
    assert all(isinstance(images, Images) for images in trainer.train_dataset.images)
    trainer.train()
    with pytest.raises(InputError, match="task 'shade' has images but no head"):
        MdftTrainer(model, arguments(tmp_path), train_dataset=unlabelled_data, heads={})
    with pytest.raises(InputError, match="train_dataset holds no task"):
        MdftTrainer(model, arguments(tmp_path), train_dataset={}, heads={})


def test_micro_batches_are_as_large_as_is_fast(merger):
    """As many images as make 3,200 tokens on a CPU; whole tasks, evenly; all at once on an accelerator."""
    pool, shape = merger.pool, merger.unlabelled("shade").shape
    tokens = pool.architecture.tokens_per_image(pool.config, shape)
    assert micro_batch_size(tokens, torch.device("cpu")) == 3200 // tokens
    assert micro_batch_size(3201, torch.device("cpu")) == 1
    assert micro_batch_size(tokens, torch.device("cuda")) > 10**9
    task = list(range(5)) * 4  # five tasks, four images of each
    batch = {"task": task, "index": torch.arange(20)}
    for limit, sizes in {20: [20], 19: [12, 8], 8: [8, 8, 4], 4: [4] * 5, 1: [4] * 5}.items():
        parts = micro_batches(batch, 5, limit)
        assert [len(part["task"]) for part in parts] == sizes
        assert torch.equal(torch.cat([part["index"] for part in parts]).sort().values, torch.arange(20))
        assert all(part["task"].count(number) == 4 for part in parts for number in part["task"])
        assert all(task[row] == own for part in parts for row, own in zip(part["index"], part["task"], strict=True))


def test_checkpoint_is_an_adapter(make_trainer, tmp_path):
    make_trainer().train()
    checkpoint = tmp_path / "run" / "checkpoint-4"
    assert json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"] == "MDFT"
    assert not (checkpoint / "model.safetensors").exists()
    shutil.rmtree(checkpoint)


class StopAt:
    """Ends training at a step, as a kill after a checkpoint would."""

    def __new__(cls, step):
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_save(self, args, state, control, **kwargs):
                control.should_training_stop = state.global_step == step

        return Stop()


REFUSED = {
    "label_smoothing_factor": (0.1, "smooths labels, of which there are none"),
    "auto_find_batch_size": (True, "would change what a step is half-way"),
    "accelerator_config": ({"split_batches": True}, "split_batches would divide batches anew"),
    "accelerator_config, dispatched": ({"dispatch_batches": True}, "dispatch_batches would divide batches anew"),
    "fsdp": ("full_shard", "fsdp and deepspeed cut the weights into parts"),
    "deepspeed": ("ds.json", "fsdp and deepspeed cut the weights into parts"),
    "max_steps": (-3, "max_steps must be at least -1"),
    "accelerator_config, text": ('{"split_batches": true}', "split_batches would divide batches anew"),
    "accelerator_config, a file": ("nothing.json", "no JSON, nor a file of it"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", [MdftTrainingArguments, SpecializeArguments])
def test_options_that_change_what_a_batch_is(tmp_path, kind, name):
    value, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        kind(output_dir=str(tmp_path), **{name.split(",")[0]: value})


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (MdftTrainingArguments, {"distillation_temperature": 0.0}, "distillation_temperature must be above 0"),
        (MdftTrainingArguments, {"distillation_temperature": -1.0}, "distillation_temperature must be above 0"),
        (MdftTrainingArguments, {"head_learning_rate": -1.0}, "head_learning_rate must be at least 0"),
        (MdftTrainingArguments, {"sharpness_radius": -1.0}, "sharpness_radius must be at least 0"),
        (MdftTrainingArguments, {"head_steps": -5}, "head_steps must be at least 0"),
        (MdftTrainingArguments, {"prior_weight": -0.1}, "prior_weight must be at least 0"),
        (MdftTrainingArguments, {"per_device_train_batch_size": 4}, "follows from images_per_task in phase 1"),
        (SpecializeArguments, {"adam_epsilon": -1.0}, "adam_epsilon must be at least 0"),
        (SpecializeArguments, {"adam_beta1": 1.5}, "adam_beta1 must be at least 0 and below 1"),
        (SpecializeArguments, {"jitter_steps": -2}, "jitter_steps must be at least 0"),
        (SpecializeArguments, {"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be above 0"),
        (SpecializeArguments, {"ensemble_weight": -1.0}, "ensemble_weight must be at least 0"),
    ],
)
def test_options_that_make_nonsense(tmp_path, kind, options, said):
    with pytest.raises(InputError, match=said):
        kind(output_dir=str(tmp_path), **options)


def test_more_processes_than_wrote_a_checkpoint(tmp_path):
    """Those without a file of their own keep their generators."""
    trainer = SimpleNamespace(args=SimpleNamespace(process_index=1))
    state = torch.get_rng_state()
    PhaseTrainer._load_rng_state(trainer, str(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_without_log_lines_keeps_no_values():
    trainer = SimpleNamespace(args=SimpleNamespace(logging_strategy="no"), _terms={})
    PhaseTrainer.record(trainer, {"loss": torch.ones(())})
    trainer.args.logging_strategy = "steps"
    assert not trainer._terms
    PhaseTrainer.record(trainer, {"loss": torch.ones(())})
    assert len(trainer._terms["loss"]) == 1


@pytest.mark.parametrize("given", ["0.1", None, -1.0, float("nan"), True])
def test_weights_of_terms_are_numbers(tmp_path, given):
    with pytest.raises(InputError, match="terms: the weight of 'aad' must be a number of at least 0"):
        SpecializeArguments(output_dir=str(tmp_path), terms={"aad": given})


def test_a_model_whose_coefficients_do_not_train_is_refused(make_trainer, merger, tmp_path):
    def fresh():
        return get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))

    fresh().save_pretrained(tmp_path / "saved")
    frozen = PeftModel.from_pretrained(merger.pool.tower(), tmp_path / "saved")
    merged, disabled = fresh(), fresh()
    merged.merge_adapter()
    disabled.base_model.disable_adapter_layers()
    for model, said in (
        (frozen, "coefficients are frozen"),
        (merged, "merged or disabled"),
        (disabled, "merged or disabled"),
        (merger.pool.tower(), "expected a tower with an MDFT adapter"),
    ):
        with pytest.raises(InputError, match=said):
            make_trainer(model=model)
    again = PeftModel.from_pretrained(merger.pool.tower(), tmp_path / "saved", is_trainable=True)
    assert make_trainer(model=again)


def test_what_a_trainer_is_given_is_refused_in_one_line(merger, tmp_path):
    model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
    images = {task: merger.unlabelled(task) for task in TASKS}
    heads = {task: merger.head(task) for task in TASKS}
    given = {"model": model, "args": arguments(tmp_path), "train_dataset": images, "heads": heads}
    for changes, said in (
        ({"args": TrainingArguments(output_dir=str(tmp_path))}, "args must be MdftTrainingArguments"),
        ({"train_dataset": images["shade"]}, r"train_dataset \(by task\) must be Mapping"),
        ({"heads": dict.fromkeys(TASKS, "zero_shot")}, r"heads\['shade'\] must be Head, got str"),
        ({"eval_dataset": {"shade": [1]}}, r"eval_dataset\['shade'\] must be LabelledImages"),
        ({"compute_metrics": len}, "compute_metrics: MdftTrainer has its own"),
        ({"data_collator": len}, "data_collator: MdftTrainer has its own"),
        ({"compute_loss_func": len}, "compute_loss_func: MdftTrainer has its own"),
    ):
        with pytest.raises(InputError, match=said):
            MdftTrainer(**given | changes)


def test_an_optimizer_of_ones_own_keeps_the_range_and_needs_the_heads(merger, tmp_path):
    def trainer(**options):
        model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
        own = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
        images = {task: merger.unlabelled(task) for task in TASKS}
        heads = {task: merger.head(task) for task in TASKS}
        args = arguments(tmp_path, **options)
        return MdftTrainer(model, args, train_dataset=images, heads=heads, optimizers=(own, None))

    with pytest.raises(InputError, match="the one given lacks the heads"):
        trainer(train_heads=True)
    narrow = trainer(train_heads=False, head_steps=0, coefficient_range=[0.3, 0.31])
    narrow.train()
    assert coefficients(narrow).min() >= 0.3 - 1e-6 and coefficients(narrow).max() <= 0.31 + 1e-6


def test_checkpoints_are_gone_on_from_by_the_run_that_wrote_them(merger, make_trainer, tmp_path):
    """A trainer that writes to the folder of another run takes it over; the run begins anew."""
    options = {"max_steps": 2, "save_steps": 2}
    merger.fit(arguments(tmp_path / "run", **options))
    wanted = torch.cat([p.detach().flatten() for n, p in merger.model.named_parameters() if "lambda" in n])
    make_trainer(**options, learning_rate=0.5, seed=9).train()
    merger.fit(arguments(tmp_path / "run", **options))
    assert torch.equal(
        wanted, torch.cat([p.detach().flatten() for n, p in merger.model.named_parameters() if "lambda" in n])
    )


def test_a_training_that_diverges_says_so(make_trainer, monkeypatch):
    trainer = make_trainer(max_steps=1)
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda *_, **__: torch.tensor(1.0))
    parameter = trainer._coefficients()[0]
    parameter.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(InputError, match="training diverged, to weights or outputs"):
        trainer.train()
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*")), "none is kept of it"


def test_a_training_that_is_refused_leaves_the_folders_owner(merger, make_trainer, tmp_path):
    options = {"max_steps": 2, "save_steps": 2}
    merger.fit(arguments(tmp_path / "run", **options))
    with pytest.raises(InputError, match="nowhere: no such folder; go on from another checkpoint"):
        make_trainer(**options).train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    assert (tmp_path / "run" / "run.key").exists()


def test_heads_without_numbers_are_refused(make_trainer, merger):
    model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
    head = merger.head("shade").trainable()
    with torch.no_grad():
        next(head.parameters())[0] = -torch.inf
    with pytest.raises(InputError, match=r"heads\['shade'\]: '.*' holds NaN or infinity; give another head"):
        MdftTrainer(model, train_dataset={"shade": merger.unlabelled("shade")}, heads={"shade": head})


@pytest.mark.parametrize("kind", [MdftTrainingArguments, SpecializeArguments])
@pytest.mark.parametrize("name", ["save_only_model", "save_strategy"])
def test_checkpoints_that_nothing_can_go_on_from_are_refused(tmp_path, name, kind):
    """Before any work: where the options are given."""
    options = {name: True if name == "save_only_model" else "best", "metric_for_best_model": "accuracy"}
    with pytest.raises(InputError, match="leave it off"):
        kind(output_dir=str(tmp_path), **options)


def test_a_fit_that_stops_before_training_leaves_no_claim_on_others_checkpoints(
    merger, make_trainer, tmp_path, monkeypatch
):
    options = {"max_steps": 2, "save_steps": 2}
    with monkeypatch.context() as patch:
        patch.setattr("hf_mdft.merger.MdftTrainer", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            merger.fit(arguments(tmp_path / "run", **options))
    make_trainer(**options, learning_rate=0.5, seed=9).train()
    assert list((tmp_path / "run").glob("checkpoint-*")) and not (tmp_path / "run" / "run.key").exists()


def test_an_optimizer_without_the_coefficients_is_refused(make_trainer, merger):
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool))
    images, heads = {task: merger.unlabelled(task) for task in TASKS}, {task: merger.head(task) for task in TASKS}
    with pytest.raises(InputError, match="optimizers: the one given lacks coefficients"):
        MdftTrainer(model, arguments("unused"), train_dataset=images, heads=heads, optimizers=(other, None))


@pytest.mark.parametrize("options", [{"eval_strategy": "steps", "eval_steps": 2}, {"eval_on_start": True}])
@pytest.mark.parametrize("phase", ["fit", "specialize"])
def test_evaluation_while_training_is_refused(merger, tmp_path, phase, options):
    kind = MdftTrainingArguments if phase == "fit" else SpecializeArguments
    args = kind(output_dir=str(tmp_path), use_cpu=True, **options)
    with pytest.raises(InputError, match=f"training reads no labels; leave {next(iter(options))} off"):
        getattr(merger, phase)(args)


def test_a_trainer_reads_images_as_the_experts_do(vit_paths, tmp_path):
    for name in ("base", "shade"):
        shutil.copytree(vit_paths[name], tmp_path / name)
    file = tmp_path / "shade" / "preprocessor_config.json"
    processor = json.loads((tmp_path / "base" / "preprocessor_config.json").read_text())
    file.write_text(json.dumps({**processor, "image_mean": [0.1, 0.2, 0.3]}))
    pool = ModelPool.from_pretrained(tmp_path / "base", {"shade": tmp_path / "shade"})
    merger = MetaMerger(pool, {"shade": Task(make_dataset("shade", 8, 0))})
    model = get_peft_model(pool.tower(), MdftConfig(pool=pool))
    data, heads = {"shade": make_dataset("shade", 8, 0)}, merger.heads()
    trainer = MdftTrainer(model, arguments(tmp_path / "run"), train_dataset=data, heads=heads, pool=pool)
    (own,) = trainer._preprocessors
    assert own.key() == merger.preprocessor("shade").key() and own._mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )
