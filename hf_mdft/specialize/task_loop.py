"""Phase 2 for one task: observe, teach, train, decide."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from ..core.device import fast_bf16
from ..embedding import embed_views, expert_features
from ..embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, TEACHER_VIEWS, Offset
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from ..trainers import arguments_key, resumable, show_progress
from .arguments import SpecializeArguments
from .gate import Decision, decide
from .specialist import Specialist
from .student import StudentTrainer
from .teacher import Source, Teacher, build_teacher, observe


MOST_EPOCHS = 20
"""A student that sees few images more often learns them by heart: experts of 1,500 labels changed by +0.1 points on
characters after 30 epochs of 64 images, -4.1 after 60 and -6.6 after 100 (at a learning rate of 5e-4)."""

CANDIDATE, FALLBACK, DECISION = "candidate", "fallback", "decision.json"


def specialize_task(
    task: str,
    pool: ModelPool,
    meta: nn.Module,
    head: Head,
    images: Images,
    args: SpecializeArguments,
    meta_key: Any = None,
) -> Specialist:
    """Train a student for one task and decide whether it replaces the expert.

    Args:
        task: Its name; a task without an expert starts at the meta-model and is measured against it.
        pool: Base and experts.
        meta: The meta-model's tower.
        head: Of the task.
        images: All its unlabelled images; `args.images` of them are used.
        args: Of phase 2. Work in progress goes to a folder of the task's own in `args.output_dir`; an interrupted run
            goes on there.
        meta_key: What the meta-model depends on: a result found in the folder is used only for the same.
    """
    images = images.sample(args.images, args.seed)
    head = copy.deepcopy(head).cpu()
    work = Path(args.output_dir) / task
    state = PartialState()
    with state.main_process_first():
        parts = ["specialist 4", pool.reference(), meta_key, head.key(), images.key, arguments_key(args)]
        parts.append(args.world_size)
        checkpoint = resumable(work, parts, [CANDIDATE, FALLBACK, DECISION])
    # The first process decides for all: another one could look a moment later and find the file just written.
    (done,) = broadcast_object_list([(work / DECISION).is_file()])
    if not done:
        decision, history, tower = _train(task, pool, meta, head, images, args, work, checkpoint)
        if state.is_main_process:
            (work / CANDIDATE).mkdir(exist_ok=True)
            pool.save_complete(tower.state_dict(), head, work / CANDIDATE)
            if task not in pool.experts:
                (work / FALLBACK).mkdir(exist_ok=True)
                pool.save_complete(meta.cpu().state_dict(), head, work / FALLBACK)
            content = {"decision": decision.to_dict(), "history": history}
            (work / f".{DECISION}").write_text(json.dumps(content))
            (work / f".{DECISION}").replace(work / DECISION)
        state.wait_for_everyone()
    content = json.loads((work / DECISION).read_text())
    fallback = None if task in pool.experts else work / FALLBACK
    decision = Decision(**content["decision"])
    return Specialist(task, pool, head, decision, work / CANDIDATE, fallback, content["history"], facts={})


def _train(
    task: str,
    pool: ModelPool,
    meta: nn.Module,
    head: Head,
    images: Images,
    args: SpecializeArguments,
    work: Path,
    checkpoint: str | None,
) -> tuple[Decision, list[dict[str, Any]], nn.Module]:
    has_expert = task in pool.experts

    def look(tower: nn.Module, name: str, views: tuple[Offset, ...]) -> torch.Tensor:
        tower = tower.to(args.device)
        return embed_views(
            tower, pool.architecture, images, views, desc=f"{task}: {name}", bf16=fast_bf16(args.device)
        )

    def known(expert: str | None, name: str, views: tuple[Offset, ...]) -> torch.Tensor:
        return expert_features(pool, expert, images, views=views, device=args.device, desc=f"{task}: {name}")

    every, averaged = TEACHER_VIEWS + HELD_OUT_VIEWS, args.teacher_views
    sources = {}
    if has_expert:
        sources["expert"] = observe(known(task, "expert", every), head, len(HELD_OUT_VIEWS), averaged)
        sources["meta"] = observe(look(meta, "meta-model", FEW_VIEWS), head, averaged=averaged)
    else:
        sources["meta"] = observe(look(meta, "meta-model", every), head, len(HELD_OUT_VIEWS), averaged)
    sources["base"] = observe(known(None, "base", FEW_VIEWS), head, averaged=averaged)
    first = next(iter(sources))
    student = pool.tower()
    origin = pool.tower(task).state_dict() if has_expert else meta.state_dict()
    student.load_state_dict(_between(origin, meta.state_dict(), args.start))
    task_args = copy.copy(args)
    task_args.output_dir = str(work)
    if args.learning_rate is None:
        task_args.learning_rate = gentle_learning_rate(pool, task)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    task_args.max_steps = min(args.max_steps, MOST_EPOCHS * math.ceil(len(images) / batch))

    def teacher(own: Source | None = None) -> Teacher:
        return build_teacher(sources, args.ensemble_weight, args.prior_strength, args.lda_weight, own)

    def with_student(average: nn.Module) -> Teacher:
        # Weight 1: the student has learned from everything that the others know.
        return teacher(observe(look(average, "student", FEW_VIEWS), head, averaged=averaged))

    trainer = StudentTrainer(
        student,
        task_args,
        architecture=pool.architecture,
        head=copy.deepcopy(head),
        images=images,
        teacher=teacher(),
        refresh=with_student if args.self_training else None,
    )
    show_progress(trainer, f"Specialist {task}")
    trainer.train(resume_from_checkpoint=checkpoint)
    student.load_state_dict(trainer.finish())
    others = {name: source for name, source in sources.items() if name != first}
    judged = observe(look(student, "specialist", FEW_VIEWS), head)
    decision = decide(judged, sources[first], others, args.ensemble_weight)
    if not args.gate and decision.chosen != "specialist":
        decision.chosen, decision.reason = "specialist", f"gate off ({decision.reason})"
    return decision, trainer.state.log_history, student.cpu()


GENTLE, FASTEST = 0.15, 2e-4
"""Learning rate over the size of the task vector, and its upper bound. Strong experts lose what they know at higher
rates (experts of 1,500 labels, Fashion-MNIST: -1.4 points at 5e-4, 0.0 at 2e-4, +0.2 at 1e-4, and -4.8 against -0.1
with 64 images), weak ones gain little by them (256 labels, characters: +9.2, +8.0, +7.0; signs: +1.5, +1.9, +2.2)."""


def gentle_learning_rate(pool: ModelPool, task: str) -> float:
    """In proportion to the root mean square of the expert's task vector (of all experts', for a task without one)."""
    squares, count = 0.0, 0
    for expert in [task] if task in pool.experts else pool.experts:
        for name, tensor in pool.weights(expert).items():
            squares += (tensor - pool.weights(None).tensor(name)).double().square().sum().item()
            count += tensor.numel()
    # An expert that equals the base tells nothing; a usual rate of fine-tuning then.
    return min(GENTLE * (squares / count) ** 0.5, FASTEST) or 1e-5


def _between(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    return {
        name: torch.lerp(tensor.cpu(), b[name].cpu(), share) if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }
