"""A whole run by stage, and how costs grow: what the tables say is what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from hf_mdft import InputError
from hf_mdft.bench import Setting, growth_as_markdown, run_as_markdown
from hf_mdft.bench.growth import COSTS, SERIES, Point, exponent
from hf_mdft.bench.random_pool import random_data
from hf_mdft.bench.whole_run import (
    Clock,
    Phase,
    Training,
    WholeRun,
    one_after_the_other,
    run_by_stage,
    whole_run,
)
from hf_mdft.cli.app import app


SETTING = Setting(size="tiny", experts=2, tasks=2, images=32, images_per_task=4, classes=3, batch_size=8, max_steps=3)


def made_up(setting=SETTING, scale=1.0, peak=2**30):
    phase = Phase(2.0 * scale, 3.0, 1.0 * scale, [0.5, 0.25, 1.0])
    return WholeRun(setting, 20.0, 0.5, 1.5, phase, [phase], peak, 2**20, 0.1, passes_s=4.0)


def test_stages_sum_up_to_the_whole_and_are_all_in_the_table():
    run = made_up()
    stages, table = run.stages(), run_as_markdown(run)
    assert sum(stages.values()) == pytest.approx(run.seconds) and stages["rest"] == pytest.approx(6.0)
    for stage, seconds in stages.items():
        assert f"| {stage} | {seconds:.2f} s | {seconds / 20:.0%} |" in table
    assert "| **whole run / training passes alone** | **5.00** |" in table and "Peak memory 1.00 GiB; 1 MiB" in table
    assert run.meta.steps == 4 and run.meta.step_s == 0.5


def test_a_phase_is_cut_where_its_training_began_and_was_over():
    found = Training(began=12.0, ends=[13.0, 13.5, 14.5], over=15.0).within((10.0, 18.0))
    assert found == Phase(before_s=2.0, training_s=3.0, after_s=3.0, steps_s=[0.5, 1.0])


def test_the_clock_knows_when_a_stage_began(monkeypatch):
    times = iter([5.0, 9.0])
    monkeypatch.setattr("hf_mdft.bench.whole_run.time.perf_counter", lambda: next(times))
    clock = Clock()
    clock["prepare"] = 2.0
    clock["meta"] = 3.5
    assert clock == {"prepare": 2.0, "meta": 3.5} and clock.spans == {"prepare": (3.0, 5.0), "meta": (5.5, 9.0)}


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_exponent_is_the_power_of_a_cost(power):
    values = [8, 40, 200]
    assert exponent(values, [3.0 * value**power for value in values]) == pytest.approx(power)
    assert exponent(values, [0.0, 1.0, 2.0]) is None


def test_the_growth_table_tells_values_costs_and_exponents():
    found = []
    for series in SERIES:
        settings = series.settings(SETTING, large=False)
        assert [getattr(setting, series.quantity) for setting in settings] == list(series.values)
        points = [made_up(s, getattr(s, series.quantity), None) for s in settings]
        found.append((series, [Point(run, run) for run in points]))
    table = "\n".join(growth_as_markdown(found))
    assert "| **tasks** (40 experts, 200 images, 10 classes) | **8** | **20** | **40** |  |  |" in table
    assert table.count("| a specialist's gate, s |") == len(SERIES) and table.count("| peak memory, MiB | ? | ?") == 4
    assert "| a specialist's gate, s | 8 | 20 | 40 | 1.00 | 1 |" in table
    assert all(table.count(f"| {name} |") == len(SERIES) for name in COSTS)


def test_the_large_growth_goes_as_far_as_it_says():
    assert [series.settings(SETTING, large=True)[-1] for series in SERIES] == [
        replace(SETTING, max_steps=8, specialists=1, experts=200, tasks=2, images=500, classes=10),
        replace(SETTING, max_steps=8, specialists=1, experts=100, tasks=100, images=200, classes=10),
        replace(SETTING, max_steps=8, specialists=1, experts=2, tasks=1, images=100_000, classes=10),
        replace(SETTING, max_steps=8, specialists=1, experts=2, tasks=1, images=2000, classes=1000),
    ]


def test_noise_is_of_as_many_different_images(tmp_path):
    first, other = (random_data(number, 1500, tmp_path) for number in (0, 1))
    pixels = {image["image"].tobytes() for data in (first, other) for image in data}
    assert len(pixels) == 3000 and first[0]["image"].size == (32, 32)
    assert first._fingerprint != other._fingerprint == random_data(1, 1500, tmp_path)._fingerprint


@pytest.mark.parametrize(
    "options, message",
    [
        ("--run --growth", "--run and --growth are two measurements: give one of them"),
        ("--large", "--large is an option of --growth: give that too, or leave --large out"),
        ("--max-steps 3", "--max-steps is an option of --run: give that too, or leave --max-steps out"),
        ("--growth --experts 3", "--growth takes no --experts: leave it out"),
        ("--run --baseline", "--run takes no --baseline: leave it out"),
        ("--run --size tiny --images 1", "images must be at least 2, got 1"),
        ("--run --size tiny --max-steps 0", "max_steps must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_belong_are_refused(options, message):
    found = CliRunner().invoke(app, ["bench", *options.split()])
    assert isinstance(found.exception, InputError) and str(found.exception) == message


def test_stages_that_are_told_together_followed_one_another():
    assert one_after_the_other([1.0, 2.0, 4.0], 10.0) == [(3.0, 4.0), (4.0, 6.0), (6.0, 10.0)]


@pytest.mark.slow
def test_a_run_is_measured_and_goes_on_from_the_cache(tmp_path):
    run = whole_run(SETTING, tmp_path)
    stages = run.stages()
    assert min(stages.values()) > 0 and sum(stages.values()) == pytest.approx(run.seconds)
    assert run.meta.steps == 3 and len(run.specialists) == 2 and all(part.steps <= 3 for part in run.specialists)
    assert 0 < run.passes_s < run.seconds and run.disk_bytes > 0
    again = run_by_stage(replace(SETTING, specialists=0, max_steps=1), tmp_path, "again")
    assert not again.specialists and again.meta.steps == 1 and again.disk_bytes == run.disk_bytes
    assert again.meta.before_s < run.meta.before_s


@pytest.mark.slow
def test_the_command_shows_every_stage():
    options = "--run --size tiny --experts 2 --tasks 2 --images 32 --images-per-task 4 --max-steps 2"
    found = CliRunner().invoke(app, ["bench", *options.split()])
    assert found.exit_code == 0, found.output
    for stage in ("opening", "preparation", "phase 1: training, 2 steps", "phase 2: gate", "whole run / training"):
        assert stage in found.stdout
