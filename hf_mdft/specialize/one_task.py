"""Phase 2 for one task: observe, teach, train, decide."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from ..core.hashing import fingerprint
from ..embedding.restoration import find_restorations
from ..embedding.views import FEW_VIEWS
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from ..trainers import arguments_key, resumable, show_progress
from .arguments import SpecializeArguments
from .gate import RULE, Decision, Rule, decide, without_information
from .interpolation import interpolate
from .learning_rate import gentle_learning_rate
from .specialist import Specialist
from .steps import share_to_learn, steps_to_train
from .student import StudentTrainer
from .teacher import SOURCES, Models, Source, Teacher, build_teacher, observe, observe_sources


logger = logging.getLogger(__name__)

VERSION = 9
"""Version of what a task's folder holds and of how it is made."""

SOFT_PARTS = frozenset({"ensemble", "class_prior", "lda"})
"""Parts of the teacher that leave its targets about as uncertain as they were."""

CANDIDATE, INTERPOLATED, FALLBACK, DECISION = "candidate", "interpolated", "fallback", "decision.json"


def specialize_task(
    task: str,
    pool: ModelPool,
    meta: nn.Module,
    head: Head,
    images: Images,
    args: SpecializeArguments,
    meta_key: str | None = None,
) -> Specialist:
    """Train a student for one task and decide whether it replaces the expert.

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
    """
    given = images.sample(args.images, args.seed)
    images = given.distinct()
    if len(images) < len(given) and PartialState().is_main_process:
        logger.warning(
            "%s: %d of %d unlabelled images are copies; each counts once", task, len(given) - len(images), len(given)
        )
    head = copy.deepcopy(head).cpu()
    work = Path(args.output_dir) / task
    state = PartialState()
    with state.main_process_first():
        parts = ["specialist", VERSION, task, pool.reference(), meta_key or fingerprint(meta.state_dict()), head.key()]
        parts += [images.key, arguments_key(args), args.world_size, [kind.name for kind in SOURCES.parts()]]
        parts += [repr(RULE)]
        checkpoint = resumable(work, parts, [CANDIDATE, INTERPOLATED, FALLBACK, DECISION])
    # The first process decides for all: another one could look a moment later and find the file just written.
    (done,) = broadcast_object_list([(work / DECISION).is_file()])
    if not done:
        models = models_of(task, pool, meta, head, images, args)
        decision, history, tower = _train(models, args, work, checkpoint)
        if state.is_main_process:
            (work / CANDIDATE).mkdir(exist_ok=True)
            pool.save_complete(tower.state_dict(), head, work / CANDIDATE)
            if decision.interpolation is not None:
                start = (pool.tower(task) if models.has_expert else meta).state_dict()
                kept = interpolate(start, tower.state_dict(), decision.interpolation)
                (work / INTERPOLATED).mkdir(exist_ok=True)
                pool.save_complete(kept, head, work / INTERPOLATED)
            if task not in pool.experts:
                (work / FALLBACK).mkdir(exist_ok=True)
                pool.save_complete(meta.cpu().state_dict(), head, work / FALLBACK)
            content = {"decision": dataclasses.asdict(decision), "history": history}
            content["restorations"] = models.restorations
            (work / f".{DECISION}").write_text(json.dumps(content), encoding="utf-8")
            (work / f".{DECISION}").replace(work / DECISION)
        state.wait_for_everyone()
    content = json.loads((work / DECISION).read_text(encoding="utf-8"))
    decision = Decision(**content["decision"])
    return Specialist(
        task=task,
        pool=pool,
        head=head,
        decision=decision,
        candidate=work / CANDIDATE,
        fallback=None if task in pool.experts else work / FALLBACK,
        history=content["history"],
        restorations=tuple(content["restorations"]),
        interpolated=None if decision.interpolation is None else work / INTERPOLATED,
    )


def models_of(
    task: str, pool: ModelPool, meta: nn.Module, head: Head, images: Images, args: SpecializeArguments
) -> Models:
    """What phase 2 is given for a task, and the restorations of its images."""
    models = Models(task, pool, meta, head, images, args.device)
    if not (args.restore and models.has_expert):
        return models
    title = f"{task}: restorations"
    found = find_restorations(pool, task, images, copy.deepcopy(head), device=args.device, desc=title)
    return dataclasses.replace(models, restorations=tuple(found))


def rule_for(args: SpecializeArguments) -> Rule:
    """The gate's rule. Mutual information is no evidence for a student that was trained to be sure: by a term of its
    loss, or by a part of the teacher that is not known to leave targets as uncertain as they were."""
    soft = SOFT_PARTS.issuperset(args.teacher) and not args.infomax_weight and not args.terms
    return RULE if soft else without_information(RULE)


def expert_as_compared(models: Models, reference: Source) -> Source:
    """The expert on the images as they are, which the specialist is compared with. Held-out views and class
    frequencies are those of the teacher's reference, which sees the images restored."""
    if not models.restorations:
        return reference
    features = models.embed_of_pool(models.task, "expert, images as they are", FEW_VIEWS, as_they_are=True)
    plain = observe(features, models.head)
    return dataclasses.replace(plain, held_out=reference.held_out, frequencies=reference.class_frequencies)


def _train(
    models: Models, args: SpecializeArguments, work: Path, checkpoint: str | None
) -> tuple[Decision, list[dict[str, Any]], nn.Module]:
    task, pool, meta = models.task, models.pool, models.meta
    sources = observe_sources(models, args.teacher_views)

    def self_taught(average: nn.Module) -> Teacher:
        with_student = dataclasses.replace(models, student=average)
        return build_teacher(observe_sources(with_student, args.teacher_views, sources), args)

    teacher = build_teacher(sources, args)
    expert = expert_as_compared(models, next(iter(sources.values())))
    to_learn = 1.0 if args.start and models.has_expert else share_to_learn(teacher, expert)
    # The first process decides for all: another one's outputs could differ in the last bit.
    (steps,) = broadcast_object_list([steps_to_train(args, to_learn, len(models.images))])
    student = pool.tower()
    origin = pool.tower(task).state_dict() if models.has_expert else meta.state_dict()
    student.load_state_dict(interpolate(origin, meta.state_dict(), args.start))
    trainer = StudentTrainer(
        student,
        _task_arguments(task, pool, args, work, steps),
        architecture=pool.architecture,
        head=copy.deepcopy(models.head),
        images=models.images,
        teacher=teacher,
        restored=models.restored if models.restorations else None,
        refresh=self_taught if args.refreshes else None,
    )
    show_progress(trainer, f"Specialist {task}")
    trainer.train(resume_from_checkpoint=checkpoint)
    trained = trainer.finish()
    student.load_state_dict(trained)
    reference, *others = sources
    specialist = observe(models.embed(student, "specialist", FEW_VIEWS), models.head)

    def between(share: float) -> Source:
        tower = pool.tower()
        tower.load_state_dict(interpolate(origin, trained, share))
        return observe(models.embed(tower, f"specialist, {share:.0%} of the way", FEW_VIEWS), models.head)

    rest = {name: sources[name] for name in others}
    decision = decide(specialist, expert, rest, between, rule_for(args), sources[reference])
    if not args.gate and decision.share < 1:
        off = f"gate off ({decision.reason})"
        decision = dataclasses.replace(decision, chosen="specialist", reason=off, interpolation=None)
    return decision, trainer.state.log_history, student.cpu()


def _task_arguments(
    task: str, pool: ModelPool, args: SpecializeArguments, work: Path, steps: int
) -> SpecializeArguments:
    """Options of one task's training: its folder, learning rate and number of steps."""
    own = copy.copy(args)
    own.output_dir, own.max_steps = str(work), steps
    if args.learning_rate is None:
        own.learning_rate = gentle_learning_rate(pool, task)
    return own
