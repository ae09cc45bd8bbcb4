"""A `Trainer` whose checkpoints hold more than the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput


EXTRA_STATE = "extra_state.safetensors"


class ExtraStateTrainer(Trainer):
    """Saves and restores the tensors of `extra_state()` with every checkpoint, so that resuming is exact."""

    loss_is_scaled_for_ga = False

    def extra_state(self) -> dict[str, torch.Tensor]:
        """What the checkpoint must hold beside the model."""
        raise NotImplementedError

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
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
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.is_dir():
            state = {key: value.detach().cpu().contiguous() for key, value in self.extra_state().items()}
            save_file(state, folder / EXTRA_STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / EXTRA_STATE
        if path.is_file():
            self.load_extra_state(load_file(path))
