"""The benchmark measures what its table names, and the counts behind the costs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from hf_mdft import InputError
from hf_mdft.bench import Setting, measure
from hf_mdft.bench.interleaved import TURN, WARM_UP, Interleaved, training_steps
from hf_mdft.bench.memory import PeakMemory, anonymous_bytes
from hf_mdft.bench.random_pool import SIZES, random_pool
from hf_mdft.cli.app import app
from hf_mdft.cli.bench import bench
from hf_mdft.core.memory import peak_memory_bytes
from hf_mdft.tasks import Images


TINY = {"size": "tiny", "experts": 3, "tasks": 2, "images_per_task": 4, "batch_size": 8, "turns": 1}


@pytest.mark.slow
def test_a_table_for_both_phases():
    found = CliRunner().invoke(
        app, ["bench", "--size", "tiny", "--experts", "3", "--tasks", "2", "--turns", "1", "--precision", "fp32"]
    )
    assert found.exit_code == 0, found.output
    lines = [line for line in found.stdout.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in lines[0].split("|")[2:5]] == ["lower bound", "step", "ratio"]
    assert "meta-model step, tiny, fp32, K = 3, 2 x 16 images" in lines[2] and "specialist step" in lines[3]
    for line in lines[2:]:
        lower_bound, step, ratio = (float(cell.removesuffix("s ").removesuffix(" m")) for cell in line.split("|")[2:5])
        assert lower_bound >= 0 and step > 0 and ratio > 0


WAITING = """
import os, pathlib, time

def nothing():
    pass

def forever(file):
    pathlib.Path(file).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)

if __name__ == "__main__":
    from hf_mdft.bench.apart import apart
    apart(nothing, "forever", forever, {file!r})
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_a_measurement_ends_with_the_process_that_asked_for_it(tmp_path):
    script, file = tmp_path / "waiting.py", tmp_path / "pid"
    script.write_text(WAITING.format(file=str(file)), encoding="utf-8")
    asking = subprocess.Popen([sys.executable, script])
    try:
        wait_for(lambda: file.is_file() and file.read_text(encoding="utf-8"))
    finally:
        asking.kill()
        asking.wait()
    measuring = Path("/proc", file.read_text(encoding="utf-8"), "cmdline")

    def is_gone() -> bool:
        try:
            return not measuring.read_bytes()
        except OSError:
            return True

    wait_for(is_gone)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


@pytest.mark.parametrize("images_per_micro_batch", [pytest.param(None, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("experts", [2, 6])
def test_a_step_costs_one_combine_whatever_the_number_of_experts(experts, images_per_micro_batch, monkeypatch):
    """Per step: one combine of each tensor, one look at each image of the batch; no expert is run again."""
    from hf_mdft.adapter import layer

    counts = {"combine": 0, "pixels": 0}
    combine, pixels = layer.combine, Images.pixels

    def count_combine(*args):
        counts["combine"] += 1
        return combine(*args)

    def count_pixels(self, indices):
        counts["pixels"] += len(indices)
        return pixels(self, indices)

    setting = Setting(**{**TINY, "experts": experts, "images_per_micro_batch": images_per_micro_batch})
    measure(setting, "meta")  # expert outputs are in the cache now
    monkeypatch.setattr("hf_mdft.tasks.images.warn_of_sameness", lambda *_: None)
    monkeypatch.setattr(layer, "combine", count_combine)
    monkeypatch.setattr(Images, "pixels", count_pixels)
    monkeypatch.setattr("hf_mdft.embedding.expert_outputs.embed_views", lambda *a, **k: pytest.fail("ran an expert"))
    measure(setting, "meta")
    steps, tensors = WARM_UP + TURN, len(list(random_pool("tiny", experts).tower().parameters()))
    assert counts == {"combine": steps * tensors, "pixels": steps * 2 * 4}


def test_steps_and_lower_bound_are_timed_in_turns(monkeypatch):
    """As many of each; neither the warm-up nor the first of a turn counts, nor the making of the lower bound."""
    clock = {"now": 0.0}
    monkeypatch.setattr("hf_mdft.bench.interleaved.now", lambda: clock["now"])

    def wait(seconds):
        clock["now"] += seconds

    made = []

    def make_lower_bound():
        wait(1000)
        made.append(clock["now"])
        return lambda: wait(1)

    memory = PeakMemory()
    monkeypatch.setattr(memory, "stop", lambda: made.append("memory"))
    timer = Interleaved(make_lower_bound, memory)
    for number in range(1, training_steps(2) + 1):
        wait(100 if number <= WARM_UP or (number - WARM_UP) % TURN == 1 else 2)
        timer.on_step_end(None, SimpleNamespace(global_step=number), None)
    assert timer.steps == [2] * 2 * (TURN - 1) and timer.lower_bounds == [1] * 2 * (TURN - 1)
    assert made[0] == "memory" and len(made) == 2


def test_the_command_offers_all_sizes():
    assert get_args(get_type_hints(bench)["size"]) == tuple(SIZES)


def test_peak_memory_sees_what_was_freed():
    if anonymous_bytes() is None or torch.cuda.is_available():
        pytest.skip("the system keeps no such figure, or there is other memory to watch")
    memory, before = PeakMemory().start(), anonymous_bytes()
    block = torch.ones(100 << 20, dtype=torch.uint8)
    while (memory.peak or 0) < before + len(block) // 2:
        pass
    del block
    assert memory.stop() == memory.stop() >= before + (50 << 20)


def test_peak_memory_of_the_process():
    pytest.importorskip("resource")
    before = peak_memory_bytes()
    block = torch.ones(200 << 20, dtype=torch.uint8)
    assert 50 << 20 < before <= peak_memory_bytes() and peak_memory_bytes() > len(block)


def test_peak_memory_where_the_system_keeps_no_figure():
    """As on Windows, which has no module `resource`."""
    code = "import sys; sys.modules['resource'] = None\nfrom hf_mdft.core.memory import peak_memory_bytes as peak"
    found = subprocess.run([sys.executable, "-c", f"{code}\nprint(peak())"], capture_output=True, text=True)
    assert found.stdout == "None\n", found.stderr


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="tasks must lie between 1 and the number of experts, 3; got 4"):
        Setting(**{**TINY, "tasks": 4})
    with pytest.raises(InputError, match="turns must be at least 1"):
        Setting(**{**TINY, "turns": 0})


def test_the_baseline_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "fusion_bench", None)
    with pytest.raises(InputError, match="--baseline needs FusionBench: pip install fusion-bench"):
        measure(Setting(**TINY), "baseline")


def test_the_baseline_is_run_on_the_same_inputs(monkeypatch):
    """With a stand-in of the same interface: every task's pass, then one step of the coefficients."""
    calls = []

    class LayerWiseMergedModel(nn.Module):
        def __init__(self, weights, base, experts, strict):
            super().__init__()
            self.base, self.merge_weight = base, nn.Parameter(weights)
            assert weights.shape == (3, len(list(base.parameters()))) and len(experts) == 3

        def merge_weights(self):
            calls.append("merge")

        def forward(self, pixels):
            calls.append(len(pixels))
            return self.base(pixels) * self.merge_weight.mean()

    module = type(sys)("layer_wise_fusion")
    module.LayerWiseMergedModel = LayerWiseMergedModel
    module.get_layer_wise_weights = lambda models, layers, value: torch.full((models, layers), value)
    for name in ("fusion_bench", "fusion_bench.models", "fusion_bench.models.wrappers"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, "fusion_bench.models.wrappers.layer_wise_fusion", module)
    cost = measure(Setting(**TINY), "baseline")
    assert "FusionBench" in cost.name and calls[:4] == ["merge", 4, 4, "merge"]
