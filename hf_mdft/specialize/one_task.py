"""Phase 2 for one task: observe, teach, train, decide."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from ..cards import Trust
from ..core.hashing import fingerprint
from ..core.sealed import seal_of, sealed, whole
from ..embedding.statistics import batch_norms, estimate_statistics
from ..embedding.views import FEW_VIEWS
from ..experts import Source, TaskExperts
from ..heads import Head, load_head
from ..pool import ModelPool
from ..tasks import Images
from ..trainers import arguments_key, resumable, show_progress
from ..trainers.diverged import Diverged, refuse_diverged
from .arguments import SpecializeArguments
from .evidence import gate_evidence
from .gate import LIMITS, RULE, Decision, Rule, decide, familiarity, information_by_others, without_information
from .given import as_asked, check_head, images_used, models_of
from .interpolation import interpolate
from .learning_rate import gentle_learning_rate
from .specialist import Specialist
from .starts import Start, expert_start, find_start, unchanged
from .steps import share_to_learn, steps_to_train
from .student import StudentTrainer
from .teacher import SOURCES, Models, Teacher, build_teacher, observe_sources


logger = logging.getLogger(__name__)

VERSION = 22
"""Version of what a task's folder holds and of how it is made."""

SOFT_PARTS = frozenset({"ensemble", "class_prior", "lda"})
"""Parts of the teacher that leave its targets about as uncertain as they were."""

RESULT = "result"
"""Folder of what a task's training gave: whole, or not there."""

CANDIDATE, INTERPOLATED, FALLBACK, DECISION = "candidate", "interpolated", "fallback", "decision.json"
HEAD = "student-head.safetensors"


def specialize_task(
    task: str,
    pool: ModelPool,
    meta: nn.Module,
    head: Head,
    images: Images,
    args: SpecializeArguments,
    meta_key: str | None = None,
    experts: TaskExperts | None = None,
    strangers: Callable[[], Mapping[str, float]] | None = None,
    meta_head: Head | None = None,
) -> Specialist:
    """Train a student for one task and decide whether it replaces the expert that one would take without labels.

    Args:
        task: Name of the task; one without an expert starts at the meta-model and is compared with it.
        pool: Base and experts.
        meta: Tower of the meta-model.
        head: Head of the task.
        images: All unlabelled images of the task; of a sample of `args.images`, copies count once.
        args: Options of phase 2. Work in progress goes to a folder for the task in `args.output_dir`; an interrupted
            run goes on there.
        meta_key: Fingerprint of the meta-model's tensors, where it is known; a result found in the folder is used
            only for the same.
        experts: The task's experts with their heads, and teachers from outside the pool; the default is the pool's
            experts with `head`.
        strangers: Gives `information_by_others` on the images, where it is found for several tasks together; called
            if it is needed.
        meta_head: Head of the meta-model, where one was trained with it; the default is `head`.
    """
    check_head(task, head, pool)
    given, images = images.sample(args.images, args.seed), images_used(images, args)
    if len(images) < len(given) and PartialState().is_main_process:
        logger.warning(
            "%s: %d of %d unlabelled images are copies; each counts once", task, len(given) - len(images), len(given)
        )
    head, meta_head = (copy.deepcopy(own).cpu() for own in (head, meta_head or head))
    experts = experts or TaskExperts(task, pool, dict.fromkeys(pool.experts_of(task), head))
    heads = {name: copy.deepcopy(own).cpu() for name, own in experts.heads.items()}
    experts = as_asked(dataclasses.replace(experts, heads=heads, device=args.device), args, images)
    work = Path(args.output_dir) / task
    state = PartialState()
    with state.main_process_first():
        parts = ["specialist", VERSION, task, pool.reference(), meta_key or fingerprint(meta.state_dict())]
        parts += [head.key(), meta_head.key()]
        parts += [images.key, arguments_key(args), args.world_size, [kind.name for kind in SOURCES.parts()]]
        parts += [repr(RULE), *LIMITS, *experts.key()]
        parts += [[name, other.key()] for name, other in experts.strangers.items()]
        checkpoint = resumable(work, parts, [RESULT])
    # The first process decides for all: another one could look a moment later and find the folder just written.
    (done,) = broadcast_object_list([state.is_main_process and whole(work / RESULT)])
    if not done:
        models = models_of(experts, meta, head, images, args, meta_head)
        asked = strangers() if strangers else information_by_others({task: experts}, {task: images}, args.device)[task]
        trained = _train(models, args, work, checkpoint, asked)
        if state.is_main_process:
            sealed(work / RESULT, lambda folder: _write(folder, models, trained), "choose another output folder")
        state.wait_for_everyone()
    return _read(work / RESULT, task, pool, heads, head)


def _write(folder: Path, models: Models, trained: _Trained) -> None:
    pool, start, decision = models.pool, trained.start, trained.decision
    pool.save_complete(trained.state, start.head, folder / CANDIDATE)
    start.head.save(folder / HEAD)
    if decision.interpolation is not None:
        kept = between(pool, models.images, start.state, trained.state, decision.interpolation)
        pool.save_complete(kept.state_dict(), start.head, folder / INTERPOLATED)
    if not models.has_expert:
        pool.save_complete(models.meta.cpu().state_dict(), models.head, folder / FALLBACK)
    content = {"decision": dataclasses.asdict(decision), "history": trained.history}
    content |= {"restorations": models.restorations, "trust": dataclasses.asdict(trained.trust)}
    (folder / DECISION).write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path, task: str, pool: ModelPool, heads: Mapping[str, Head], head: Head) -> Specialist:
    content = json.loads((folder / DECISION).read_text(encoding="utf-8"))
    decision, trust = Decision(**content["decision"]), Trust(**content["trust"])
    return Specialist(
        task=task,
        pool=pool,
        candidate_head=load_head(folder / HEAD),
        decision=decision,
        candidate=folder / CANDIDATE,
        fallback=None if trust.expert else folder / FALLBACK,
        history=content["history"],
        restorations=tuple(content["restorations"]),
        interpolated=None if decision.interpolation is None else folder / INTERPOLATED,
        trust=trust,
        expert_head=heads[trust.expert] if trust.expert else head,
        made=seal_of(folder),
    )


def rule_for(args: SpecializeArguments) -> Rule:
    """The gate's rule. Mutual information is no evidence for a student that was trained to be sure: by a term of its
    loss, or by a part of the teacher that is not known to leave targets as uncertain as they were."""
    soft = SOFT_PARTS.issuperset(args.teacher) and not args.infomax_weight and not args.terms
    return RULE if soft else without_information(RULE)


def predictions_at_start(models: Models, sources: Mapping[str, Source]) -> torch.Tensor:
    """Classes `(N,)` that the expert (the meta-model, for a task without one) predicts of the images as they are."""
    if not models.has_expert:
        return sources["meta"].predictions
    plain = models.experts.observe(models.images, FEW_VIEWS[:1], only=[models.expert], title=models.task)
    return plain[models.expert].predictions


@dataclass(frozen=True)
class _Trained:
    """What a task's training gives.

    Args:
        decision: The gate's decision.
        start: Where the student started; its head is the student's.
        trust: What was found without labels of the task's experts.
        state: State of the student's tower; that of its start where nothing was trained.
        history: Log lines.
    """

    decision: Decision
    start: Start
    trust: Trust
    state: dict[str, torch.Tensor]
    history: list[dict[str, Any]]


def _train(
    models: Models, args: SpecializeArguments, work: Path, checkpoint: str | None, strangers: Mapping[str, float]
) -> _Trained:
    task, pool, meta = models.task, models.pool, models.meta
    others = {"others": args.ensemble_weight > 0}
    sources = observe_sources(models, args.teacher_views, **others)
    trusted = models.experts.weights(models.restored, as_they_are=models.images)
    given = familiarity(models, next(iter(sources.values())), strangers)
    # The first process decides for all: another one's outputs could differ in the last bit.
    (against,) = broadcast_object_list([given.against() if args.gate else None])
    if against is not None:
        return _untrained(models, trusted, against)

    def self_taught(average: nn.Module) -> Teacher:
        estimate_statistics(average, [models.images])
        with_student = dataclasses.replace(models, student=average, head=start.head)
        return build_teacher(observe_sources(with_student, args.teacher_views, sources, **others), args)

    teacher = build_teacher(sources, args)
    # Where classes are uneven, weights must stay near those of the expert, so the student starts there.
    (near,) = broadcast_object_list([args.gate and given.furthest < 1])
    at_once = args.per_device_train_batch_size
    start = unchanged(models) if near else find_start(models, teacher, trusted, seed=args.seed, at_once=at_once)
    # Whether the student starts as something else than the expert that it is compared with.
    anew = models.has_expert and (args.start > 0 or start.name != expert_start(models, models.expert))
    to_learn = 1.0 if anew else share_to_learn(teacher, predictions_at_start(models, sources))
    (steps,) = broadcast_object_list([steps_to_train(args, to_learn, len(models.images))])
    student = between(pool, models.images, start.state, meta.state_dict(), args.start)
    trainer = StudentTrainer(
        student,
        _task_arguments(pool, task, [name for name in models.experts.heads if trusted[name]], args, work, steps),
        architecture=pool.architecture,
        head=copy.deepcopy(start.head),
        images=models.images,
        teacher=teacher,
        restored=models.restored if models.restorations else None,
        refresh=self_taught if args.refreshes else None,
    )
    show_progress(trainer, f"Specialist {task}")
    try:
        trainer.train(resume_from_checkpoint=checkpoint, keyed=True)
        trained = trainer.finish()
        refuse_diverged(trained.values())
    except Diverged as error:
        return _diverged(models, trusted, error, trainer)
    student.load_state_dict(trained)
    if batch_norms(student):  # those of the weights' average are not the average of what training saw
        trained = copy.deepcopy(estimate_statistics(student, [models.images])).cpu().state_dict()
    seen = gate_evidence(models, sources, trusted)

    def seen_between(share: float) -> Source:
        tower = between(pool, models.images, start.state, trained, share)
        return seen.of(tower, start.head, f"specialist, {share:.0%} of the way")

    specialist = seen.of(student, start.head, "specialist")
    (is_finite,) = broadcast_object_list([bool(specialist.log_probs.isfinite().all())])
    if not is_finite:
        return _diverged(models, trusted, Diverged(), trainer)
    if not args.gate:  # the whole specialist is kept, so that is what is compared
        given = dataclasses.replace(given, evenness=1.0)
    decision = decide(specialist, seen.expert, seen.others, seen_between, rule_for(args), seen.reference, given)
    if not args.gate and decision.share < 1:
        off = f"gate off ({decision.reason})"
        decision = dataclasses.replace(decision, chosen="specialist", reason=off, interpolation=None)
    trust = Trust(models.expert, start.name, trusted)
    return _Trained(decision, start, trust, trained, trainer.state.log_history)


def _untrained(models: Models, trusted: Mapping[str, float], against: str) -> _Trained:
    """What there is where the images are no evidence: the gate would keep nothing that is learned from them."""
    if PartialState().is_main_process:
        logger.warning("%s: nothing is trained: %s ('gate: false' trains all the same)", models.task, against)
    return _kept(models, trusted, f"no improvement shown, nothing trained: {against}", [])


def _diverged(models: Models, trusted: Mapping[str, float], error: Diverged, trainer: StudentTrainer) -> _Trained:
    """What there is where the student is no model any more, whether there is a gate or not."""
    if PartialState().is_main_process:
        logger.warning("%s: %s", models.task, error)
    return _kept(models, trusted, str(error), trainer.state.log_history)


def _kept(models: Models, trusted: Mapping[str, float], reason: str, history: list[dict[str, Any]]) -> _Trained:
    """The model that one would take without labels, as the only result."""
    start, count = unchanged(models), len(models.images)
    decision = Decision("expert", *[0.0] * 5, images=count, reason=reason, trained=False)
    return _Trained(decision, start, Trust(models.expert, start.name, trusted), dict(start.state), history)


def between(
    pool: ModelPool, images: Images, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], share: float
) -> nn.Module:
    """Tower with the weights that lie `share` of the way from `a` to `b`."""
    tower = pool.tower()
    tower.load_state_dict(interpolate(a, b, share))
    return estimate_statistics(tower, [images]) if 0 < share < 1 else tower


def _task_arguments(
    pool: ModelPool, task: str, experts: list[str], args: SpecializeArguments, work: Path, steps: int
) -> SpecializeArguments:
    """Options of one task's training: its folder, learning rate (by the experts that are trusted) and number of
    steps."""
    own = copy.copy(args)
    own.output_dir, own.max_steps = str(work), steps
    # A last batch of one image has no variance.
    own.dataloader_drop_last = args.dataloader_drop_last or pool.keeps_statistics
    if args.learning_rate is None:
        own.learning_rate = gentle_learning_rate(pool, task, experts)
    return own
