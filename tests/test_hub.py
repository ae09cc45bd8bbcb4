"""Pools from a Hub and results to it, with the real client against a Hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import TASKS, write_recipe
from local_hub import serve


@pytest.fixture
def hub(tmp_path, clip_paths):
    root = tmp_path / "hub"
    shutil.copytree(clip_paths["base"], root / "lab" / "tiny-clip")
    for task in TASKS:
        shutil.copytree(clip_paths[task], root / "lab" / f"tiny-clip_{task}")
    with serve(root) as (address, hub):
        environment = {
            **os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        yield hub, environment


def hf_mdft(arguments, environment, cwd):
    return subprocess.run(
        [sys.executable, "-m", "hf_mdft", *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def hub_recipe(folder, clip_paths, **experts):
    pool = {"base": "lab/tiny-clip", "experts": {**{task: f"lab/tiny-clip_{task}" for task in TASKS}, **experts}}
    return write_recipe(folder, clip_paths, pool=pool)


def test_a_recipe_with_hub_ids_runs_and_pins_commits(hub, clip_paths, tmp_path):
    hub, environment = hub
    recipe = hub_recipe(tmp_path / "job", clip_paths)
    done = hf_mdft(["run", recipe, "--output-dir", "out"], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["pool"]["base"] == {"id": "lab/tiny-clip", "revision": hub.commit("lab/tiny-clip")}
    for task in TASKS:
        repo = f"lab/tiny-clip_{task}"
        assert results["pool"]["experts"][task] == {"id": repo, "revision": hub.commit(repo)}
    card = (tmp_path / "out" / "specialists" / "shade" / "README.md").read_text()
    assert "base_model:\n- lab/tiny-clip\n- lab/tiny-clip_shade" in card

    hub.log.clear()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    again = hf_mdft(["evaluate", recipe], offline, tmp_path)
    assert again.returncode == 0 and "experts" in again.stdout, again.stderr
    assert not hub.log, "nothing is asked of the Hub when it is offline and the cache is warm"


def test_push_and_use_again(hub, clip_paths, tmp_path):
    hub, environment = hub
    recipe = hub_recipe(tmp_path / "job", clip_paths)
    assert hf_mdft(["run", recipe, "--output-dir", "out"], environment, tmp_path).returncode == 0
    push = ["push", "out/specialists/shade", "me/shade-specialist", "--private"]
    refused = hf_mdft([*push, "--token", "hf_wrong"], environment, tmp_path)
    assert refused.returncode == 2 and "log in with write access" in refused.stderr
    assert not (hub.root / "me").exists()

    done = hf_mdft([*push, "--token", hub.token], environment, tmp_path)
    assert done.returncode == 0 and "/me/shade-specialist/commit/" in done.stdout, done.stderr
    pushed, local = hub.files("me/shade-specialist"), tmp_path / "out" / "specialists" / "shade"
    assert {name: (local / name).read_bytes() for name in pushed} == pushed
    assert sum("/commit/" in line for line in hub.log) == 1, "one commit"

    second = hub_recipe(tmp_path / "next", clip_paths, shade="me/shade-specialist")
    hidden = hf_mdft(["pool", "inspect", second], environment, tmp_path)
    assert hidden.returncode == 2 and "me/shade-specialist" in hidden.stderr and "private" in hidden.stderr
    seen = hf_mdft(["pool", "inspect", second, "--token", hub.token], environment, tmp_path)
    assert seen.returncode == 0 and "me/shade-specialist" in seen.stdout, seen.stderr

    assert hf_mdft(["push", "out/meta", "me/meta", "--token", hub.token], environment, tmp_path).returncode == 0
    script = (
        "from hf_mdft import MetaMerger\n"
        "merger = MetaMerger.from_pretrained('me/meta')\n"
        "print(type(merger.meta_tower()).__name__, merger.head('shade').class_names)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "CLIPVisionModel ['dark', 'middle', 'bright']" in loaded.stdout, loaded.stderr


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        ("lab/nowhere", "lab/nowhere: no such folder here and no such repo"),
        ("lab/tiny-clip_shade@v9", "lab/tiny-clip_shade@v9: the repo has no such branch, tag or commit"),
        ("not a repo id!", "not a repo id!: neither a folder here nor a valid Hub id"),
    ],
)
def test_what_cannot_be_found_is_named(hub, clip_paths, tmp_path, expert, message):
    _, environment = hub
    recipe = hub_recipe(tmp_path / "job", clip_paths, shade=expert)
    done = hf_mdft(["pool", "inspect", recipe], environment, tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_hub_is_named(hub, clip_paths, tmp_path):
    _, environment = hub
    recipe = hub_recipe(tmp_path / "job", clip_paths)
    done = hf_mdft(["pool", "inspect", recipe], {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}, tmp_path)
    assert done.returncode == 2 and "the Hub cannot be reached" in done.stderr
