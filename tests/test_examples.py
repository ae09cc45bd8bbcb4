"""Every example script."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TASKS, write_recipe

from hf_mdft import Recipe


ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "quickstart": {"output_dir": "out"},
    "plain_peft_and_trainer": {"output_dir": "out", "max_steps": 2},
    "specialize_one_task": {"output_dir": "out", "task": "shade", "images": 8},
}


def test_every_example_is_run():
    names = {path.stem for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
    assert names == {*EXAMPLES, "accelerate_launch", "slurm"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, clip_paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(recipe=str(write_recipe(tmp_path, clip_paths)), **EXAMPLES[name])
    written = {
        "quickstart": [f"specialists/{task}/model.safetensors" for task in TASKS],
        "plain_peft_and_trainer": ["adapter/adapter_model.safetensors", "folded/model.safetensors"],
        "specialize_one_task": ["shade/model.safetensors"],
    }[name]
    assert all((tmp_path / "out" / file).is_file() for file in written)


@pytest.mark.parametrize("name", ["vit-b32", "vit-l14"])
def test_recipe_of_the_literatures_tasks(name):
    loaded = Recipe.load(ROOT / "examples" / "paper" / f"{name}.yaml")
    loaded.meta_arguments("out"), loaded.specialize_arguments("out")
    classes = {"resisc45": 45, "eurosat": 10, "svhn": 10, "gtsrb": 43, "mnist": 10}
    named = {task: len(set(options.class_names)) for task, options in loaded.tasks.items() if options.class_names}
    assert named == classes and len(loaded.tasks) == 8 and set(loaded.experts) == set(loaded.tasks)


@pytest.mark.slow
def test_accelerate_example(clip_paths, tmp_path):
    recipe = write_recipe(tmp_path, clip_paths)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = ROOT / "examples" / "accelerate_launch.sh"
    subprocess.run(["bash", script, recipe, tmp_path / "out", "2"], check=True, env=environment)
    assert (tmp_path / "out" / "results.json").is_file()


@pytest.mark.slow
def test_slurm_example_on_one_machine(clip_paths, tmp_path):
    """SLURM's commands are stood in for; accelerate starts two processes."""
    commands = {"srun": 'exec "$@"', "scontrol": "echo localhost"}
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost"}
    environment = {**os.environ, **given, "OMP_NUM_THREADS": "1", "PATH": path}
    recipe = write_recipe(tmp_path, clip_paths)
    script = ROOT / "examples" / "slurm.sh"
    subprocess.run(["bash", script, recipe, tmp_path / "out", "2"], check=True, env=environment)
    assert (tmp_path / "out" / "results.json").is_file()
