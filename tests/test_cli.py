"""The command line: one clear line for bad input, results as documented, going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from conftest import TASKS, call, edited, write_recipe
from safetensors import SafetensorError
from safetensors.torch import load_file

import hf_mdft
from hf_mdft.cli.app import app


@pytest.mark.parametrize("architecture", ["clip", pytest.param("vit", marks=pytest.mark.slow)])
def test_run_writes_what_is_documented(architecture, request, tmp_path, monkeypatch, capsys):
    paths = request.getfixturevalue(f"{architecture}_paths")
    recipe = write_recipe(tmp_path, paths, restore=True)
    code, out, err = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0 and "unlabelled  evaluation" in err
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["schema"] == 2 and results["tasks"] == list(TASKS) and results["seed"] == 0
    assert {"base", "expert", "weight_average", "task_arithmetic", "meta", "specialist"} <= set(results["accuracy"])
    assert set(results["gate"]) == set(TASKS) and set(results["versions"]) >= {"torch", "peft", "python"}
    assert "specialists" in out and f"{100 * results['average']['expert']:.1f}" in out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Specialists over experts" in page and "Specialists over experts" in out
    assert page.count("<svg") >= 3 and "<script" not in page and 'src="' not in page
    assert (tmp_path / "out" / "meta" / "adapter_model.safetensors").stat().st_size < 20_000
    for task in TASKS:
        folder = tmp_path / "out" / "specialists" / task
        assert (folder / "model.safetensors").is_file() and f"**{task}**" in (folder / "README.md").read_text(
            encoding="utf-8"
        )

    code, out, _ = call(["evaluate", recipe, "--meta", tmp_path / "out" / "meta"], monkeypatch, capsys)
    assert code == 0 and "meta-model" in out
    other = edited(recipe, lambda c: c["pool"]["experts"].update(shade=c["pool"]["experts"]["colour"]))
    code, _, err = call(["evaluate", other, "--meta", tmp_path / "out" / "meta"], monkeypatch, capsys)
    assert code == 2 and "another pool" in err and "(not the same: the expert of 'shade')" in err
    recipe = write_recipe(tmp_path, paths)
    code, out, _ = call(["pool", "inspect", recipe], monkeypatch, capsys)
    assert code == 0 and "cosines" in out


def test_killed_run_goes_on(clip_paths, tmp_path, monkeypatch, capsys):
    """SIGKILL in the middle, then the same command: the same coefficients as without the kill.

    The default encoding of the process that is killed is ASCII, which must change nothing: class names have other
    letters.
    """
    meta = {"max_steps": 15, "images_per_task": 4, "head_steps": 3, "use_cpu": True, "save_steps": 5}
    meta["bf16"] = False  # what another process may choose where the processor has it
    options = {"meta": meta, "specialize": {"rounds": 0}}
    names = {"class_names": ["düster", "mäßig", "グレア"], "label_names": "in_order"}
    recipe = edited(write_recipe(tmp_path, clip_paths, **options), lambda c: c["tasks"]["shade"].update(names))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)

    def start():
        command = [sys.executable, "-m", "hf_mdft", "run", str(recipe), "--output-dir", str(tmp_path / "killed")]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", env=environment
        )

    victim, checkpoints = start(), tmp_path / "killed" / "checkpoints" / "meta"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(checkpoints.glob("checkpoint-*/extra_state.safetensors")):
        assert victim.poll() is None, victim.communicate()[0]
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    process = start()
    assert process.wait(timeout=240) == 0, process.communicate()[0]
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "whole"], monkeypatch, capsys)
    assert code == 0, err
    a, b = (load_file(tmp_path / name / "meta" / "adapter_model.safetensors") for name in ("killed", "whole"))
    assert all((a[key] == b[key]).all() for key in a)
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8")) for name in ("killed", "whole")
    )
    assert first["accuracy"] == second["accuracy"]


def test_no_permission_is_named(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "file" / "out"], monkeypatch, capsys)
    assert code == 2 and "file/out" in err and "choose another --output-dir" in err


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_no_space_is_named(error, clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    monkeypatch.setattr("hf_mdft.trainers.base.save_file", lambda *_: (_ for _ in ()).throw(error))
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 2 and "No space left on device" in err and "free space" in err
    assert not (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "meta").exists()


def test_mistyped_meta_model_is_named(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    own, cannot = "not written by hf_mdft", "cannot be made"
    foreign = {recipe: own, tmp_path: own, tmp_path / "out" / "nothing" / "x.json": cannot}
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "nothing").touch()
    before = recipe.read_bytes()
    for output, said in foreign.items():
        code, out, err = call(["evaluate", recipe, "--output", output], monkeypatch, capsys)
        assert code == 2 and f"Error: {output}: " in err and said in err and not out, "before anything is measured"
    assert recipe.read_bytes() == before
    code, _, err = call(["evaluate", recipe, "--meta", tmp_path / "none"], monkeypatch, capsys)
    assert code == 2 and "none" in err and err.count("\n") == 1


def test_push_needs_a_result(tmp_path, monkeypatch, capsys):
    code, _, err = call(["push", tmp_path, "me/x"], monkeypatch, capsys)
    assert code == 2 and "no result of a run" in err


def test_interruption_exits_with_130(clip_paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hf_mdft.cli.run.run_recipe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    code, _, err = call(["run", write_recipe(tmp_path, clip_paths)], monkeypatch, capsys)
    assert code == 130 and "goes on where it stopped" in err


def commands(group, path=()):
    """Every command there is, as one writes it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def test_the_list_of_commands_is_whole():
    assert {"demo", "run", "bench", "ablate", "pool push", "study gate"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, monkeypatch, capsys):
    code, out, _ = call([*command.split(), "--help"], monkeypatch, capsys)
    assert code == 0 and "Example" in out and f"hf-mdft {command}" in " ".join(out.split())


def test_version(monkeypatch, capsys):
    code, out, err = call(["--version"], monkeypatch, capsys)
    assert code == 0 and out == f"hf-mdft {hf_mdft.__version__}\n" and not err


@pytest.mark.parametrize("argument", ["--peer", "--peer=ties", "--shots", "--images-per-pass"])
def test_former_options_are_named_anew(argument, tmp_path, monkeypatch, capsys):
    code, _, err = call(["run", tmp_path / "recipe.yaml", argument], monkeypatch, capsys)
    new = {"--shots": "--images", "--images-per-pass": "--images-per-micro-batch"}.get(argument, "--baseline")
    assert code == 2 and err == f"Error: {argument.partition('=')[0]} is now called {new}\n"


TWO_PROCESSES = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hf_mdft", "run",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"sharpness_radius": 0.1, "gradient_accumulation_steps": 2}])
def test_two_processes_give_the_same_coefficients(options, clip_paths, tmp_path):
    """In a few steps: with more, roundings differ enough to change a yes or no of the filter or the agreement rule."""
    meta = {
        "max_steps": 10,
        "images_per_task": 8,
        "images_per_micro_batch": 8,
        "head_steps": 3,
        "use_cpu": True,
        "bf16": False,
        **options,
    }
    recipe = write_recipe(tmp_path, clip_paths, meta=meta)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = subprocess.run(
        [sys.executable, "-m", "hf_mdft", "run", recipe, "--output-dir", tmp_path / "one"], env=environment
    )
    two = subprocess.run([*TWO_PROCESSES, str(recipe), "--output-dir", str(tmp_path / "two")], env=environment)
    assert one.returncode == two.returncode == 0
    a, b = (load_file(tmp_path / name / "meta" / "adapter_model.safetensors") for name in ("one", "two"))
    assert max((a[key] - b[key]).abs().max().item() for key in a) < 1e-4
    assert (tmp_path / "two" / "results.json").is_file() and (tmp_path / "two" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"sharpness_radius": 0.1, "gradient_accumulation_steps": 2}])
def test_two_processes_share_the_task_vectors(options, clip_paths, tmp_path):
    """Steps, two looks at held-out images, heads alone and the rest of a run, against one process with all vectors."""
    meta = {"max_steps": 55, "images_per_task": 4, "images_per_micro_batch": 4, "head_steps": 3, "fewer_steps": True}
    meta |= {"use_cpu": True, "bf16": False, "shard_task_vectors": True, **options}
    recipe = write_recipe(tmp_path, clip_paths, meta=meta, specialize={"rounds": 0})
    calls = tmp_path / "calls"
    calls.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SHARDED_CALLS": str(calls)}
    runner = str(Path(__file__).with_name("counting_runner.py"))
    one = subprocess.run([sys.executable, runner, "run", recipe, "--output-dir", tmp_path / "one"], env=environment)
    assert one.returncode == 0 and not list(calls.iterdir()), "one process keeps all"
    launcher = TWO_PROCESSES[: TWO_PROCESSES.index("-m", 3)]
    two = subprocess.run([*launcher, runner, "run", recipe, "--output-dir", tmp_path / "two"], env=environment)
    assert two.returncode == 0
    a, b = (load_file(tmp_path / name / "meta" / "adapter_model.safetensors") for name in ("one", "two"))
    assert max((a[key] - b[key]).abs().max().item() for key in a) < 1e-4
    counts = [len((calls / rank).read_text(encoding="utf-8").splitlines()) for rank in "01"]
    assert counts[0] == counts[1] >= 55 + 1 + 1


@pytest.mark.slow
def test_two_processes_make_the_same_specialists_side_by_side(clip_paths, tmp_path):
    specialize = {"max_steps": 10, "per_device_train_batch_size": 8, "use_cpu": True, "bf16": False}
    recipe = write_recipe(tmp_path, clip_paths, meta={"max_steps": 0}, specialize=specialize)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = subprocess.run(
        [sys.executable, "-m", "hf_mdft", "run", recipe, "--output-dir", tmp_path / "one"], env=environment
    )
    two = subprocess.run([*TWO_PROCESSES, str(recipe), "--output-dir", str(tmp_path / "two")], env=environment)
    assert one.returncode == two.returncode == 0
    tasks = {path.name for path in (tmp_path / "one" / "specialists").iterdir()}
    assert len(tasks) > 1
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    for task in tasks:
        a, b = (tmp_path / name / "specialists" / task / "model.safetensors" for name in ("one", "two"))
        assert a.read_bytes() == b.read_bytes()
        assert results[1]["timing_s"][f"specialist {task}"] > 0
    assert results[0]["gate"] == results[1]["gate"]
