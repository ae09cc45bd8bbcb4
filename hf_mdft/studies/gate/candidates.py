"""Candidates, made by phase 2 as usual, and everything that is known of each. Reads labels."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import set_seed

from ...core.hashing import fingerprint
from ...embedding import expert_features
from ...evaluation import predict
from ...experts import Source
from ...objectives.scores import SCORES
from ...objectives.scores import VERSION as SCORES_VERSION
from ...recipes.schema import Recipe
from ...specialize import SpecializeArguments, specialize_task
from ...specialize.evidence import gate_evidence
from ...specialize.gate import SHARES, Interpolations, Rule
from ...specialize.gate.decide import weigh
from ...specialize.given import as_asked, images_used, models_of
from ...specialize.learning_rate import gentle_learning_rate
from ...specialize.one_task import between, rule_for
from ...specialize.teacher import observe_sources
from ...tasks import Images
from ..outcome import inputs_key, measured_tasks, needs_specialists, remembered
from .settings import SETTINGS, Given, Setting


KEY_VERSION = "gate 7"
"""Changes with the code of this study, so that nothing that older code found is used."""

OUTPUTS = "outputs.safetensors"


class Workshop:
    """Makes the candidates of one recipe.

    Args:
        name: Name of the recipe in tables.
        recipe: The recipe.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        max_steps: Most steps of each phase; `None` is what the recipe says.
        progress: Called with one line for every candidate.

    Raises:
        InputError: No task has evaluation images, or the recipe makes no specialists.
    """

    def __init__(
        self, name: str, recipe: Recipe, output_dir: Path, max_steps: int | None, progress: Callable[[str], None]
    ) -> None:
        needs_specialists(recipe)
        self.name, self.recipe, self.output_dir = name, recipe, output_dir
        self.max_steps, self.progress = max_steps, progress
        self.merger = recipe.merger()
        measured = measured_tasks(self.merger, str(recipe.path))
        self.tasks = [task for task in measured if self.merger.pool.experts_of(task)]

    @functools.cached_property
    def meta(self) -> nn.Module:
        """Tower of the meta-model, which is trained when the first candidate is made."""
        args = self.recipe.meta_arguments(self.output_dir)
        args.max_steps = self._at_most(args.max_steps)
        self.progress(f"{self.name}: meta-model")
        self.merger.fit(args)
        return self.merger.meta_tower()

    @functools.cached_property
    def meta_key(self) -> str:
        return fingerprint(self.meta.state_dict())

    def _at_most(self, steps: int) -> int:
        if self.max_steps is None or steps == 0:
            return steps
        return min(self.max_steps, steps) if steps > 0 else self.max_steps

    def candidates(self, task: str, settings: list[str], counts: list[int | None]) -> list[dict[str, Any]]:
        """What is known of a task's candidates, each as a JSON-able mapping.

        Args:
            task: Name of the task.
            settings: Names of the settings.
            counts: Numbers of images; `None` is all. Where several come to the same images, one of them is made.
        """
        images, head, seed = self.merger.unlabelled(task), self.merger.expert_head(task), self.recipe.seed
        predictions = head(next(expert_features(self.merger.pool, self.merger.expert(task), images))).argmax(dim=-1)
        made: dict[tuple[str, str], dict[str, Any]] = {}
        for name in settings:
            setting = SETTINGS[name]
            for count in counts if setting.count is None else [setting.count]:
                used = setting.images(Given(images, predictions, count, seed))
                if len(used) > 1 and (name, used.key) not in made:
                    made[name, used.key] = self._candidate(task, name, setting, used)
        return list(made.values())

    def _candidate(self, task: str, name: str, setting: Setting, images: Images) -> dict[str, Any]:
        folder = self.output_dir / task / f"{name}-{len(images)}"
        args = self._arguments(folder / "work", task, setting, len(images))
        recipe, merger = self.recipe, self.merger
        key = [KEY_VERSION, task, merger.pool.reference(), inputs_key(merger, [task]), images.key]
        key += [recipe.adapter, recipe.meta, recipe.specialize, recipe.seed, self.max_steps]
        key += [setting.options, setting.rate]

        def make() -> dict[str, Any]:
            return self._make(task, images, args, folder)

        def score() -> dict[str, Any]:
            return scores_of(folder / OUTPUTS, found, rule_for(args))

        found = remembered(folder / "outcome.json", key, make)
        versions = [SCORES_VERSION, SCORES.names(), repr(rule_for(args))]
        scores = remembered(folder / "scores.json", [key, *versions], score)
        expert, candidate = (100 * found["correct"][s].count("1") / len(found["correct"][s]) for s in ("0", "1"))
        self.progress(
            f"{self.name}, {task}, {name}, {len(images)} images: expert {expert:.1f}, candidate "
            f"{candidate - expert:+.1f}; {found['decision']['chosen']}: {found['decision']['reason']}"
        )
        return {"recipe": self.name, "task": task, "setting": name, "images": len(images), **found, **scores}

    def _arguments(self, folder: Path, task: str, setting: Setting, count: int) -> SpecializeArguments:
        own = self.recipe.specialize_arguments(folder)
        options = {"images": None, "rounds": 1, "gate": False, **dict(setting.options)}
        if setting.rate != 1:
            rate = own.learning_rate or gentle_learning_rate(self.merger.pool, task)
            options["learning_rate"] = setting.rate * rate
        steps = options.get("max_steps", own.max_steps)
        if self.max_steps is not None and steps < 0:  # as many epochs as the limit allows
            batch = own.per_device_train_batch_size * own.gradient_accumulation_steps
            steps = math.ceil(options.get("num_train_epochs", own.num_train_epochs) * math.ceil(count / batch))
        options["max_steps"] = self._at_most(steps)
        return self.recipe.specialize_arguments(folder, **options)

    def _make(self, task: str, images: Images, args: SpecializeArguments, folder: Path) -> dict[str, Any]:
        merger, pool, head = self.merger, self.merger.pool, self.merger.head(task)
        architecture, data = pool.architecture, merger.labelled(task)
        meta, meta_head = self.meta, merger.meta_head(task)
        set_seed(args.seed)
        images = images_used(images, args)
        experts = as_asked(merger.experts(task, args.device), args, images)
        made = specialize_task(task, pool, meta, head, images, args, self.meta_key, experts, meta_head=meta_head)
        models = models_of(experts, meta, head, images, args, meta_head)
        sources = observe_sources(models, args.teacher_views, others=args.ensemble_weight > 0)
        seen = gate_evidence(models, sources, models.experts.weights(models.restored, as_they_are=images))
        compared, others = seen.expert, seen.others
        weighed = weigh(others, seen.reference)
        outputs = {"0/logits": compared.logits, "0/held_out": compared.held_out}
        outputs["0/frequencies"] = compared.class_frequencies
        outputs |= {f"other/{name}": classes for name, (_, classes) in zip(others, weighed, strict=True)}
        consistency, correct = {"0": compared.consistency}, {}
        expert, candidate = pool.tower(made.expert).state_dict(), made.tower(gated=False).state_dict()
        for share in (0.0, *SHARES):
            tower = between(pool, images, expert, candidate, share).to(args.device)
            label, head = f"{share:g}", made.candidate_head if share else made.expert_head
            correct[label] = _packed(predict(tower, architecture, head, data.images) == data.labels)
            if share:
                found = seen.of(tower, head, f"{share:.0%} of the way")
                outputs[f"{label}/logits"], consistency[label] = found.logits, found.consistency
        save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, folder / OUTPUTS)
        shutil.rmtree(folder / "work")  # weights and checkpoints: everything that is asked of them is known
        return {
            "decision": dataclasses.asdict(made.decision),
            "correct": correct,
            "consistency": consistency,
            "weights": {name: weight for name, (weight, _) in zip(others, weighed, strict=True)},
        }


def _packed(correct: torch.Tensor) -> str:
    return "".join("1" if hit else "0" for hit in correct.tolist())


def scores_of(outputs: Path, found: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """Scores of a stored candidate, and what the rule that is used says at every share.

    Args:
        outputs: File of the models' outputs.
        found: What else is known of the candidate.
        rule: The gate's rule for it.
    """
    tensors = load_file(outputs)
    others = tuple((weight, tensors[f"other/{name}"]) for name, weight in found["weights"].items())

    def source(share: float) -> Source:
        logits = tensors[f"{share:g}/logits"]
        held_out = tensors.get(f"{share:g}/held_out", torch.zeros(0, len(logits)))
        consistency = found["consistency"][f"{share:g}"]
        frequencies = tensors.get(f"{share:g}/frequencies")
        features = torch.zeros(len(logits), 0)
        return Source(logits, logits.log_softmax(-1), features, held_out, consistency, frequencies=frequencies)

    expert = source(0.0)
    whole = Interpolations(source(1.0), expert, others, source)
    accepted = {f"{share:g}": rule(Interpolations(source(share), expert, others)).share > 0 for share in SHARES}
    by_share = {name: {f"{s:g}": v for s, v in whole.scores(name).items()} for name in SCORES.names()}
    return {
        "score": {name: whole.score(name) for name in SCORES.names()},
        "scores": by_share,
        "accepted": accepted,
        "kept_share": rule(whole).share,
    }
