"""The whole way: pool, meta-model, specialists, evaluation, results."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed
from accelerate import PartialState
from safetensors import SafetensorError

from ..adapter import MdftConfig
from ..artifacts.report_page import write_report
from ..core.errors import InputError
from ..evaluation import Report
from ..merger import MetaMerger
from ..meta import MdftTrainingArguments
from ..specialize import SpecializeArguments


def run(
    merger: MetaMerger,
    output_dir: Path,
    meta: MdftTrainingArguments,
    specialize: SpecializeArguments,
    say: Callable[[str], None],
    peers: Mapping[str, tuple[MdftConfig, MdftTrainingArguments]] | None = None,
) -> Report:
    """Do everything and write the output folder: `results.json`, `report.html`, `meta/`, `specialists/TASK/`.

    Several processes (`accelerate launch`) share the training; the first one writes.

    Args:
        merger: Pool and tasks.
        output_dir: Made if need be.
        meta: Arguments of phase 1.
        specialize: Arguments of phase 2.
        say: Tells the user what happens.
        peers: Further meta-models to compare with, by name: their adapters and arguments.
    """
    state = PartialState()
    say(f"Pool: {merger.pool.base} and {len(merger.pool.experts)} experts; {len(merger.tasks)} tasks")
    say("Phase 1: learning the meta-model's coefficients on unlabelled images")
    merger.fit(meta)
    others = {}
    for name, (config, args) in (peers or {}).items():
        say(f"Peer: {name}")
        others[name] = merger.variant(config)
        others[name].fit(args)
    if specialize.rounds:
        say("Phase 2: specialising, task by task")
    for task, specialist in merger.specialize(specialize).items():
        say(f"  {task}: kept the {specialist.kept}; {specialist.decision.reason}")
    report = None
    if state.is_main_process:
        say("Evaluating (the only step that reads labels)")
        report = merger.evaluate(others)
        write_outputs(merger, report, output_dir)
    state.wait_for_everyone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Without both, gloo may abort the interpreter at exit when processes leave at different times.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return report


def write_outputs(merger: MetaMerger, report: Report, output_dir: Path) -> None:
    """Write results, report, adapter and specialists; each folder appears whole or not at all.

    Raises:
        InputError: No space or no permission.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        _replace(output_dir / "meta", merger.save_pretrained)
        for task, specialist in merger.specialists.items():
            _replace(output_dir / "specialists" / task, specialist.save_pretrained)
        write_report(report, output_dir / "report.html")
        report.save(output_dir / "results.json")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{output_dir}: cannot write the results ({reason})") from error


def _replace(target: Path, write: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        work = Path(temporary) / target.name
        write(work)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
