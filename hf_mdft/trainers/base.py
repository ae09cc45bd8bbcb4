"""What the trainers of both phases share."""

from __future__ import annotations

import copy
import math
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, TrainOutput

from ..core.attention import quick_attention
from ..core.errors import InputError
from ..core.sealed import damage, seal
from ..core.state_files import load_state, save_state
from .checkpoints import checkpoints, last_whole
from .diverged import EndWhereDiverged
from .flat import ends_where_flat, flat
from .ranges import check_saving
from .resume import KEY_FILE


EXTRA_STATE, OPTIMIZER, RANDOM = "extra_state.safetensors", "optimizer.safetensors", "random_{}.safetensors"


class PhaseTrainer(Trainer):
    """A `Trainer` that logs every term of its loss separately, and whose checkpoints hold more than the model, so that
    resuming is exact."""

    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._terms: dict[str, list[torch.Tensor]] = {}
        super().__init__(*args, **kwargs)
        self.add_callback(EndWhereDiverged)

    def record(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Keep a step's values; a log line holds their means since the line before."""
        if self.args.logging_strategy == IntervalStrategy.NO:
            return
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

    def state_of_process(self) -> dict[str, torch.Tensor]:
        """Tensors by name that are each process's own."""
        return {}

    def load_state_of_process(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_of_process` gave."""

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *, keyed: bool = False, **kwargs: Any
    ) -> TrainOutput:
        """As in `Trainer`; a checkpoint of a finished run is only loaded (the Trainer would do one more step).

        Args:
            resume_from_checkpoint: Folder of a checkpoint; `True`: the last one in `args.output_dir` that is whole.
            keyed: Whether `resumable` made the folder ready for this training, so that its checkpoints are those of
                the run that the folder is known by.
            kwargs: See `Trainer.train`.

        Raises:
            InputError: The checkpoint is not whole, or there is none.
            Diverged: Weights are no finite numbers any more.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole(Path(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise InputError(f"{self.args.output_dir}: no whole checkpoint to go on from; leave resuming off")
        if isinstance(resume_from_checkpoint, str):
            folder = Path(resume_from_checkpoint)
            problem = damage(folder) if folder.is_dir() else "no such folder"
            if problem is not None:
                raise InputError(f"{resume_from_checkpoint}: {problem}; go on from another checkpoint")
            state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
            if self._steps() <= state.global_step or (ends_where_flat(self.args) and flat(state)):
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                return TrainOutput(state.global_step, 0.0, {})
        if self.args.should_save and not keyed:
            (Path(self.args.output_dir) / KEY_FILE).unlink(missing_ok=True)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _steps(self) -> int:
        """Steps of the whole training, by its epochs where steps are not counted."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        batches = len(self.get_train_dataloader())
        return math.ceil(self.args.num_train_epochs * math.ceil(batches / self.args.gradient_accumulation_steps))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with quick_attention(self.args.device, self.args.bf16):
            return super().training_step(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # As in `Trainer`, without its pickle of the arguments, which holds tokens.
        model, folder = self.accelerator.unwrap_model(self.model), output_dir or self.args.output_dir
        model.save_pretrained(folder, state_dict=state_dict, is_main_process=self.args.should_save)
        if self.processing_class is not None and self.args.should_save:
            self.processing_class.save_pretrained(folder)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process has a file of its own
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in self.extra_state().items()},
                folder / EXTRA_STATE,
            )
            seal(folder)
            for older in checkpoints(folder.parent)[limit:] if limit else ():
                shutil.rmtree(older, ignore_errors=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # As in `Trainer`, without pickles.
        if self.args.should_save:
            scaler = self.accelerator.scaler
            state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
            save_state(state | {"scaler": scaler and scaler.state_dict()}, Path(output_dir) / OPTIMIZER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = load_state(Path(checkpoint) / OPTIMIZER)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _save_scaler(self, output_dir: str) -> None:
        """Kept with the optimizer."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Kept with the optimizer."""

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # the first process may not have come to it yet
        state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
        if device := self._generator_of_device():
            state["device"] = device.get_rng_state()
        state["own"] = self.state_of_process()
        save_state(state, Path(output_dir) / RANDOM.format(self.args.process_index))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        file = Path(checkpoint) / RANDOM.format(self.args.process_index)
        if not file.is_file():
            return
        state = load_state(file)
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["cpu"])
        device = self._generator_of_device()
        if device and "device" in state:
            device.set_rng_state(state["device"])

    def _generator_of_device(self) -> Any:
        return None if self.args.device.type == "cpu" else torch.get_device_module(self.args.device)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.load_extra_state(load_file(Path(resume_from_checkpoint) / EXTRA_STATE))
        own = Path(resume_from_checkpoint) / RANDOM.format(self.args.process_index)
        if own.is_file():  # else fewer processes wrote it
            self.load_state_of_process(load_state(own)["own"])


def own_arguments(args: TrainingArguments) -> TrainingArguments:
    """A copy to change, for one device in each process: several GPUs are for `accelerate launch`, not `DataParallel`.

    Raises:
        InputError: As `check_saving`.
    """
    check_saving(args)
    args = copy.copy(args)
    args._n_gpu = min(args.n_gpu, 1)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != args.mixed_precision:
        # accelerate keeps one precision for the process; the phases may differ in theirs.
        AcceleratorState._reset_state()
    return args
