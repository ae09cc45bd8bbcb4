"""What the trainers of both phases share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy, TrainOutput

from ..core.errors import InputError


EXTRA_STATE = "extra_state.safetensors"


class PhaseTrainer(Trainer):
    """A `Trainer` that logs every term of its loss separately, and whose checkpoints hold more than the model, so that
    resuming is exact."""

    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._terms: dict[str, list[torch.Tensor]] = {}
        super().__init__(*args, **kwargs)

    def record(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Keep a step's values; a log line holds their means since the line before."""
        for name, value in terms.items():
            self._terms.setdefault(name, []).append(value.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update({name: torch.stack(values).mean().item() for name, values in self._terms.items()})
            self._terms.clear()
        super().log(logs, start_time)

    def extra_state(self) -> dict[str, torch.Tensor]:
        """Tensors by name that the checkpoint must hold beside the model."""
        raise NotImplementedError

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `extra_state` gave."""
        raise NotImplementedError

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As in `Trainer`; a checkpoint of a finished run is only loaded (the Trainer would do one more step)."""
        if isinstance(resume_from_checkpoint, str):
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            if 0 < self.args.max_steps <= state.global_step:
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                return TrainOutput(state.global_step, 0.0, {})
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # First, so that the Trainer's own state file, which it writes late, marks a checkpoint that is complete.
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            state = {key: value.detach().cpu().contiguous() for key, value in self.extra_state().items()}
            save_file(state, folder / EXTRA_STATE)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / EXTRA_STATE
        if not path.is_file():
            raise InputError(f"{path}: missing, so the run cannot go on exactly; start again in another folder")
        self.load_extra_state(load_file(path))


def own_arguments(args: TrainingArguments) -> TrainingArguments:
    """A copy to change, for one device in each process: several GPUs are for `accelerate launch`, not `DataParallel`.

    Raises:
        InputError: The arguments would choose a model by its labels, push during training or cut up the weights.
    """
    if args.load_best_model_at_end:
        raise InputError("load_best_model_at_end would choose the model by evaluation labels; leave it off")
    if args.push_to_hub and args.hub_strategy != HubStrategy.END:
        raise InputError(f"hub_strategy '{args.hub_strategy.value}' pushes while training goes on; use 'end'")
    if args.fsdp or args.deepspeed:
        raise InputError("fsdp and deepspeed cut the weights into parts, which cannot be combined; leave them off")
    args = copy.copy(args)
    args._n_gpu = min(args.n_gpu, 1)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != args.mixed_precision:
        # accelerate keeps one precision for the process; the phases may differ in theirs.
        AcceleratorState._reset_state()
    return args
