"""Every example, and the README's quickstart, as printed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TASKS, write_recipe


ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "quickstart": {"output_dir": "out"},
    "plain_peft_and_trainer": {"output_dir": "out", "max_steps": 2},
    "specialize_one_task": {"output_dir": "out", "task": "shade", "images": 8},
}


def test_every_example_is_run():
    names = {path.stem for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
    assert names == {*EXAMPLES, "accelerate_launch"}


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


@pytest.mark.slow
def test_accelerate_example(clip_paths, tmp_path):
    recipe = write_recipe(tmp_path, clip_paths)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = ROOT / "examples" / "accelerate_launch.sh"
    subprocess.run(["bash", script, recipe, tmp_path / "out", "2"], check=True, env=environment)
    assert (tmp_path / "out" / "results.json").is_file()


def test_readme_quickstart_runs_as_printed(clip_paths, tmp_path, monkeypatch, capsys):
    """Only the names of the models and datasets are replaced, by what this machine has."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- quickstart -->\n```python\n(.*?)```", readme, re.S)[1]
    assert len(block.strip().splitlines()) <= 15
    write_recipe(tmp_path, clip_paths)
    names = {
        "openai/clip-vit-base-patch32": clip_paths["base"],
        "tanganke/clip-vit-base-patch32_mnist": clip_paths["shade"],
        "tanganke/clip-vit-base-patch32_dtd": clip_paths["colour"],
        "ylecun/mnist": tmp_path / "shade",
        "tanganke/dtd": tmp_path / "colour",
    }
    for printed, here in names.items():
        assert f'"{printed}"' in block
        block = block.replace(f'"{printed}"', repr(str(here)))
    block = block.replace("max_steps=300", "max_steps=2").replace("max_steps=200", "max_steps=2")
    for task in ("shade", "colour"):
        (tmp_path / task).mkdir()
        (tmp_path / f"{task}-unlabelled.parquet").rename(tmp_path / task / "train.parquet")
        (tmp_path / f"{task}-test.parquet").rename(tmp_path / task / "test.parquet")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert "specialists" in capsys.readouterr().out
