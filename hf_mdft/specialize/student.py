"""Training a student tower on a teacher's soft targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainerCallback

from ..architectures import Architecture
from ..embedding.views import jitter
from ..heads import Head
from ..objectives import embedding_distance, entropy
from ..tasks import Images
from ..trainers import PhaseTrainer, own_arguments
from .arguments import SpecializeArguments
from .teacher import Teacher


class IndexedImages(Dataset):
    """Images as bytes with their index, whole batches at a time."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, items: list[int]) -> dict[str, torch.Tensor]:
        return {"pixels": self.images.pixels(items), "index": torch.tensor(items)}


class StudentTrainer(PhaseTrainer):
    """All weights of a tower learn the teacher's targets on jittered images; the head is frozen.

    Loss: `KL(teacher || student)` on kept images + alignment of embeddings + light information maximisation + pull
    towards the start. The exponential moving average of the weights is what counts: `finish()` puts it in place.

    Args:
        model: The tower, at its start.
        args: Weights of the terms and everything of `TrainingArguments`.
        architecture: Of the tower.
        head: Of the task.
        images: Unlabelled.
        teacher: Its targets, in the images' order.
        refresh: Makes the teacher of the second half from the student's average so far; the default keeps the first.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: SpecializeArguments,
        *,
        architecture: Architecture,
        head: Head,
        images: Images,
        teacher: Teacher,
        refresh: Callable[[torch.nn.Module], Teacher] | None = None,
        **kwargs: Any,
    ) -> None:
        args = own_arguments(args)
        self.architecture = architecture
        self.head = head.to(args.device)
        self.preprocessor = images.preprocessor
        self.follow(teacher, args.device)
        self.refresh = refresh
        self.target_features = teacher.features.to(args.device)
        super().__init__(
            model=model, args=args, train_dataset=IndexedImages(images), data_collator=lambda batch: batch, **kwargs
        )
        self.start = [p.detach().clone() for p in self.model.parameters()]
        self.average = None
        if args.ema_decay:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(args.ema_decay))
            self.add_callback(_UpdateAverage(self))
        if refresh is not None:
            self.add_callback(_Refresh(self))

    def follow(self, teacher: Teacher, device: torch.device) -> None:
        """Take another teacher's targets; the embedding to stay aligned with remains."""
        self.targets = teacher.probabilities.to(device)
        self.sample_weights = teacher.weights.to(device)

    def averaged(self) -> torch.nn.Module:
        """The student as it would be kept now."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        index = inputs["index"]
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        pixel_values = self.preprocessor.normalize(inputs["pixels"])
        if self.args.jitter_steps:
            pixel_values = jitter(pixel_values, generator, self.args.jitter_steps)
        outputs = model(pixel_values=pixel_values)
        features = self.architecture.features(outputs).float()
        logits = self.head(features)
        weights = self.sample_weights[index]
        divergence = F.kl_div(logits.log_softmax(dim=-1), self.targets[index], reduction="none").sum(dim=-1)
        mean = logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
        # Where the teacher sees all classes equally often this is information maximisation (up to a constant).
        skew = (mean * (mean.log() - self.targets.mean(dim=0).clamp(min=1e-8).log())).sum()
        terms = {
            "distillation": (1.0, (weights * divergence).sum() / weights.sum().clamp(min=1e-8)),
            "alignment": (
                self.args.alignment_weight,
                embedding_distance(features, self.target_features[index]).mean(),
            ),
            "infomax": (self.args.infomax_weight, entropy(logits).mean() + skew),
        }
        self.record({**{f"loss_{name}": value for name, (_, value) in terms.items()}, "kept": weights.mean()})
        loss = sum(weight * value for weight, value in terms.values() if weight)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        return loss + self._l2_sp() if self.args.l2_sp_weight else loss

    @torch.no_grad()
    def _l2_sp(self) -> torch.Tensor:
        """Value of the pull towards the start, whose gradient is added to the others'.

        It is known in closed form, and all weights are passed over half as often as autograd would.
        """
        weight = self.args.l2_sp_weight / self.current_gradient_accumulation_steps
        scaler = self.accelerator.scaler
        alpha = 2 * weight * (1.0 if scaler is None else scaler.get_scale())
        total = torch.zeros((), device=self.args.device)
        for p, p0 in zip(self.model.parameters(), self.start, strict=True):
            moved = p - p0
            total += torch.linalg.vector_norm(moved).square()
            if p.grad is not None:  # else nothing moves it
                p.grad.add_(moved, alpha=alpha)
        self.record({"loss_l2_sp": total})
        return weight * total

    def extra_state(self) -> dict[str, torch.Tensor]:
        # The Trainer's own file has the names of the Hub's, which it does not translate back for every architecture.
        model = self.accelerator.unwrap_model(self.model)
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        state |= {f"start.{i}": tensor for i, tensor in enumerate(self.start)}
        state |= {"teacher.targets": self.targets, "teacher.weights": self.sample_weights}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return state

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        model = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
        self.accelerator.unwrap_model(self.model).load_state_dict(model)
        self.start = [state[f"start.{i}"].to(self.args.device) for i in range(len(self.start))]
        self.targets = state["teacher.targets"].to(self.args.device)
        self.sample_weights = state["teacher.weights"].to(self.args.device)
        if self.average is not None:
            average = {name.removeprefix("average."): v for name, v in state.items() if name.startswith("average.")}
            self.average.load_state_dict(average)

    @torch.no_grad()
    def finish(self) -> dict[str, torch.Tensor]:
        """State dict of the trained tower on the CPU: the weight average where there is one."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.averaged().state_dict().items()}


class _Refresh(TrainerCallback):
    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and state.global_step == state.max_steps // 2:
            self.trainer.follow(self.trainer.refresh(self.trainer.averaged()), args.device)


class _UpdateAverage(TrainerCallback):
    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.average.update_parameters(self.trainer.accelerator.unwrap_model(self.trainer.model))
