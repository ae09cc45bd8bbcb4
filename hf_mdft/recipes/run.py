"""The whole way: pool, meta-model, specialists, evaluation, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed
from accelerate import PartialState

from ..adapter import MdftConfig
from ..artifacts.run_folder import refuse_foreign_output, refuse_inputs_within, write_run
from ..cards import inputs_text, refuse_reserved
from ..core.errors import InputError, suggest
from ..core.lock import locked
from ..evaluation import TRANSDUCTIVE, Report, TransductiveMethod
from ..evaluation.compare import Evaluation
from ..merger import MetaMerger
from ..meta import MdftTrainingArguments, check_division
from ..reporting import report_of
from ..specialize import SpecializeArguments
from .preflight import check_heads, check_options, check_space, estimate
from .presets import names, preset
from .schema import Recipe


@dataclass(frozen=True)
class Baseline:
    """A published method to compare with, on the same images and heads.

    Args:
        config: Adapter of its own meta-model; `None`: it shares the run's meta-model.
        meta: Arguments of its own phase 1, as `config`.
        specialize: Arguments of its own phase 2; `None`: it makes no specialists, and its meta-model is compared.
        method: A training-free method, in place of all that.
    """

    config: MdftConfig | None = None
    meta: MdftTrainingArguments | None = None
    specialize: SpecializeArguments | None = None
    method: TransductiveMethod | None = None

    @classmethod
    def named(cls, name: str, recipe: Recipe, folder: Path) -> Baseline:
        """A training-free method, or a preset's settings on a recipe's pool and tasks.

        Args:
            name: Name of the method or preset.
            recipe: The recipe, which keeps what a preset leaves open.
            folder: Folder of its checkpoints.

        Raises:
            InputError: There is no such method or preset (the nearest name is suggested), every comparison has it, or
                the recipe's options do not go with it.
        """
        refuse_reserved(name)
        if name in TRANSDUCTIVE:
            return cls(method=TRANSDUCTIVE.get(name))
        if name not in names():
            raise InputError(f"unknown baseline '{name}': {suggest(name, [*names(), *TRANSDUCTIVE.names()])}")
        return cls.from_preset(name, recipe, folder)

    @classmethod
    def from_preset(cls, name: str, recipe: Recipe, folder: Path) -> Baseline:
        """A preset's settings on a recipe's pool and tasks.

        Args:
            name: Name of the preset.
            recipe: The recipe, which keeps what the method leaves open.
            folder: Folder of its checkpoints.

        Raises:
            InputError: No such preset, one that every comparison has, or the recipe's options do not go with it.
        """
        refuse_reserved(name)
        method, changed = preset(name), recipe.with_preset(name)
        own = method.makes_meta_model
        return cls(
            MdftConfig(**changed.adapter) if own else None,
            changed.meta_arguments(folder) if own else None,
            changed.specialize_arguments(folder) if method.makes_specialists else None,
        )

    def made(self, merger: MetaMerger, tasks: list[str] | None = None) -> MetaMerger | TransductiveMethod:
        """The baseline, trained where it trains; its results are those of its specialists, if it has any.

        Args:
            merger: The run that it is compared with.
            tasks: Tasks that it makes specialists of; the default is all.
        """
        if self.method is not None:
            return self.method
        if self.config is None:
            other = merger.variant(fitted=True)
        else:
            other = merger.variant(self.config)
            other.fit(self.meta)
        if self.specialize is not None:
            other.specialize(self.specialize, tasks)
        return other


def run(
    merger: MetaMerger,
    output_dir: Path,
    meta: MdftTrainingArguments,
    specialize: SpecializeArguments,
    progress: Callable[[str], None],
    baselines: Mapping[str, Baseline] | None = None,
) -> Report | None:
    """Do everything and write the output folder: `results.json`, `report.html`, `meta/`, `specialists/TASK/`.

    Several processes (`accelerate launch`) share the training; the first one writes.

    Args:
        merger: Pool and tasks.
        output_dir: Folder of the results, made if need be.
        meta: Arguments of phase 1.
        specialize: Arguments of phase 2.
        progress: Called with one line at every stage.
        baselines: Published methods to compare with, by name; their seconds are those of all that they train.

    Returns:
        The report, in the first process; `None` in others.

    Raises:
        InputError: The output folder holds something else under a name that the run needs, or another run works there.
    """
    refuse_foreign_output(output_dir, list(merger.tasks))
    refuse_inputs_within(output_dir, merger.local_inputs())
    with locked(output_dir):
        return _run(merger, output_dir, meta, specialize, progress, baselines or {})


def _run(
    merger: MetaMerger,
    output_dir: Path,
    meta: MdftTrainingArguments,
    specialize: SpecializeArguments,
    progress: Callable[[str], None],
    baselines: Mapping[str, Baseline],
) -> Report | None:
    state = PartialState()
    progress(f"Pool: {merger.pool.base} and {len(merger.pool.experts)} experts; {len(merger.tasks)} tasks")
    check_options(meta, specialize)
    for name, baseline in baselines.items():
        if baseline.meta and baseline.meta.max_steps:
            check_division(baseline.meta, f"baseline '{name}'")
    with state.main_process_first():
        with merger.timing.of("prepare"):
            check_heads(merger, specialize)
            inputs = merger.inputs()
    progress(inputs_text(inputs))
    with merger.timing.of("prepare"):
        cost = estimate(merger, inputs, meta, specialize)
    check_space(cost, output_dir)
    progress(str(cost))
    learned = "learning the meta-model's coefficients on unlabelled images"
    progress(f"Phase 1: {learned if meta.max_steps else 'a static merge; nothing is trained'}")
    merger.fit(meta)
    if specialize.rounds:
        progress("Phase 2: specialising, task by task")
    for task, specialist in merger.specialize(specialize).items():
        restored = (
            f"; its expert taught from restored images ({', '.join(r)})" if (r := specialist.restorations) else ""
        )
        progress(f"  {task}: kept the {specialist.kept}; {specialist.decision.reason}{restored}")
        if len(specialist.trust.weights) > 1:
            trusted = ", ".join(f"{name} {share:.0%}" for name, share in specialist.trust.weights.items())
            progress(f"    learned from {trusted}; started at: {specialist.trust.start}")
    others, stage = {}, "Evaluation"
    specialists = {task: made.save_pretrained for task, made in merger.specialists.items()}
    try:
        for name, baseline in baselines.items():
            stage = f"Baseline {name}"
            progress(f"Baseline: {name}")
            others[name] = made = baseline.made(merger)
            if isinstance(made, MetaMerger):
                made.timing.drop(["prepare"])
                merger.timing[f"baseline {name}"] = sum(made.timing.values())
        stage = "Evaluation"
        if any(found.evaluation for found in inputs.values()):
            progress("Evaluating (beside the check above, the only step that reads labels)")
        report = replace(merger.evaluate(others, share=state.num_processes > 1), inputs=inputs)
    except Exception:
        nothing = replace(report_of(merger, Evaluation({}, {}, {})), inputs=inputs)
        if state.is_main_process:
            write_run(output_dir, nothing, merger.save_pretrained, specialists)
            progress(f"{stage} failed; the models are in {output_dir}, unmeasured")
        raise
    if state.is_main_process:
        write_run(output_dir, report, merger.save_pretrained, specialists)
    state.wait_for_everyone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Without both, gloo may abort the interpreter at exit when processes leave at different times.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return report if state.is_main_process else None
