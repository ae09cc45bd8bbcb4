"""Training a student tower on a teacher's soft targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from ..architectures import Architecture
from ..core.errors import InputError
from ..embedding.augment import AUGMENTATIONS
from ..embedding.views import jitter
from ..heads import Head
from ..tasks import Images
from ..trainers import PhaseTrainer, own_arguments, term_weights
from .arguments import SpecializeArguments
from .callbacks import RefreshTeacher, TellTerms, UpdateAverage
from .teacher import Teacher
from .terms import STUDENT_TERMS, BatchViews, StudentBatch, StudentTerm, WeightTerm
from .trainable import train_only


class IndexedImages(Dataset):
    """Images as bytes with their index, whole batches at a time.

    Args:
        images: Unlabelled images of the task.
    """

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, items: list[int]) -> dict[str, torch.Tensor]:
        return {"pixels": self.images.pixels(items), "index": torch.tensor(items)}


class StudentTrainer(PhaseTrainer):
    """The weights of a tower learn the teacher's targets on jittered images; the head is frozen.

    The loss is the weighted sum of registered terms. What is kept is the exponential moving average of the weights,
    which `finish()` gives.

    Args:
        model: Tower at its start.
        args: Weights of the terms and everything of `TrainingArguments`.
        architecture: Architecture of the tower.
        head: Head of the task.
        images: Unlabelled images of the task.
        teacher: Soft targets, in the images' order.
        restored: The images restored, which `args.restored_share` of those in a batch are replaced by; the default is
            none.
        refresh: Makes the teacher anew from the student's average so far, `args.refreshes` times; the default keeps
            the first.

    Raises:
        InputError: Every term of the student's outputs has weight 0, or nothing of the tower is trainable.
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
        restored: Images | None = None,
        refresh: Callable[[torch.nn.Module], Teacher] | None = None,
        **kwargs: Any,
    ) -> None:
        args = own_arguments(args)
        self.architecture = architecture
        self.head = head.to(args.device)
        self.preprocessor = images.preprocessor
        self.set_teacher(teacher, args.device)
        # With fewer images than one batch of all processes, every batch would be a last one.
        whole = len(images) >= args.train_batch_size * args.world_size
        args.dataloader_drop_last = args.dataloader_drop_last and whole
        self.refresh = refresh
        self.restored = restored if args.restored_share else None
        self.target_features = teacher.features.to(args.device)
        train_only(model, args.trainable)
        super().__init__(
            model=model, args=args, train_dataset=IndexedImages(images), data_collator=lambda batch: batch, **kwargs
        )
        self.weights_of_terms = term_weights(args, STUDENT_TERMS)
        self.terms = {name: STUDENT_TERMS.get(name)(self.model) for name in self.weights_of_terms}
        for term in self.terms.values():
            term.prepare(teacher, args)
            term.to(args.device)
        if not any(isinstance(term, StudentTerm) for term in self.terms.values()):
            raise InputError("every term of the student's outputs has weight 0, so there is nothing to learn")
        self.average = None
        if args.ema_decay:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(args.ema_decay))
            self.average.update_parameters(self.model)  # the first call copies: the average begins at the start
            self.add_callback(UpdateAverage(self))
        self.add_callback(TellTerms(self))
        if refresh is not None:
            self.add_callback(RefreshTeacher(self))

    def set_teacher(self, teacher: Teacher, device: torch.device) -> None:
        """Take another teacher's targets; the embedding to stay aligned with remains."""
        self.targets = teacher.probabilities.to(device)
        self.sample_weights = teacher.weights.to(device)
        self.class_frequencies = self.targets.mean(dim=0)

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
        index, views = inputs["index"], self.views(model, inputs["pixels"], inputs["index"])
        augmentation = AUGMENTATIONS.get(self.args.augmentation)
        outputs = model(pixel_values=views.augmented(augmentation) if augmentation else views.weak)
        features = self.architecture.features(outputs).float()
        batch = StudentBatch(
            features=features,
            logits=self.head(features),
            targets=self.targets[index],
            weights=self.sample_weights[index],
            target_features=self.target_features[index],
            class_frequencies=self.class_frequencies,
            index=index,
            progress=self.state.global_step / max(1, self.state.max_steps),
            views=views,
        )
        values = {name: term(batch) for name, term in self.terms.items() if isinstance(term, StudentTerm)}
        self.record({**{f"loss_{name}": value for name, value in values.items()}, "kept": batch.weights.mean()})
        loss = sum(self.weights_of_terms[name] * value for name, value in values.items())
        return (loss, outputs) if return_outputs else loss

    def views(self, model: torch.nn.Module, pixels: torch.Tensor, index: torch.Tensor) -> BatchViews:
        """A batch's images, whose rows are `index`, with random choices that depend on seed and step alone."""
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        if self.restored is not None:
            chosen = torch.rand(len(pixels), generator=generator) < self.args.restored_share
            pixels = pixels.clone()
            pixels[chosen.to(pixels.device)] = self.restored.pixels(index.cpu()[chosen]).to(pixels.device)
        weak = self.preprocessor.normalize(pixels)
        if self.args.jitter_steps:
            weak = jitter(weak, generator, self.args.jitter_steps)

        def forward(
            pixel_values: torch.Tensor, tower: torch.nn.Module | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            with self.accelerator.autocast():
                outputs = (model if tower is None else tower)(pixel_values=pixel_values)
            features = self.architecture.features(outputs).float()
            return features, self.head(features)

        return BatchViews(pixels, weak, self.preprocessor, generator, forward)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        for name, term in self.terms.items():
            if isinstance(term, WeightTerm):
                loss = loss + self._add_gradient(name, term)
        return loss

    @torch.no_grad()
    def _add_gradient(self, name: str, term: WeightTerm) -> torch.Tensor:
        """Weighted value of a term of the weights, whose gradient is added to the others'."""
        weight = self.weights_of_terms[name] / self.current_gradient_accumulation_steps
        scaler = self.accelerator.scaler
        value = term(self.model, weight * (1.0 if scaler is None else scaler.get_scale()))
        self.record({f"loss_{name}": value})
        return weight * value

    def extra_state(self) -> dict[str, torch.Tensor]:
        # The Trainer's own file has the names of the Hub's, which it does not translate back for every architecture.
        model = self.accelerator.unwrap_model(self.model)
        state = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
        state |= {"teacher/targets": self.targets, "teacher/weights": self.sample_weights}
        if self.average is not None:
            state |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        return state

    def state_of_process(self) -> dict[str, torch.Tensor]:
        # Each process's terms remember the images that it has seen.
        return {f"{name}/{key}": t for name, term in self.terms.items() for key, t in term.state_dict().items()}

    def load_state_of_process(self, state: dict[str, torch.Tensor]) -> None:
        for name, term in self.terms.items():
            own = {key.removeprefix(f"{name}/"): t for key, t in state.items() if key.startswith(f"{name}/")}
            term.load_state_dict(own)

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

        self.accelerator.unwrap_model(self.model).load_state_dict(part("model/"))
        self.set_teacher(
            Teacher(state["teacher/targets"], state["teacher/weights"], self.target_features), self.args.device
        )
        if self.average is not None:
            self.average.load_state_dict(part("average/"))

    @torch.no_grad()
    def finish(self) -> dict[str, torch.Tensor]:
        """State dict of the trained tower on the CPU: the weight average where there is one."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.averaged().state_dict().items()}
