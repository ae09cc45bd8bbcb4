"""Phase 2 for one task: observe, teach, train, decide."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from .arguments import SpecializeArguments
from .gate import decide
from .specialist import Specialist
from .student import StudentTrainer
from .teacher import build_teacher, observe
from .views import JUDGE_VIEWS, TEACHER_VIEWS


def specialize_task(
    task: str, pool: ModelPool, meta: nn.Module, head: Head, images: Images, args: SpecializeArguments
) -> Specialist:
    """Train a student for one task and decide whether it replaces the expert.

    Args:
        task: Its name; a task without an expert starts at the meta-model and is measured against it.
        pool: Base and experts.
        meta: The meta-model's tower.
        head: Of the task.
        images: All its unlabelled images; `args.shots` of them are used.
        args: Of phase 2. Checkpoints go to a folder of the task's own in `args.output_dir`, and training goes on from
            the last one found there.
    """
    images = images.sample(args.shots, args.seed)
    device = args.device
    towers: dict[str, nn.Module] = {"meta": meta, "base": pool.tower()}
    if task in pool.experts:
        towers = {"expert": pool.tower(task), **towers}
    head = copy.deepcopy(head).cpu()
    first = next(iter(towers))
    all_views = {"views": TEACHER_VIEWS, "judge_views": JUDGE_VIEWS}
    sources = {
        name: observe(
            tower.to(device),
            pool.architecture,
            head,
            images,
            desc=f"{task}: {name}",
            **(all_views if name == first else {}),
        )
        for name, tower in towers.items()
    }
    student = pool.tower()
    student.load_state_dict(_between(towers[first].state_dict(), meta.state_dict(), args.start))
    task_args = copy.copy(args)
    task_args.output_dir = str(Path(args.output_dir) / task)
    trainer = StudentTrainer(
        student,
        task_args,
        architecture=pool.architecture,
        head=copy.deepcopy(head),
        images=images,
        teacher=build_teacher(sources, args.others_weight),
    )
    folder = Path(task_args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.is_dir() else None)
    candidate = trainer.finish()
    student.load_state_dict(candidate)
    seen = observe(student.to(device), pool.architecture, head, images, desc=f"{task}: specialist")
    others = {name: source for name, source in sources.items() if name != first}
    decision = decide(seen, sources[first], others, args.others_weight)
    if not args.gate and decision.chosen != "specialist":
        decision.chosen, decision.reason = "specialist", f"gate off ({decision.reason})"
    return Specialist(task, pool, head, decision, candidate, trainer.state.log_history)


def _between(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    return {name: torch.lerp(tensor, b[name].to(tensor.device), share) for name, tensor in a.items()}
