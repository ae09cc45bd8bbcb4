"""Files damaged by chance: accepted or refused with one line; never a traceback, a hang, or code that runs."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mutations
import pytest
from conftest import edited, save_clip_pool, write_recipe

from hf_mdft.cli.app import main


pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of memory are those of Linux")

TARGETS = {
    "recipe.yaml": (mutations.YAML, ("check", "inspect")),
    "base/config.json": (mutations.JSON, ("check", "inspect")),
    "base/preprocessor_config.json": (mutations.JSON, ("check",)),
    "base/tokenizer_config.json": (mutations.JSON, ("check",)),
    "base/model.safetensors": (mutations.TENSORS, ("check", "inspect")),
    "shade/config.json": (mutations.JSON, ("inspect",)),
    "shade/model.safetensors": (mutations.TENSORS, ("check", "inspect")),
    "out/meta/mdft.json": (mutations.JSON, ("meta",)),
    "out/meta/adapter_config.json": (mutations.JSON, ("meta",)),
    "out/meta/adapter_model.safetensors": (mutations.TENSORS, ("meta",)),
    "out/meta/heads/shade.safetensors": (mutations.TENSORS, ("meta",)),
    "out/specialists/shade/mdft.json": (mutations.JSON, ("specialist",)),
    "out/specialists/shade/config.json": (mutations.JSON, ("specialist",)),
    "out/specialists/shade/preprocessor_config.json": (mutations.JSON, ("specialist",)),
    "out/specialists/shade/model.safetensors": (mutations.TENSORS, ("specialist",)),
    "out/specialists/shade/head.safetensors": (mutations.TENSORS, ("specialist",)),
}
"""What is damaged: how, and the commands that meet it."""

COMMANDS = {
    "check": ["check", "recipe.yaml", "--output-dir", "new"],
    "inspect": ["pool", "inspect", "recipe.yaml"],
    "meta": ["evaluate", "recipe.yaml", "--meta", "out/meta"],
    "specialist": ["open", "out/specialists/shade"],
}

MISLEADING = re.compile(r"<_io\.|for field '\w+':\)|object at 0x|NoneType|weights_only|not subscriptable|\[Errno")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A pool, a recipe and what a run of it wrote."""
    folder = tmp_path_factory.mktemp("world")
    paths = save_clip_pool(folder)
    recipe = write_recipe(folder, paths)

    def smaller(content):
        content["pool"] = {"base": "./base", "experts": {task: f"./{task}" for task in ("shade", "stripes")}}
        content["tasks"].pop("colour")

    edited(recipe, smaller)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["hf-mdft", "run", str(recipe), "--output-dir", str(folder / "out")])
        main()
    assert not stop.value.code
    shutil.rmtree(folder / "out" / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def runner():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("mutation_runner.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip

    def run(arguments, folder):
        process.stdin.write(json.dumps({"arguments": arguments, "folder": str(folder)}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.wait(timeout=60)


@pytest.fixture
def attack(world, runner, tmp_path):
    def one(seed):
        chance = random.Random(seed)
        target = chance.choice(sorted(TARGETS))
        kinds, commands = TARGETS[target]
        kind, command = chance.choice(kinds), chance.choice(commands)
        copy = tmp_path / str(seed)
        shutil.copytree(world, copy)
        kind(copy / target, chance)
        code = runner(COMMANDS[command], copy)
        shown = (copy / "shown.txt").read_text(encoding="utf-8", errors="replace")
        about = f"seed {seed}: {kind.__name__} of {target}, {command}: exit code {code}\n{shown[-3000:]}"
        assert not list(copy.rglob("PLANTED")), f"code ran; {about}"
        assert code in (0, 2) and "Traceback" not in shown, about
        if code == 2:
            lines = [line for line in re.split(r"[\n\r]", shown) if line.strip()]
            errors = [line for line in lines if line.startswith("Error: ")]
            assert len(errors) == 1 and lines[-1] == errors[0], f"not one line; {about}"
            assert not MISLEADING.search(errors[0]) and len(errors[0]) < 800, f"misleading; {about}"
            named = {Path(target).name, Path(target).parent.name or "recipe.yaml", "shade", "stripes"}
            assert any(name in errors[0] for name in named), f"no file is named; {about}"
        shutil.rmtree(copy)

    return one


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files(attack, seed):
    attack(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1700))
def test_damaged_files_at_length(attack, seed):
    attack(seed)
