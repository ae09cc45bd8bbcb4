"""One run in one folder, and nothing beside its results."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys

import pytest
from conftest import call, edited, fit_arguments, specialize_arguments, write_recipe

from hf_mdft import InputError, MetaMerger
from hf_mdft.core.lock import locked
from hf_mdft.core.scratch import PREFIX, scratch
from hf_mdft.core.sealed import sealed
from hf_mdft.core.timing import Timing
from hf_mdft.trainers import resumable


WAIT = """
import sys, time
from pathlib import Path
from hf_mdft.core.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in `out`."""
    process = subprocess.Popen([sys.executable, "-c", WAIT, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_and_a_killed_one_holds_nothing(holder, clip_paths, tmp_path, monkeypatch, capsys):
    recipe, out = write_recipe(tmp_path, clip_paths), tmp_path / "out"
    code, _, err = call(["run", recipe, "--output-dir", out], monkeypatch, capsys)
    assert code == 2 and f"{out}: another run works here (process {holder.pid} on " in err
    assert sorted(path.name for path in out.iterdir()) == [".mdft-owner.json", ".mdft.lock"]
    holder.kill()
    holder.wait()
    with locked(out):
        pass
    assert not (out / ".mdft-owner.json").exists()


def test_both_phases_keep_others_out(clip_done, tasks, tmp_path):
    with locked(tmp_path / "meta"), pytest.raises(InputError, match="another run works here"):
        MetaMerger(clip_done.pool, tasks).fit(fit_arguments(tmp_path))
    with locked(tmp_path / "specialists"), pytest.raises(InputError, match="another run works here"):
        clip_done.specialize(specialize_arguments(tmp_path))


def test_left_overs_of_killed_processes_go(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with scratch(tmp_path) as mine:
        name = mine.name
        dead = tmp_path / name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
        elsewhere = tmp_path / f"{PREFIX}another_host-{gone.pid}-00000000"
        for folder in (dead, elsewhere):
            folder.mkdir()
        with scratch(tmp_path) as second:
            assert second != mine
        assert mine.exists() and not dead.exists() and elsewhere.exists()
    assert not mine.exists()


@pytest.mark.slow
def test_results_of_an_earlier_recipe_go(clip_paths, tmp_path, monkeypatch, capsys):
    recipe, out = write_recipe(tmp_path, clip_paths), tmp_path / "out"
    edited(recipe, lambda c: (c["tasks"].pop("stripes"), c["pool"]["experts"].pop("stripes")))
    assert call(["run", recipe, "--output-dir", out], monkeypatch, capsys)[0] == 0
    (out / "specialists" / "mine").mkdir()
    (out / "specialists" / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    edited(recipe, lambda c: (c["tasks"].pop("colour"), c["pool"]["experts"].pop("colour")))
    assert call(["run", recipe, "--output-dir", out], monkeypatch, capsys)[0] == 0
    left = {path.name for path in (out / "specialists").iterdir()}
    assert left == {"shade", "mine"}
    edited(recipe, lambda c: c["specialize"].update(rounds=0))
    assert call(["run", recipe, "--output-dir", out], monkeypatch, capsys)[0] == 0
    assert {path.name for path in (out / "specialists").iterdir()} == {"mine"}
    assert not [path for path in out.rglob(f"{PREFIX}*") if path.is_dir()]


def test_no_output_folder_is_refused(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    monkeypatch.chdir(tmp_path)
    for command in ("run", "check"):
        code, _, err = call([command, recipe, "--output-dir", ""], monkeypatch, capsys)
        assert code == 2 and "--output-dir" in err and "empty" in err
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_files_follow_the_umask(clip_paths, tmp_path, mask):
    """Others may read, and in a shared cache write, what the user lets them."""
    recipe = write_recipe(tmp_path, clip_paths)
    environment = {**os.environ, "HF_MDFT_CACHE": str(tmp_path / "cache")}
    command = f"umask {mask:o}; exec {sys.executable} -m hf_mdft run {recipe} --output-dir {tmp_path / 'out'}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for place in ("cache", "out"):
        for path in (tmp_path / place).rglob("*"):
            wanted = (0o777 if path.is_dir() else 0o666) & ~mask
            assert stat.S_IMODE(path.stat().st_mode) == wanted or path.name == ".mdft.lock", path


def test_seconds_of_work_are_those_of_the_starts_that_did_it(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("hf_mdft.core.timing.time.perf_counter", lambda: clock[0])

    def start(key, seconds, stopped=False, kept=True):
        timing = Timing()
        with contextlib.suppress(KeyboardInterrupt), timing.of_work("meta", tmp_path):
            resumable(tmp_path, [key], ["result"])
            clock[0] += seconds
            if stopped:
                raise KeyboardInterrupt
            if kept:
                sealed(tmp_path / "result", lambda folder: (folder / "x").touch(), "")
        return timing["meta"]

    assert start("a", 5, stopped=True) == 5
    assert start("a", 30, stopped=True) == 35, "it went on"
    assert start("a", 100) == 135
    assert start("a", 2) == 135, "it was only read"
    assert start("b", 7, kept=False) == 7, "another run"
    assert start("b", 9) == 9, "nothing was kept of it, so it was done anew"
    resumable(tmp_path, ["a"], ["result"])  # killed
    assert start("b", 4) == 4, "another run took its folder in between"
    for damaged in ("", "[]", '{"seconds": 1}', '{"seconds": "x", "done": true}'):
        (tmp_path / "seconds.json").write_text(damaged, encoding="utf-8")
        assert start("b", 3) == 3 and start("b", 1) == 3


@pytest.mark.slow
def test_a_run_that_is_given_again_has_the_seconds_of_its_training(clip_pool, tasks, tmp_path):
    stages, found = ["meta", *(f"specialist {task}" for task in tasks)], []
    for _ in range(2):
        merger = MetaMerger(clip_pool, tasks)
        merger.fit(fit_arguments(tmp_path))
        merger.specialize(specialize_arguments(tmp_path))
        found.append({stage: merger.evaluate().timing_s[stage] for stage in stages})
    assert found[0] == found[1] and all(seconds > 0 for seconds in found[0].values())
    merger.fit(fit_arguments(tmp_path, learning_rate=0.02))
    assert merger.timing["meta"] != found[0]["meta"], "another training"
