"""Recipes and the command line: one clear line for bad input, results as documented, going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import TASKS, write_recipe
from safetensors import SafetensorError
from safetensors.torch import load_file

from hf_mdft import InputError, Recipe
from hf_mdft.cli.app import main


def call(arguments, monkeypatch, capsys):
    """Exit code, stdout and stderr of `hf-mdft`."""
    monkeypatch.setattr(sys, "argv", ["hf-mdft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    return stop.value.code or 0, printed.out, printed.err


@pytest.mark.parametrize("architecture", ["clip", "vit"])
def test_run_writes_what_is_documented(architecture, request, tmp_path, monkeypatch, capsys):
    paths = request.getfixturevalue(f"{architecture}_paths")
    recipe = write_recipe(tmp_path, paths)
    code, out, _ = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["schema"] == 1 and results["tasks"] == list(TASKS) and results["seed"] == 0
    assert {"base", "expert", "weight_average", "task_arithmetic", "meta", "specialist"} <= set(results["accuracy"])
    assert set(results["gate"]) == set(TASKS) and set(results["versions"]) >= {"torch", "peft", "python"}
    assert "specialists" in out and f"{100 * results['accuracy']['expert']['average']:.1f}" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 3 and "<script" not in page and 'src="' not in page
    assert (tmp_path / "out" / "meta" / "adapter_model.safetensors").stat().st_size < 20_000
    for task in TASKS:
        folder = tmp_path / "out" / "specialists" / task
        assert (folder / "model.safetensors").is_file() and f"**{task}**" in (folder / "README.md").read_text()

    code, out, _ = call(["evaluate", recipe, "--meta", tmp_path / "out" / "meta"], monkeypatch, capsys)
    assert code == 0 and "meta-model" in out
    code, out, _ = call(["pool", "inspect", recipe], monkeypatch, capsys)
    assert code == 0 and "cosines" in out


def test_killed_run_goes_on(clip_paths, tmp_path):
    """SIGKILL in the middle, then the same command: the same coefficients as without the kill."""
    meta = {"max_steps": 40, "images_per_task": 4, "head_steps": 3, "use_cpu": True, "save_steps": 5}
    recipe = write_recipe(tmp_path, clip_paths, meta=meta)

    def start(name):
        command = [sys.executable, "-m", "hf_mdft", "run", str(recipe), "--output-dir", str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    victim, checkpoints = start("killed"), tmp_path / "killed" / "checkpoints" / "meta"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(checkpoints.glob("checkpoint-*/extra_state.safetensors")):
        assert victim.poll() is None, victim.communicate()[0]
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    for name in ("killed", "whole"):
        process = start(name)
        assert process.wait(timeout=240) == 0, process.communicate()[0]
    a, b = (load_file(tmp_path / name / "meta" / "adapter_model.safetensors") for name in ("killed", "whole"))
    assert all((a[key] == b[key]).all() for key in a)
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("killed", "whole"))
    assert first["accuracy"] == second["accuracy"] and first["gate"] == second["gate"]


def edited(recipe, change):
    content = yaml.safe_load(recipe.read_text())
    change(content)
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    return recipe


BAD = {
    "unknown key": (lambda c: c.update(metta={}), "unknown key 'metta': did you mean 'meta'"),
    "unknown option": (lambda c: c["meta"].update(learning_rat=1), "meta: unknown key 'learning_rat': did you mean 'learning_rate'"),
    "unknown task key": (lambda c: c["tasks"]["shade"].update(image_colum="x"), "tasks.shade: unknown key 'image_colum'"),
    "no pool": (lambda c: c.pop("pool"), "'pool' is missing"),
    "no base": (lambda c: c["pool"].pop("base"), "pool.base is missing"),
    "task not in pool": (lambda c: c["pool"]["experts"].pop("shade"), "task 'shade' is not under pool.experts"),
    "no unlabelled": (lambda c: c["tasks"]["shade"].pop("unlabelled"), "tasks.shade: 'unlabelled' is missing"),
    "no path": (lambda c: c["tasks"]["shade"]["unlabelled"].pop("path"), "tasks.shade.unlabelled: 'path' is missing"),
    "missing data": (lambda c: c["tasks"]["shade"]["unlabelled"].update(data_files="none.parquet"), "cannot load"),
    "missing expert": (lambda c: c["pool"]["experts"].update(shade="./none"), "none: no such folder"),
    "no number": (lambda c: c["meta"].update(learning_rate="fast"), "meta: learning_rate must be a number, got 'fast'"),
    "no integer": (lambda c: c["meta"].update(images_per_task="many"), "meta: images_per_task must be a number"),
    "bad value": (lambda c: c["specialize"].update(rounds=-1), "specialize: rounds must be at least 0"),
    "bad granularity": (lambda c: c.update(adapter={"granularity": "tensr"}), "did you mean 'tensor'"),
    "bad filter": (lambda c: c["meta"].update(filter="eta"), "unknown filter 'eta': did you mean 'eata'"),
    "wrong class count": (lambda c: c["tasks"]["shade"].update(class_names=["a", "b"]), "3 classes, the head of task 'shade' has 2"),
    "one class": (lambda c: c["tasks"]["shade"].update(class_names=["a"]), "at least two names"),
    "wrong column": (lambda c: c["tasks"]["shade"].update(image_column="picture"), "no column 'picture'"),
    "bad density": (lambda c: c.update(adapter={"transform": {"name": "trim", "density": "x"}}), "recipe.yaml: adapter: "),
    "transform list": (lambda c: c.update(adapter={"transform": ["trim"]}), "recipe.yaml: adapter: "),
    "templates number": (lambda c: c["tasks"]["shade"].update(templates=5), "templates must be a list"),
    "half an image": (lambda c: c["meta"].update(images_per_task=2.5), "must be a whole number"),
    "pool is text": (lambda c: c.update(pool="me/pool"), "me/pool: no such folder here, not in the local cache"),
    "seed is text": (lambda c: c.update(seed="x"), "seed must be a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes_end_in_one_line(name, clip_paths, tmp_path, monkeypatch, capsys):
    change, message = BAD[name]
    recipe = edited(write_recipe(tmp_path, clip_paths), change)
    command = "evaluate" if name == "wrong class count" else "run"
    options = [] if command == "evaluate" else ["--output-dir", tmp_path / "out"]
    code, out, err = call([command, recipe, *options], monkeypatch, capsys)
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0] and not out
    assert not (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "meta").exists()


def test_unreadable_recipes(tmp_path, monkeypatch, capsys):
    code, _, err = call(["run", tmp_path / "none.yaml"], monkeypatch, capsys)
    assert code == 2 and "none.yaml: cannot read the recipe (No such file or directory)" in err
    (tmp_path / "bad.yaml").write_text("pool: {base: [")
    code, _, err = call(["run", tmp_path / "bad.yaml"], monkeypatch, capsys)
    assert code == 2 and "bad.yaml, line 1: no valid YAML" in err
    (tmp_path / "list.yaml").write_text("- a")
    code, _, err = call(["run", tmp_path / "list.yaml"], monkeypatch, capsys)
    assert code == 2 and "expected keys and values, got list" in err


def test_no_permission_is_named(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    (tmp_path / "file").write_text("in the way")
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "file" / "out"], monkeypatch, capsys)
    assert code == 2 and "file/out" in err and "choose another output folder" in err


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_no_space_is_named(error, clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    monkeypatch.setattr("hf_mdft.trainers.base.save_file", lambda *_: (_ for _ in ()).throw(error))
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 2 and "No space left on device" in err and "free space" in err
    assert not (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "meta").exists()


def test_mistyped_meta_model_is_named(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    code, _, err = call(["evaluate", recipe, "--meta", tmp_path / "none"], monkeypatch, capsys)
    assert code == 2 and "none" in err and err.count("\n") == 1


def test_push_needs_a_result(tmp_path, monkeypatch, capsys):
    code, _, err = call(["push", tmp_path, "me/x"], monkeypatch, capsys)
    assert code == 2 and "no result of a run" in err


def test_interruption_exits_with_130(clip_paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hf_mdft.cli.app.run_recipe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    code, _, err = call(["run", write_recipe(tmp_path, clip_paths)], monkeypatch, capsys)
    assert code == 130 and "goes on where it stopped" in err


COMMANDS = ["demo", "run", "evaluate", "push", "ablate", "pool discover", "pool inspect", "pool push"]
COMMANDS += ["study few-shot", "study leave-one-out", "study gate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, monkeypatch, capsys):
    code, out, _ = call([*command.split(), "--help"], monkeypatch, capsys)
    assert code == 0 and "Example" in out and f"hf-mdft {command}" in " ".join(out.split())


def test_paths_are_relative_to_the_recipe(clip_paths, tmp_path):
    shutil.copytree(clip_paths["base"], tmp_path / "models" / "base")
    shutil.copytree(clip_paths["shade"], tmp_path / "models" / "shade")
    (tmp_path / "recipes").mkdir()
    recipe = write_recipe(tmp_path / "recipes", clip_paths)
    pool = {
        "base": "../models/base",
        "experts": {"shade": "../models/shade", "colour": "owner/name@v1", "stripes": None},
    }
    loaded = Recipe.load(edited(recipe, lambda c: c.update(pool=pool)))
    assert loaded.base == str((tmp_path / "models" / "base").resolve())
    assert loaded.experts == {
        "shade": str((tmp_path / "models" / "shade").resolve()), "colour": "owner/name@v1", "stripes": None,
    }  # fmt: skip
    file = loaded.tasks["shade"].unlabelled["data_files"]
    assert file == str((tmp_path / "recipes" / "shade-unlabelled.parquet").resolve())
    with pytest.raises(InputError, match="unknown key"):
        Recipe.load(edited(recipe, lambda c: c.update(extra=1)))


def test_numbers_without_a_point(clip_paths, tmp_path):
    """YAML reads 1e-3 as text; people mean the number."""
    recipe = write_recipe(tmp_path, clip_paths)
    recipe.write_text(recipe.read_text().replace("meta:", "meta:\n  learning_rate: 1e-3"))
    assert Recipe.load(recipe).meta_arguments(tmp_path).learning_rate == 0.001


TWO_PROCESSES = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hf_mdft", "run",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"sharpness_radius": 0.1, "gradient_accumulation_steps": 2}])
def test_two_processes_give_the_same_coefficients(options, clip_paths, tmp_path):
    meta = {
        "max_steps": 20,
        "images_per_task": 8,
        "images_per_micro_batch": 8,
        "head_steps": 3,
        "use_cpu": True,
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
