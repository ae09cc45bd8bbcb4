"""Phase 2: views, teacher, student, gate, resuming."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from conftest import both_architectures, fit_arguments, perturbed, specialize_arguments
from safetensors.torch import load_file

from hf_mdft import InputError, MetaMerger, ModelPool, SpecializeArguments
from hf_mdft.core.device import fast_bf16
from hf_mdft.core.state_files import load_state
from hf_mdft.embedding import embed_views, expert_features
from hf_mdft.embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, TEACHER_VIEWS, jitter, translate
from hf_mdft.experts import TaskExperts, combined, observe, observe_in_stages
from hf_mdft.restorations import restored
from hf_mdft.specialize import (
    STUDENT_TERMS,
    TEACHER_PARTS,
    Source,
    StudentTrainer,
    Teacher,
    build_teacher,
    decide,
    specialize_task,
)
from hf_mdft.specialize.evidence import gate_evidence
from hf_mdft.specialize.learning_rate import FASTEST, GENTLE, gentle_learning_rate
from hf_mdft.specialize.steps import share_to_learn, steps_to_train
from hf_mdft.specialize.teacher import Models, observe_sources
from hf_mdft.specialize.teacher.ensemble import reliability
from hf_mdft.specialize.terms import StudentTerm, WeightTerm
from hf_mdft.trainers import PhaseTrainer


def arguments(folder, **options):
    defaults = dict(max_steps=4, per_device_train_batch_size=8, save_steps=2, fewer_steps=False)
    defaults |= dict(use_cpu=True, disable_tqdm=True)
    return SpecializeArguments(output_dir=str(folder), **{**defaults, **options})


def source(predictions, classes=3, confidence=4.0, held_out=None, consistency=1.0):
    logits = confidence * torch.nn.functional.one_hot(torch.as_tensor(predictions), classes).float()
    held_out = torch.as_tensor(predictions)[None] if held_out is None else torch.as_tensor(held_out)
    return Source(logits, logits.log_softmax(-1), torch.zeros(len(logits), 2), held_out, consistency)


def test_translation_moves_pixels():
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert torch.equal(translate(x, (0, 0)), x)
    assert torch.equal(translate(x, (1, 0))[..., 1:], x[..., :-1])
    assert torch.equal(translate(x, (-1, 0))[..., :-1], x[..., 1:])
    assert torch.equal(translate(x, (0, 1))[..., 1:, :], x[..., :-1, :])
    large = torch.randn(1, 3, 224, 224)
    assert torch.equal(translate(large, (1, 0))[..., 7:], large[..., :-7]), "a step is 1/32 of the side"


def test_jitter_is_one_of_the_translations_for_each_image():
    x = torch.randn(16, 3, 8, 8)
    moved = jitter(x, torch.Generator().manual_seed(0))
    offsets = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    used = [next(o for o in offsets if torch.equal(translate(x[i : i + 1], o)[0], moved[i])) for i in range(16)]
    assert len(set(used)) > 3
    assert torch.equal(moved, jitter(x, torch.Generator().manual_seed(0)))
    assert set(HELD_OUT_VIEWS).isdisjoint(TEACHER_VIEWS)


def test_teacher_follows_the_reliable_and_the_confident():
    args = SpecializeArguments(use_cpu=True, ensemble_weight=1.0)
    expert = source([0, 1, 2, 0, 1, 2], consistency=0.8)
    alone = build_teacher({"expert": expert}, args)
    assert alone.probabilities.argmax(-1).tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(alone.probabilities.sum(-1), torch.ones(6))
    assert ((alone.weights >= 0) & (alone.weights <= 1)).all()

    stranger = source([1, 2, 0, 1, 2, 0], confidence=20.0)
    assert reliability(stranger, expert) == 0.0
    both = build_teacher({"expert": expert, "meta": stranger}, args)
    torch.testing.assert_close(both.probabilities, alone.probabilities)  # a model that never agrees has no weight

    shaky = source([1, 1, 2, 0, 1, 2], confidence=20.0, consistency=0.8)
    assert reliability(shaky, expert) == 0.0, "a model that is no more consistent than the expert has no weight"

    friend = source([0, 1, 2, 0, 1, 2], confidence=20.0)
    assert reliability(friend, expert) == 1.0
    unsure = torch.cat([expert.log_probs[:5], torch.tensor([[0.34, 0.33, 0.33]]).log()])
    hesitant = dataclasses.replace(expert, log_probs=unsure)
    combined = build_teacher({"expert": hesitant, "meta": friend}, args)
    assert combined.probabilities[5].argmax() == 2, "where the expert is unsure the confident friend decides"


def test_a_trusted_source_needs_no_evidence():
    args = SpecializeArguments(use_cpu=True)
    expert = source([0, 1, 2, 0, 1, 2], confidence=2.0)
    student = source([1, 2, 0, 1, 2, 0], confidence=20.0, consistency=0.1)
    for trusted in (False, True):
        taught = build_teacher({"expert": expert, "student": dataclasses.replace(student, trusted=trusted)}, args)
        assert (taught.probabilities.argmax(-1).tolist() == [1, 2, 0, 1, 2, 0]) == trusted


def test_teacher_parts_are_those_that_are_named():
    """In their order, each given what the one before has made."""
    skewed = source([0, 0, 0, 0, 1, 2], confidence=1.0)
    args = SpecializeArguments(use_cpu=True, teacher=[])
    plain = build_teacher({"expert": skewed}, args)
    torch.testing.assert_close(plain.probabilities, skewed.log_probs.exp())
    seen = []

    @TEACHER_PARTS.register("certain")
    def certain(state):
        seen.append(state)
        return torch.nn.functional.one_hot(state.probabilities.argmax(-1), 3).float()

    try:
        args = SpecializeArguments(use_cpu=True, teacher=["class_prior", "certain"])
        taught = build_teacher({"expert": skewed}, args)
        with pytest.raises(InputError, match="unknown part of the teacher 'certian': did you mean 'certain'?"):
            SpecializeArguments(use_cpu=True, teacher=["certian"])
    finally:
        del TEACHER_PARTS._parts["certain"]
    (state,) = seen
    assert state.args is args and state.reference is skewed
    ratio = (skewed.log_probs.exp().mean(0) + 1 / 3) / 2 / skewed.log_probs.exp().mean(0)
    wanted = skewed.log_probs.exp() * ratio**0.5
    torch.testing.assert_close(state.probabilities, wanted / wanted.sum(-1, keepdim=True))
    assert taught.probabilities.unique().tolist() == [0, 1] and taught.weights.tolist() == [1] * 6
    with pytest.raises(InputError, match="teacher must be a list of names, got 'lda'"):
        SpecializeArguments(use_cpu=True, teacher="lda")


def gated(specialist, consistency=0.95, **expert):
    """The gate's decision on predicted classes; the expert's consistency is 0.9."""
    return decide(source(specialist, consistency=consistency), source(**expert, consistency=0.9), {})


def test_gate_accepts_the_better_and_refuses_the_worse():
    truth = torch.arange(300) % 3
    wrong = (truth + 1) % 3
    spoiled = torch.where(torch.arange(300) % 10 == 0, wrong, truth)
    fresh_views = torch.stack([torch.where(torch.arange(300) % 20 == k, wrong, truth) for k in range(4)])
    expert = {"predictions": spoiled, "held_out": fresh_views}
    better = gated(truth, **expert)
    assert better.chosen == "specialist" and better.agreement_gain > 0.05
    assert better.changed == pytest.approx(0.1) and better.consistency_gain == pytest.approx(0.05)
    worse = gated(torch.where(torch.arange(300) % 5 == 1, wrong, spoiled), **expert)
    assert worse.chosen == "expert" and worse.agreement_gain < 0 and "points more with the expert" in worse.reason
    same = gated(spoiled, consistency=0.9, **expert)
    assert same.chosen == "expert" and same.agreement_gain == 0 and "no improvement shown" in same.reason


def test_gate_refuses_what_gained_no_consistency_and_what_drifts():
    truth = torch.arange(300) % 3
    assert gated(truth, consistency=0.92, predictions=truth).chosen == "expert"
    assert gated(truth, predictions=truth).chosen == "specialist"
    collapsed = gated(torch.zeros(300, dtype=torch.long), consistency=1.0, predictions=truth)
    assert collapsed.chosen == "expert" and collapsed.drift > 0.3 and "class prior explains" in collapsed.reason


def test_gate_measures_drift_from_the_prior():
    """An expert that predicts one class too often may be corrected up to the prior; more is drift."""

    def even_up_to(count):
        return torch.where(torch.arange(300) < count, torch.arange(300) % 3, 0)

    even, corrected, skewed = even_up_to(300), even_up_to(190), even_up_to(100)
    assert gated(corrected, predictions=skewed, held_out=corrected[None]).drift < 0
    assert gated(corrected, predictions=skewed, held_out=corrected[None]).chosen == "specialist"
    assert gated(even, predictions=skewed, held_out=even[None]).drift > 0.02
    assert gated(skewed, predictions=even, held_out=even[None]).chosen == "expert"


@pytest.fixture
def setting(merger):
    meta = merger.pool.tower("colour")
    return merger.pool, meta, merger.head("shade"), merger.unlabelled("shade")


@both_architectures
def test_observation_averages_views(setting):
    pool, meta, head, images = setting
    features = list(embed_views(meta, pool.architecture, images, TEACHER_VIEWS))
    seen = observe(features, head)
    x = images.preprocessor.normalize(images.pixels(range(len(images))))
    with torch.no_grad():
        logits = [head(pool.architecture.features(meta(pixel_values=translate(x, v)))) for v in TEACHER_VIEWS]
    torch.testing.assert_close(seen.logits, logits[0], atol=1e-4, rtol=1e-4)
    expected = torch.stack([entry.log_softmax(-1) for entry in logits]).mean(0).log_softmax(-1)
    torch.testing.assert_close(seen.log_probs, expected, atol=1e-4, rtol=1e-4)
    same = torch.stack([entry.argmax(-1) == logits[0].argmax(-1) for entry in logits[1:5]])
    assert seen.consistency == pytest.approx(same.float().mean().item()) and not len(seen.held_out)
    assert torch.equal(seen.steady, same.all(0))
    plain = observe(features, head, averaged=False)
    torch.testing.assert_close(plain.log_probs, logits[0].log_softmax(-1), atol=1e-4, rtol=1e-4)
    assert plain.consistency == seen.consistency


def test_further_views_are_of_those_images_alone_on_which_few_disagree():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(40, 3, generator=generator) + 3 * torch.eye(3)[torch.arange(40) % 3] for _ in TEACHER_VIEWS]
    asked = []

    def run(rows, wanted):
        asked.append((rows, wanted))
        return iter([views[TEACHER_VIEWS.index(view)][slice(None) if rows is None else rows] for view in wanted])

    seen = observe_in_stages(run, lambda features: features, TEACHER_VIEWS)
    few, every = observe(views[: len(FEW_VIEWS)], lambda f: f), observe(views, lambda f: f)
    rows = (~few.steady).nonzero().squeeze(-1)
    assert 0 < len(rows) < 40
    assert asked[0] == (None, FEW_VIEWS) and asked[1][1] == TEACHER_VIEWS[len(FEW_VIEWS) :] and len(asked) == 2
    assert torch.equal(asked[1][0], rows)
    for got, kept, averaged in zip(
        (seen.log_probs, seen.features), (few.log_probs, few.features), (every.log_probs, every.features), strict=True
    ):
        torch.testing.assert_close(got[rows], averaged[rows])
        assert torch.equal(got[few.steady], kept[few.steady])
    assert seen.consistency == few.consistency and torch.equal(seen.logits, few.logits)


@pytest.mark.parametrize("having", [[], ["_is_amx_tile_supported"], ["_is_avx512_bf16_supported"]])
def test_a_processor_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, having):
    for asked in having:
        monkeypatch.setattr(torch.cpu, asked, lambda: True, raising=False)
    assert fast_bf16("cpu") == bool(having) == SpecializeArguments(use_cpu=True).bf16
    assert not fast_bf16("meta")


def test_the_gate_looks_at_some_of_the_images(setting, monkeypatch):
    """Outputs on them are what they are among all images; what is held out and what others say is of these alone."""
    pool, meta, head, images = setting
    models = Models(TaskExperts("shade", pool, {"shade": head}), meta, head, images)
    sources = observe_sources(models, others=False)
    assert list(sources) == ["expert"]
    monkeypatch.setattr("hf_mdft.specialize.evidence.IMAGES", 5)
    rows = torch.linspace(0, len(images) - 1, 5).round().long()
    seen = gate_evidence(models, sources, {"shade": 1.0})
    assert torch.equal(seen.expert.logits, sources["expert"].logits[rows]) and list(seen.others) == ["meta", "base"]
    (plain,) = embed_views(meta, pool.architecture, images, FEW_VIEWS[:1])
    torch.testing.assert_close(seen.others["meta"].logits, head(plain)[rows], atol=1e-2, rtol=1e-2)
    held_out = [head(f).argmax(-1) for f in expert_features(pool, "shade", images, views=HELD_OUT_VIEWS)]
    assert torch.equal(seen.expert.held_out, torch.stack(held_out)[:, rows])
    assert torch.allclose(seen.of(meta, head, "meta").logits, seen.others["meta"].logits)


@both_architectures
def test_student_moves_towards_the_teacher_and_the_head_stays(setting, tmp_path):
    pool, _, head, images = setting
    key = head.key()
    targets = torch.nn.functional.one_hot(torch.arange(len(images)) % 3, 3).float()
    teacher = Teacher(targets, torch.ones(len(images)), torch.randn(len(images), 16))
    student = pool.tower("shade")
    args = arguments(
        tmp_path, max_steps=40, learning_rate=3e-3, alignment_weight=0, infomax_weight=0, l2_sp_weight=0,
        ema_decay=0.5, logging_steps=10,
    )  # fmt: skip
    trainer = StudentTrainer(student, args, architecture=pool.architecture, head=head, images=images, teacher=teacher)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    trainer.train()
    losses = [line["loss_distillation"] for line in trainer.state.log_history if "loss_distillation" in line]
    assert losses[-1] < 0.8 * losses[0]
    used = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert used == set(before), "all weights of the tower are trained"
    assert head.key() == key
    averaged = trainer.finish()
    assert any(not torch.equal(averaged[name], p) for name, p in student.state_dict().items())


def test_l2_sp_keeps_the_student_near_its_start(setting, tmp_path):
    pool, _, head, images = setting
    targets = torch.nn.functional.one_hot(torch.arange(len(images)) % 3, 3).float()
    teacher = Teacher(targets, torch.ones(len(images)), torch.randn(len(images), 16))
    moved = []
    for number, weight in enumerate((0.0, 100.0)):
        student = pool.tower("shade")
        args = arguments(tmp_path / str(number), max_steps=10, learning_rate=1e-3, l2_sp_weight=weight, ema_decay=0)
        StudentTrainer(
            student, args, architecture=pool.architecture, head=head, images=images, teacher=teacher
        ).train()
        start = pool.tower("shade").state_dict()
        moved.append(sum((p - start[n]).square().sum().item() for n, p in student.named_parameters()))
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("accumulation", [1, 2])  # what a step has, less than it should at the end of an epoch
def test_l2_sp_is_the_gradient_of_the_squared_distance(setting, tmp_path, accumulation):
    """Against autograd, for weights that have moved."""
    pool, _, head, images = setting
    teacher = Teacher(torch.full((len(images), 3), 1 / 3), torch.ones(len(images)), torch.randn(len(images), 16))
    losses, grads = [], []
    for weight in (0.0, 0.3):
        args = arguments(tmp_path, l2_sp_weight=weight, gradient_accumulation_steps=3, jitter_steps=0)
        trainer = StudentTrainer(
            pool.tower("shade"), args, architecture=pool.architecture, head=head, images=images, teacher=teacher
        )
        perturbed(trainer.model, 1)
        trainer.current_gradient_accumulation_steps = accumulation
        inputs = trainer.train_dataset.__getitems__([0, 1, 2])
        losses.append(trainer.training_step(trainer.model, inputs))
        grads.append([p.grad for p in trainer.model.parameters()])
    weights = [p.detach().clone().requires_grad_() for p in trainer.model.parameters()]
    start = list(pool.tower("shade").parameters())
    distance = sum((p - p0.detach()).square().sum() for p, p0 in zip(weights, start, strict=True))
    (0.3 / accumulation * distance).backward()
    torch.testing.assert_close(losses[1] - losses[0], 0.3 / accumulation * distance.detach())
    for without, found, p in zip(*grads, weights, strict=True):
        torch.testing.assert_close(found, without + p.grad, atol=1e-5, rtol=1e-4)


@pytest.fixture
def own_terms():
    """Two terms of a stranger's: one of the outputs, with a memory, and one of the weights."""

    @STUDENT_TERMS.register("flatness")
    class Flatness(StudentTerm):
        def __init__(self, student):
            super().__init__(student)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, batch):
            self.calls += 1
            return batch.logits.square().mean()

    @STUDENT_TERMS.register("growth")
    class Growth(WeightTerm):
        def forward(self, student, weight):
            for p in student.parameters():
                if p.grad is not None:
                    p.grad.sub_(torch.ones_like(p), alpha=weight)
            return -sum(p.sum() for p in student.parameters())

    yield
    del STUDENT_TERMS._parts["flatness"], STUDENT_TERMS._parts["growth"]


def test_a_registered_term_takes_part_and_changes_the_result(setting, tmp_path, own_terms):
    pool, meta, head, images = setting
    found = {}
    for name, terms in {"none": {}, "flatness": {"flatness": 2.0}, "growth": {"growth": 100.0}}.items():
        own = {"alignment_weight": 0.5, "infomax_weight": 0.4, "l2_sp_weight": 0.001}
        args = arguments(tmp_path / name, terms=terms, logging_steps=1, learning_rate=1e-3, **own)
        made = specialize_task("shade", pool, meta, head, images, args)
        found[name] = load_file(made.candidate / "model.safetensors")
        lines = [line for line in made.history if "loss" in line]
        assert all((f"loss_{term}" in line) == (term in terms) for line in lines for term in ("flatness", "growth"))
        options = {"distillation": 1.0, "alignment": 0.5, "infomax": 0.4, "l2_sp": 0.001, **terms}
        for line in lines:
            total = sum(weight * line[f"loss_{term}"] for term, weight in options.items())
            assert line["loss"] == pytest.approx(total, rel=1e-3, abs=1e-4)
    for name in ("flatness", "growth"):
        assert any(not torch.equal(found["none"][key], tensor) for key, tensor in found[name].items()), name
    grown = sum((tensor - found["none"][key]).sum() for key, tensor in found["growth"].items())
    assert grown > 0, "its gradient makes weights grow"
    state = load_state(tmp_path / "flatness" / "shade" / "checkpoint-4" / "random_0.safetensors")
    assert state["own"]["flatness/calls"] == 4, "a term's memory is in the checkpoint, each process's own"


def test_unknown_terms_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown term of phase 2 'infomx': did you mean 'infomax'?"):
        arguments(tmp_path, terms={"infomx": 1.0})
    with pytest.raises(InputError, match="'infomax' is an option of its own; set infomax_weight"):
        arguments(tmp_path, terms={"infomax": 1.0})


def test_a_student_with_nothing_to_learn_is_refused(setting, tmp_path):
    pool, meta, head, images = setting
    args = arguments(tmp_path, distillation_weight=0, alignment_weight=0, infomax_weight=0)
    with pytest.raises(InputError, match="nothing to learn"):
        specialize_task("shade", pool, meta, head, images, args)


@pytest.mark.parametrize("gate", [True, False])
def test_specialist_or_expert(setting, tmp_path, gate):
    pool, meta, head, images = setting
    specialist = specialize_task("shade", pool, meta, head, images, arguments(tmp_path, gate=gate))
    expert = pool.tower("shade").state_dict()
    gated, student = specialist.tower().state_dict(), specialist.tower(gated=False).state_dict()
    assert any(not torch.equal(student[name], expert[name]) for name in expert)
    expected = student if specialist.improved else expert
    assert all(torch.equal(gated[name], expected[name]) for name in expert)
    if not gate:
        assert specialist.improved
    assert 0 <= specialist.decision.changed <= 1 and specialist.decision.images == len(images)


def test_images_limits_the_images(setting, tmp_path):
    pool, meta, head, images = setting
    assert specialize_task("shade", pool, meta, head, images, arguments(tmp_path, images=9)).decision.images == 9


def test_copies_of_an_image_count_once(setting, tmp_path, caplog):
    pool, meta, head, images = setting
    twice = images.subset([0, 1, 2, 0, 1, 2, 0, 3])
    assert [len(twice.distinct()), len(images.distinct())] == [4, len(images)]
    assert torch.equal(twice.distinct().pixels(range(4)), images.pixels(range(4)))
    decision = specialize_task("shade", pool, meta, head, twice, arguments(tmp_path)).decision
    assert decision.images == 4 and decision.chosen == "expert"
    assert "shade: 4 of 8 unlabelled images are copies" in caplog.text


@pytest.mark.parametrize(("images", "expected"), [(64, 20), (256, 160), (1024, 1200), (4000, 1200)])
def test_few_images_are_not_seen_too_often(tmp_path, images, expected):
    args = arguments(tmp_path, max_steps=1200, per_device_train_batch_size=64)
    assert steps_to_train(args, 1.0, images) == expected


def test_a_student_is_trained_for_so_many_steps(setting, tmp_path, monkeypatch):
    seen = []
    compute_loss = StudentTrainer.compute_loss
    monkeypatch.setattr(
        StudentTrainer, "compute_loss", lambda *a, **k: (seen.append(a[2]["index"]), compute_loss(*a, **k))[1]
    )
    pool, meta, head, images = setting
    args = arguments(tmp_path, images=9, max_steps=100, gate=False)  # which trains nothing from so few
    specialize_task("shade", pool, meta, head, images, args)
    assert len(seen) == steps_to_train(args, 1.0, 9) < 100


@pytest.mark.parametrize(
    ("to_learn", "options", "expected"),
    [(0.01, {}, 300), (0.125, {}, 600), (0.3, {}, 1200), (0.01, {"fewer_steps": False}, 1200),
     (0.01, {"max_steps": -1}, -1)],
)  # fmt: skip
def test_less_to_learn_takes_fewer_steps(tmp_path, to_learn, options, expected):
    args = arguments(tmp_path, **{"max_steps": 1200, "fewer_steps": True, **options})
    assert steps_to_train(args, to_learn, images=4000) == expected


@pytest.mark.parametrize("options", [{}, {"infomax_weight": 0.4}, {"teacher": ["hard"]}])
def test_what_the_loss_trains_is_no_evidence(setting, tmp_path, monkeypatch, options):
    rules = []
    monkeypatch.setattr("hf_mdft.specialize.one_task.decide", lambda *a: (rules.append(a[4]), decide(*a))[1])
    pool, meta, head, images = setting
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path, **options))
    assert (rules[0].information_gain == float("inf")) == bool(options)


def test_what_there_is_to_learn_is_what_the_teacher_corrects():
    start, targets = source([0, 1, 2, 0]), torch.eye(3)[[0, 1, 1, 0]]
    assert share_to_learn(Teacher(targets, torch.ones(4), start.features), start.predictions) == 0.25


def test_another_meta_model_makes_another_specialist(setting, tmp_path, monkeypatch):
    """Also where no sum over a tensor shows that it is another."""
    pool, meta, head, images = setting
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path))
    with torch.no_grad():
        p = max(meta.parameters(), key=torch.numel)
        p.copy_(p.flatten().flip(0).view_as(p))
    calls, train = [], StudentTrainer.train
    monkeypatch.setattr(StudentTrainer, "train", lambda *a, **k: (calls.append(1), train(*a, **k))[1])
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path))
    assert calls == [1]


def test_the_student_joins_its_teacher_half_way(setting, tmp_path, monkeypatch):
    pool, meta, head, images = setting
    built = []

    def build(sources, args):
        built.append(sources)
        return build_teacher(sources, args)

    monkeypatch.setattr("hf_mdft.specialize.one_task.build_teacher", build)
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "with", refreshes=1))
    first, second = built
    assert list(first) == ["expert"] and list(second) == ["expert", "student"]
    assert second["expert"] is first["expert"] and second["student"].trusted
    built.clear()
    weighed = arguments(tmp_path / "weighed", ensemble_weight=0.5)
    specialize_task("shade", pool, meta, head, images, weighed)
    assert list(built[0]) == ["expert", "meta", "base"]
    built.clear()
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "without"))
    assert len(built) == 1


def test_experts_teach_from_restored_images_and_the_student_sees_most_as_they_are(setting, tmp_path, monkeypatch):
    pool, meta, head, images = setting
    taught, compared, seen, indices = [], [], [], []

    def build(sources, args):
        taught.append(sources)
        return build_teacher(sources, args)

    def decided(specialist, expert, others, *rest):
        compared.append(expert)
        return decide(specialist, expert, others, *rest)

    def logits(tower, pixels):
        with torch.no_grad():
            return head(pool.architecture.features(tower(pixel_values=images.preprocessor.normalize(pixels))))

    monkeypatch.setattr("hf_mdft.specialize.given.find_restorations", lambda *_, **__: ["invert"])
    monkeypatch.setattr("hf_mdft.specialize.one_task.build_teacher", build)
    monkeypatch.setattr("hf_mdft.specialize.one_task.decide", decided)
    views = StudentTrainer.views

    def watched(self, model, pixels, index):
        made = views(self, model, pixels, index)
        seen.append(made.pixels)
        indices.append(index)
        return made

    monkeypatch.setattr(StudentTrainer, "views", watched)
    made = specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "on", ensemble_weight=1e-9))
    raw = images.pixels(range(len(images)))
    sources = taught[0]
    for name, tower, pixels in (
        ("expert", pool.tower("shade"), 255 - raw), ("base", pool.tower(), 255 - raw), ("meta", meta, raw)
    ):  # fmt: skip
        torch.testing.assert_close(sources[name].logits, logits(tower, pixels), atol=1e-3, rtol=1e-3)
    plain, inverted = ({image.numpy().tobytes() for image in pixels} for pixels in (raw, 255 - raw))
    shown = [image.numpy().tobytes() for batch in seen for image in batch]
    assert set(shown) <= plain | inverted
    for batch, rows in zip(seen, indices, strict=True):
        given = raw[rows.cpu()]
        assert all(torch.equal(a, b) or torch.equal(a, 255 - b) for a, b in zip(batch, given, strict=True))
    assert 0.1 < sum(image in inverted for image in shown) / len(shown) < 0.4, "a quarter, by default"
    seen.clear()
    specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "none", restored_share=0))
    assert seen and all(image.numpy().tobytes() in plain for batch in seen for image in batch)
    expert = compared[0]
    torch.testing.assert_close(expert.logits, logits(pool.tower("shade"), raw), atol=1e-3, rtol=1e-3)
    inverted_images = restored(images, ["invert"])
    held_out = expert_features(pool, "shade", inverted_images, views=HELD_OUT_VIEWS)
    assert torch.equal(expert.held_out, torch.stack([head(features).argmax(-1) for features in held_out]))
    torch.testing.assert_close(expert.class_frequencies, sources["expert"].class_frequencies)
    assert made.restorations == ("invert",)
    again = specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "on", ensemble_weight=1e-9))
    assert again.restorations == ("invert",), "and it is remembered"
    monkeypatch.setattr("hf_mdft.specialize.given.find_restorations", lambda *_, **__: pytest.fail("looked"))
    assert (
        specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "off", restore=False)).restorations
        == ()
    )


def test_finished_work_is_used_again_and_only_for_the_same_input(setting, tmp_path, monkeypatch):
    pool, meta, head, images = setting
    first = specialize_task("shade", pool, meta, head, images, arguments(tmp_path))
    weights = load_file(first.candidate / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(StudentTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
        again = specialize_task("shade", pool, meta, head, images, arguments(tmp_path, rounds=3))
    assert again.decision == first.decision, "a run with more rounds goes on where one with fewer ended"
    for option in ({"per_device_train_batch_size": 6}, {"learning_rate": 1e-3}):
        changed = specialize_task("shade", pool, meta, head, images, arguments(tmp_path, **option))
        other = load_file(changed.candidate / "model.safetensors")
        assert any(not torch.equal(weights[name], other[name]) for name in weights), option


@pytest.mark.parametrize("ema_decay", [0.0, 0.98])
def test_a_checkpoint_holds_the_whole_student(setting, tmp_path, ema_decay):
    """Each architecture: the Trainer's own file is loaded by names that may not be the model's."""
    pool, meta, head, images = setting
    options = dict(max_steps=6, save_total_limit=None, ema_decay=ema_decay)
    whole = specialize_task("shade", pool, meta, head, images, arguments(tmp_path, **options))
    expected = load_file(whole.candidate / "model.safetensors")
    shutil.rmtree(tmp_path / "shade" / "result")
    for late in (4, 6):
        shutil.rmtree(tmp_path / "shade" / f"checkpoint-{late}")
    again = specialize_task("shade", pool, meta, head, images, arguments(tmp_path, **options))
    found = load_file(again.candidate / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@both_architectures
def test_interrupted_training_goes_on_exactly(setting, tmp_path, monkeypatch):
    pool, meta, head, images = setting
    whole = specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "whole"))
    real = StudentTrainer.finish
    monkeypatch.setattr(StudentTrainer, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "parts"))
    work = tmp_path / "parts" / "shade"
    assert not (work / "result").exists()
    state = json.loads((work / "checkpoint-4" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 4
    monkeypatch.setattr(StudentTrainer, "finish", real)
    resumed = specialize_task("shade", pool, meta, head, images, arguments(tmp_path / "parts"))
    a, b = (load_file(s.candidate / "model.safetensors") for s in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert resumed.decision == whole.decision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 1}, "images"),
        ({"rounds": -1}, "rounds"),
        ({"start": 2}, "start"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_argument_errors(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        arguments(tmp_path, **options)


def test_learning_rate_follows_the_task_vector(clip_pool, monkeypatch):
    """In proportion to its root mean square, that of all experts for a task without one, and bounded."""
    base = torch.cat([tensor.flatten() for _, tensor in clip_pool.weights(None).items()])
    moved = {t: torch.cat([x.flatten() for _, x in clip_pool.weights(t).items()]) - base for t in clip_pool.experts}
    task = next(iter(moved))
    assert GENTLE * moved[task].square().mean() ** 0.5 > FASTEST == gentle_learning_rate(clip_pool, task)
    monkeypatch.setattr("hf_mdft.specialize.learning_rate.FASTEST", 1.0)
    expected = GENTLE * moved[task].double().square().mean().item() ** 0.5
    assert gentle_learning_rate(clip_pool, task) == pytest.approx(expected, rel=1e-5)
    expected = GENTLE * torch.cat(list(moved.values())).double().square().mean().item() ** 0.5
    without = ModelPool(clip_pool.base, {**clip_pool.experts, "new": None})
    assert gentle_learning_rate(without, "new") == pytest.approx(expected, rel=1e-5)


def test_strengths_out_of_range_are_refused(tmp_path):
    for name in ("start", "prior_strength", "lda_weight"):
        with pytest.raises(InputError, match=rf"{name} must lie in \[0, 1\], got 1.5"):
            arguments(tmp_path, **{name: 1.5})


@pytest.mark.parametrize(("processes", "dropped"), [(1, True), (2, False)])
def test_some_batch_is_left_where_the_last_one_is_dropped(setting, tmp_path, monkeypatch, processes, dropped):
    """Fewer images than one batch of all processes: all would be dropped, and nothing trained without an error."""
    pool, meta, head, images = setting
    kept = []
    monkeypatch.setattr(SpecializeArguments, "world_size", property(lambda args: processes))
    monkeypatch.setattr(PhaseTrainer, "__init__", lambda trainer, *, args, **_: kept.append(args) or 1 / 0)
    args = arguments(tmp_path, per_device_train_batch_size=len(images) * 2 // 3, dataloader_drop_last=True)
    teacher = Teacher(torch.full((len(images), 3), 1 / 3), torch.ones(len(images)), torch.zeros(len(images), 16))
    with pytest.raises(ZeroDivisionError):
        StudentTrainer(meta, args, architecture=pool.architecture, head=head, images=images, teacher=teacher)
    assert kept[0].dataloader_drop_last == dropped


def test_a_result_is_not_kept_where_experts_of_other_tasks_change(merger, tmp_path, monkeypatch):
    """They tell whether the images are of another task."""
    told = []
    monkeypatch.setattr(
        "hf_mdft.specialize.one_task.information_by_others", lambda experts, *_: told.append(1) or {"shade": {}}
    )
    given = ("shade", merger.pool, merger.pool.tower("colour"), merger.head("shade"), merger.unlabelled("shade"))
    experts = merger.experts("shade")
    for expected in (1, 1, 2):
        if expected == 2:
            colour = experts.strangers["colour"]
            other = colour.with_classes(list(range(colour.num_classes))[::-1], colour.class_names)
            experts = dataclasses.replace(experts, strangers={**experts.strangers, "colour": other})
        specialize_task(*given, arguments(tmp_path), experts=experts)
        assert len(told) == expected


@pytest.mark.parametrize("images_looked_at", [6, 24])
def test_the_gate_compares_consistency_on_the_same_images(setting, monkeypatch, images_looked_at):
    """An unchanged expert has exactly its own, whichever images are looked at."""
    pool, meta, head, images = setting
    monkeypatch.setattr("hf_mdft.specialize.evidence.IMAGES", images_looked_at)
    models = Models(TaskExperts("shade", pool, {"shade": head}), meta, head, images)
    sources = observe_sources(models, True, others=False)
    seen = gate_evidence(models, sources, {"shade": 1.0})
    same = seen.of(pool.tower("shade"), head, "specialist")
    assert len(seen.models.images) == images_looked_at
    assert same.consistency == pytest.approx(seen.expert.consistency, abs=1e-6)


def test_consistency_of_some_images_is_their_own():
    views = [torch.eye(2)[torch.tensor(classes)] for classes in ([0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 1, 1])]
    seen = observe(views, lambda features: features)
    assert seen.consistency == pytest.approx((2 + 2 + 1 + 0) / 8)
    assert seen.on(torch.tensor([0, 1])).consistency == 1.0
    assert seen.on(torch.tensor([2, 3])).consistency == pytest.approx(0.25)
    assert seen.steady.tolist() == [True, True, False, False]
    joint = combined({"a": seen, "b": seen}, {"a": 0.7, "b": 0.3})
    assert joint.on(torch.tensor([2, 3])).consistency == pytest.approx(0.25)


@pytest.mark.parametrize(("epochs", "more"), [(0.5, 0), (1.5, 0), (2.0, 0), (1.5, 3.0)])
def test_a_finished_run_of_epochs_is_only_loaded_and_a_longer_one_goes_on(setting, tmp_path, epochs, more):
    pool, _, head, images = setting
    targets = torch.nn.functional.one_hot(torch.arange(len(images)) % 3, 3).float()
    teacher = Teacher(targets, torch.ones(len(images)), torch.randn(len(images), 16))

    def trainer(epochs):
        args = arguments(
            tmp_path, max_steps=-1, num_train_epochs=epochs, learning_rate=1e-3, save_steps=1, alignment_weight=0
        )
        return StudentTrainer(
            pool.tower("shade"), args, architecture=pool.architecture, head=head, images=images, teacher=teacher
        )

    first = trainer(epochs)
    steps = first.train().global_step
    again = trainer(more or epochs)
    assert (again.train(resume_from_checkpoint=True).global_step == steps) is not bool(more)
    if not more:
        wanted, found = first.finish(), again.finish()
        assert all(torch.equal(wanted[name], tensor) for name, tensor in found.items())


def test_the_average_begins_at_the_start(setting, tmp_path):
    pool, _, head, images = setting
    targets = torch.nn.functional.one_hot(torch.arange(len(images)) % 3, 3).float()
    teacher = Teacher(targets, torch.ones(len(images)), torch.randn(len(images), 16))
    args = arguments(
        tmp_path, max_steps=1, learning_rate=1e-2, warmup_steps=0, lr_scheduler_type="constant", ema_decay=0.9,
        alignment_weight=0,
    )  # fmt: skip
    student = pool.tower("shade")
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    trainer = StudentTrainer(student, args, architecture=pool.architecture, head=head, images=images, teacher=teacher)
    trainer.train()
    kept = trainer.finish()
    for name, p in student.named_parameters():
        torch.testing.assert_close(kept[name], 0.9 * before[name] + 0.1 * p.detach())
    assert any(not torch.equal(before[name], p) for name, p in student.named_parameters())


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("rate", [1e8, 1e9])
def test_a_student_that_diverges_costs_no_other_result(clip_pool, tasks, tmp_path, caplog, gate, rate):
    """Its weights are no finite numbers, or are, but nothing that they compute."""
    merger = MetaMerger(clip_pool, {"shade": tasks["shade"]})
    merger.fit(fit_arguments(tmp_path, max_steps=0))
    options = dict(learning_rate=rate, max_grad_norm=0, max_steps=4 if rate == 1e8 else 2, gate=gate, restore=False)
    made = merger.specialize(specialize_arguments(tmp_path, **options))["shade"]
    assert made.decision.chosen == "expert" and "no finite numbers; lower learning_rate" in made.decision.reason
    assert "shade: training diverged, to weights or outputs that are no finite numbers" in caplog.text
    accuracy = merger.evaluate().accuracy
    assert accuracy["specialist"] == accuracy["specialist_ungated"] == accuracy["expert"]
    made.save_pretrained(tmp_path / "saved")


def test_pushing_all_specialists_to_one_repo_is_refused_as_such(tmp_path):
    with pytest.raises(InputError, match="push each with its own push_to_hub"):
        arguments(tmp_path, push_to_hub=True)
