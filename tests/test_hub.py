"""Pools from a Hub, with the real client against a Hub on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import TASKS, files_of, hub_environment, hub_recipe, layouts
from safetensors.torch import save_file
from test_lora import adapted
from transformers import CLIPVisionModel

from hf_mdft import ModelPool


POOL = """
from hf_mdft import ModelPool
pool = ModelPool.from_pretrained({base!r}, {experts!r})
result = {result}
"""


def test_ids_are_pinned_to_commits_and_the_cache_is_enough(hub, client, clip_paths, tmp_path, hub_session):
    recipe = hub_recipe(tmp_path, clip_paths, shade="lab/tiny-clip_shade@main")
    done = client.run("run", recipe, "--output-dir", "out")
    assert done["code"] == 0, done["err"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["pool"]["base"] == {"id": "lab/tiny-clip", "revision": hub.head("lab/tiny-clip")}
    for task in TASKS:
        repo = f"lab/tiny-clip_{task}"
        assert results["pool"]["experts"][task] == {"id": repo, "revision": hub.head(repo)}
    saved = json.loads((tmp_path / "out" / "meta" / "adapter_config.json").read_text())
    assert saved["pool"] == results["pool"]
    card = (tmp_path / "out" / "specialists" / "shade" / "README.md").read_text()
    assert "base_model:\n- lab/tiny-clip\n- lab/tiny-clip_shade" in card and "license: mit" in card
    assert f"lab/tiny-clip_shade@{hub.head('lab/tiny-clip_shade')}" in card, "the recipe in the card is pinned"

    hub.log.clear()
    _, _, home, address = hub_session
    offline = {**hub_environment(address, home), "HF_HUB_OFFLINE": "1"}
    again = subprocess.run(
        [sys.executable, "-m", "hf_mdft", "evaluate", str(recipe)], env=offline, capture_output=True, text=True
    )
    assert again.returncode == 0 and "experts" in again.stdout, again.stderr
    assert not hub.log, "nothing is asked of the Hub when it is offline and the cache is warm"


def test_branches_tags_and_commits(hub, client, clip_paths):
    first = hub.head("lab/tiny-clip_shade")
    repo = hub.repos["lab/tiny-clip_shade"]
    repo.refs["v1"] = repo.refs["feature/old"] = first
    second = hub.add("lab/tiny-clip_shade", files_of(clip_paths["colour"]))
    assert first != second
    for spec, sha in {"@v1": first, "@feature/old": first, f"@{first}": first, "@main": second, "": second}.items():
        experts = {"shade": f"lab/tiny-clip_shade{spec}"}
        code = POOL.format(base="lab/tiny-clip", experts=experts, result="pool.reference()['experts']['shade']")
        assert client.python(code)["revision"] == sha, spec


def test_the_same_pin_gives_the_same_pool_after_the_repo_moves_or_vanishes(hub, client, clip_paths):
    code = POOL.format(base="lab/tiny-clip", experts={"shade": "lab/tiny-clip_shade"}, result="pool.reference()")
    reference = client.python(code)
    again = f"""
from hf_mdft import ModelPool
pool = ModelPool.from_reference({reference!r})
result = [pool.reference(), float(pool.vectors().stack("post_layernorm.bias").sum())]
"""
    before = client.python(again)
    hub.add("lab/tiny-clip_shade", files_of(clip_paths["colour"]))
    assert client.python(again) == before
    del hub.repos["lab/tiny-clip_shade"]
    assert client.python(again) == before, "a commit that is cached is enough"


def test_headers_are_checked_before_any_weights_move(hub, client, clip_paths, tmp_path):
    files = files_of(clip_paths["colour"])
    tensors = {"vision_model.post_layernorm.bias": torch.zeros(99)}
    save_file({**torch_load(clip_paths["colour"]), **tensors}, tmp_path / "model.safetensors", {"format": "pt"})
    hub.add("lab/wide", {**files, "model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    done = client.run("run", hub_recipe(tmp_path / "job", clip_paths, color="lab/wide"), "--output-dir", "out")
    assert done["code"] == 2
    assert "lab/wide: tensor 'post_layernorm.bias' has shape (99,), the base has (16,)" in done["err"]
    assert "Downloading" not in done["err"]
    assert not hub.whole_files, "headers only"
    assert not list(tmp_path.rglob("out/*"))


def torch_load(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_quantized_weights_are_refused(hub, client, clip_paths, tmp_path):
    tensors = torch_load(clip_paths["colour"])
    tensors["vision_model.post_layernorm.bias"] = torch.zeros(16, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    files = files_of(clip_paths["colour"])
    hub.add("lab/int8", {**files, "model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    done = client.run("pool", "inspect", hub_recipe(tmp_path, clip_paths, color="lab/int8"))
    assert done["code"] == 2 and "lab/int8: tensor 'post_layernorm.bias' is stored as I8" in done["err"]


def test_every_layout_gives_the_same_expert_from_the_hub(hub, client, clip_paths, tmp_path):
    layouts(clip_paths["base"], tmp_path)
    names = ["plain", "old", "full", "projection", "sharded", "half", "bfloat"]
    for name in names:
        hub.add(f"lab/{name}", tmp_path / name)
    assert "preprocessor_config.json" not in hub.files("lab/old") and "README.md" not in hub.files("lab/old")
    result = "[float(stack.abs().sum()) for stack in pool.vectors().stack('encoder.layers.1.mlp.fc1.weight')]"
    experts = {name: f"lab/{name}" for name in names}
    sums = client.python(POOL.format(base="lab/tiny-clip", experts=experts, result=result))
    assert sums == pytest.approx([sums[0]] * len(names), rel=2e-2) and sums[0] > 0
    assert sums[:5] == pytest.approx([sums[0]] * 5, rel=1e-6)


def test_private_and_gated_repos(hub, client, clip_paths, tmp_path):
    hub.repos["lab/tiny-clip_shade"].private = True
    recipe = hub_recipe(tmp_path, clip_paths)
    hidden = client.run("pool", "inspect", recipe)
    assert hidden["code"] == 2 and "lab/tiny-clip_shade: no such folder here and no such repo" in hidden["err"]
    assert "private" in hidden["err"]
    assert client.run("pool", "inspect", recipe, "--token", hub.token)["code"] == 0
    hub.repos["lab/tiny-clip_colour"].gated = True
    recipe = hub_recipe(tmp_path, clip_paths, shade="lab/tiny-clip_stripes")
    shutil.rmtree(client.python("from huggingface_hub.constants import HF_HUB_CACHE as result"))
    gated = client.run("pool", "inspect", recipe)
    assert gated["code"] == 2 and "lab/tiny-clip_colour: gated repo: accept its terms" in gated["err"]


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        ("lab/nowhere", "lab/nowhere: no such folder here and no such repo"),
        ("lab/tiny-clip_shade@v9", "lab/tiny-clip_shade@v9: the repo has no such branch, tag or commit"),
        ("not a repo id!", "not a repo id!: neither a folder here nor a valid Hub id"),
    ],
)
def test_what_cannot_be_found_is_named(hub, client, clip_paths, tmp_path, expert, message):
    done = client.run("pool", "inspect", hub_recipe(tmp_path, clip_paths, shade=expert))
    assert done["code"] == 2 and message in done["err"] and "Traceback" not in done["err"]


@pytest.mark.slow
def test_an_unreachable_hub_is_named(clip_paths, tmp_path):
    recipe = hub_recipe(tmp_path / "job", clip_paths)
    environment = hub_environment("http://127.0.0.1:9", tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-m", "hf_mdft", "pool", "inspect", str(recipe)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "the Hub cannot be reached" in done.stderr and "Traceback" not in done.stderr


def test_the_size_is_told_before_the_download(hub, client, clip_paths, tmp_path):
    recipe = hub_recipe(tmp_path, clip_paths)
    size = len(hub.files("lab/tiny-clip_shade")["model.safetensors"])
    dry = client.run("pool", "inspect", recipe, "--dry-run", "--format", "json")
    told = json.loads(dry["out"])
    assert [model["bytes_to_download"] for model in told["models"]][1:] == [size] * 3
    assert not hub.whole_files and "cosines" not in told
    done = client.run("pool", "inspect", recipe, "--figure", "cosines.png")
    assert "Downloading the weights of 4 models" in done["err"]
    assert len(hub.whole_files) == 4
    before, after = done["out"].split("Task vectors")
    assert "To download: nothing" not in before and "cosines" in after
    assert (tmp_path / "cosines.png").read_bytes().startswith(b"\x89PNG")
    again = client.run("pool", "inspect", recipe, "--format", "json")
    told = json.loads(again["out"])
    assert told["bytes_to_download"] == 0 and told["license"] == "mit" and "Downloading" not in again["err"]
    assert told["cosines"]["shade"]["shade"] == pytest.approx(1)


def test_license_conflicts_are_shown(hub, client, clip_paths, tmp_path):
    hub.add("lab/gpl", files_of(clip_paths["shade"], "license: gpl-3.0"))
    hub.add("lab/nc", files_of(clip_paths["colour"], "license: cc-by-nc-4.0"))
    recipe = hub_recipe(tmp_path, clip_paths, shade="lab/gpl", color="lab/nc")
    done = client.run("pool", "inspect", recipe, "--dry-run")
    assert "lab/gpl (gpl-3.0) and lab/nc (cc-by-nc-4.0) set terms that exclude each other" in done["out"]


def test_discovery(hub, client, clip_paths, vit_paths, tmp_path):
    hub.add("you/other", files_of(vit_paths["shade"], "base_model: lab/tiny-clip\nlicense: mit"))
    adapted(CLIPVisionModel.from_pretrained(clip_paths["base"]), tmp_path / "lora")
    card = "base_model: lab/tiny-clip\nbase_model_relation: adapter\nlicense: mit"
    hub.add("you/lora", files_of(tmp_path / "lora", card))
    hub.add("you/empty", {"README.md": f"---\n{card}\n---\n".encode()})
    hub.add("you/stray", files_of(clip_paths["shade"], "license: mit"))
    again = "base_model: [lab/tiny-clip]\ndatasets: lab/shade-images\nlicense: apache-2.0"
    hub.add("you/tiny-clip_shade", files_of(clip_paths["shade"], again), downloads=7)
    done = client.run("pool", "discover", "lab/tiny-clip", "--output", "found.yaml", "--verbose")
    assert done["code"] == 0, done["err"]
    rows = done["out"].splitlines()[1:]
    assert [row.split()[:3] for row in rows] == [
        ["shade", "lab/tiny-clip_shade", "lab/shade-images"],
        ["shade", "you/tiny-clip_shade", "lab/shade-images"],
        ["colour", "lab/tiny-clip_colour", "lab/colour-images"],
        ["stripes", "lab/tiny-clip_stripes", "lab/stripes-images"],
        ["lora", "you/lora", "-"],
    ]
    assert "5 of 7 models fit lab/tiny-clip" in done["err"] and "Left out you/other: model type 'vit'" in done["err"]
    assert not hub.whole_files, "headers only"

    recipe = yaml.safe_load((tmp_path / "found.yaml").read_text())
    assert recipe["pool"]["base"] == f"lab/tiny-clip@{hub.head('lab/tiny-clip')}"
    assert list(recipe["pool"]["experts"]) == ["shade", "colour", "stripes", "lora"], "one task for each data set"
    two = [f"{name}@{hub.head(name)}" for name in ("lab/tiny-clip_shade", "you/tiny-clip_shade")]
    assert recipe["pool"]["experts"]["shade"] == two and list(recipe["tasks"])[:3] == ["shade", "colour", "stripes"]
    assert recipe["tasks"]["shade"]["unlabelled"] == {"path": "lab/shade-images", "split": "train"}
    shown = client.run("pool", "inspect", "found.yaml", "--dry-run")
    assert shown["code"] == 0 and "you/tiny-clip_shade: the same weights as lab/tiny-clip_shade" in shown["err"]
    assert [row.split()[0] for row in shown["out"].splitlines()[1:5]] == ["base", "shade", "colour", "stripes"]
    refused = client.run("pool", "discover", "lab/tiny-clip", "--output", "found.yaml")
    assert refused["code"] == 2 and "exists already" in refused["err"]

    told = json.loads(client.run("pool", "discover", "lab/tiny-clip", "--format", "json", "--author", "you")["out"])
    assert {c["id"]: bool(c["refused"]) for c in told["candidates"]} == {
        "you/other": True,
        "you/tiny-clip_shade": False,
        "you/lora": False,
        "you/empty": True,
    }
    assert json.loads(
        client.run("pool", "discover", "lab/tiny-clip", "--search", "stripes", "--format", "json")["out"]
    )["candidates"][0]["bytes"] == len(hub.files("lab/tiny-clip_stripes")["model.safetensors"])


def test_a_published_pool(hub, client, clip_paths, tmp_path):
    recipe = hub_recipe(tmp_path, clip_paths, stripes=None)
    content = yaml.safe_load(recipe.read_text())
    content["tasks"]["shade"] |= {
        "templates": ["a {} thing."],
        "unlabelled": {"path": "lab/shade", "split": "train", "token": "hf_secret"},
    }
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    hub.repos["lab/tiny-clip_shade"].refs["v1"] = hub.head("lab/tiny-clip_shade")
    done = client.run("pool", "push", recipe, "me/pool", "--collection", "Tiny pool", token=hub.token)
    assert done["code"] == 0, done["err"]
    assert sorted(hub.files("me/pool")) == ["README.md", "mdft_pool.json"]
    hub.add("me/model", {"model.safetensors": b"mine", "heads/x.safetensors": b"mine"})
    assert client.run("pool", "push", recipe, "me/model", token=hub.token)["code"] == 0
    assert hub.files("me/model")["model.safetensors"] == b"mine", "a pool replaces no weights"
    manifest = json.loads(hub.files("me/pool")["mdft_pool.json"])
    assert manifest["pool"]["experts"]["stripes"] is None
    assert manifest["pool"]["experts"]["shade"]["revision"] == hub.head("lab/tiny-clip_shade")
    assert manifest["tasks"]["shade"]["templates"] == ["a {} thing."]
    assert "unlabelled" in manifest["tasks"]["shade"] and "unlabelled" not in manifest["tasks"]["colour"], "no paths"
    assert not any(b"hf_secret" in content for content in hub.files("me/pool").values())
    card = hub.files("me/pool")["README.md"].decode()
    assert 'from_pretrained("me/pool")' in card and "lab/tiny-clip_colour" in card and "- lab/shade\n" in card
    (collection,) = hub.collections.values()
    items = {item["id"]: item["note"]["text"] for item in collection["items"]}
    assert list(items) == ["me/pool", "lab/tiny-clip", "lab/tiny-clip_shade", "lab/tiny-clip_colour"]
    assert hub.head("lab/tiny-clip_shade") in items["lab/tiny-clip_shade"]
    assert client.run("pool", "push", recipe, "me/pool", "--collection", "Tiny pool", token=hub.token)["code"] == 0
    assert len(collection["items"]) == 4, "pushing again adds nothing"

    # Experts move on; the pool does not.
    moved = hub.add("lab/tiny-clip_shade", files_of(clip_paths["colour"]))
    assert client.run("pool", "push", recipe, "other", "--collection", "Tiny pool", token=hub.token)["code"] == 0
    notes = {item["id"]: item["note"]["text"] for item in collection["items"]}
    assert moved in notes["lab/tiny-clip_shade"] and "me/other" in notes, "notes are kept true"
    code = "from hf_mdft import ModelPool\npool = ModelPool.from_pretrained('me/pool')\n"
    assert client.python(code + "result = pool.reference()") == manifest["pool"]
    assert "lab/tiny-clip_colour" in client.run("pool", "inspect", "me/pool", "--dry-run")["out"]

    content["pool"] = "me/pool@main"
    for task in content["tasks"]:
        del content["tasks"][task]["class_names"]
    content["tasks"]["shade"]["unlabelled"] = content["tasks"]["colour"]["unlabelled"]
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done = client.run("run", "next.yaml", "--output-dir", "out")
    assert done["code"] == 0, done["err"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["pool"] == manifest["pool"]
    head = client.python(
        "from hf_mdft import load_head\nresult = load_head('out/specialists/colour/head.safetensors').class_names"
    )
    assert head == TASKS["colour"]


def test_a_published_pool_must_be_one(hub, client, clip_paths, tmp_path):
    recipe = hub_recipe(tmp_path, clip_paths, shade=str(clip_paths["shade"]))
    done = client.run("pool", "push", recipe, "me/pool", token=hub.token)
    assert done["code"] == 2 and "it cannot be part of a published pool" in done["err"] and "me/pool" not in hub.repos
    done = client.run("pool", "inspect", "lab/tiny-clip")
    assert done["code"] == 2 and "lab/tiny-clip: no mdft_pool.json" in done["err"]
    pinned = {"id": "lab/tiny-clip_shade", "revision": hub.head("lab/tiny-clip_shade")}
    base = {"id": "lab/tiny-clip", "revision": hub.head("lab/tiny-clip")}
    manifest = {"schema": 1, "tasks": {}, "pool": {"base": base}}
    for tasks, experts, message in [
        (["a"], {}, "'tasks' and 'experts' name different tasks"),
        (["../../x"], {"../../x": pinned}, "task name '../../x'"),
        (["a"], {"a": {**pinned, "id": "/etc"}}, "/etc (the expert of 'a') is no Hub repo at a commit"),
        (["a"], {"a": {**pinned, "id": "a/b/c"}}, "a/b/c (the expert of 'a') is no Hub repo at a commit"),
        (["a"], {"a": {**pinned, "id": 5}}, "expected 'id' and 'revision' of a model"),
        (["a"], {"a": {**pinned, "revision": "main"}}, "is no Hub repo at a commit"),
    ]:
        bad = {**manifest, "pool": {**manifest["pool"], "tasks": tasks, "experts": experts}}
        hub.add("you/bad", {"mdft_pool.json": json.dumps(bad).encode()})
        done = client.run("pool", "inspect", "you/bad")
        assert done["code"] == 2 and message in done["err"] and "Traceback" not in done["err"]


def test_a_published_pool_cannot_reach_out(hub, client):
    """A stranger's data sets go to `load_dataset`, so only data sets of the Hub may be named."""
    tasks = {
        "a": {"unlabelled": {"path": "pandas", "data_files": "https://evil/x.pkl"}, "class_names": ["x", "y"]},
        "b": {
            "unlabelled": {"path": "you/images", "split": "train", "cache_dir": "/", "token": "t"},
            "head": "/etc/x",
        },
    }
    pinned = {"id": "lab/tiny-clip_shade", "revision": hub.head("lab/tiny-clip_shade")}
    pool = {"base": {"id": "lab/tiny-clip", "revision": hub.head("lab/tiny-clip")}, "tasks": ["a", "b"]}
    content = {"schema": 1, "tasks": tasks, "pool": {**pool, "experts": {"a": pinned, "b": pinned}}}
    hub.add("you/pool", {"mdft_pool.json": json.dumps(content).encode()})
    code = "from hf_mdft import ModelPool\ntasks = ModelPool.from_pretrained('you/pool').descriptions\n"
    code += "result = {name: task.to_dict() for name, task in tasks.items()}"
    expected = {"a": {"class_names": ["x", "y"]}, "b": {"unlabelled": {"path": "you/images", "split": "train"}}}
    assert client.python(code) == expected


STRANGE = {
    "config": {"config.json": b'{"model_type": "clip_vision_model", "hidden_size": "16"}'},
    "kind": {"config.json": b'{"model_type": []}'},
    "labels": {"config.json": b'{"model_type": "clip_vision_model", "id2label": []}'},
    "header": {"model.safetensors": (7).to_bytes(8, "little") + b'{"a":1}'},
    "list": {"model.safetensors": (2).to_bytes(8, "little") + b"[]"},
    "card": {"README.md": b"---\ntags: 5\n5: x\nlicense: [a]\n---\n"},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_repo_is_no_accident(hub, client, clip_paths, tmp_path, name):
    files = files_of(clip_paths["shade"], "base_model: lab/tiny-clip")
    hub.add("you/strange", {**files, **STRANGE[name]})
    done = client.run("pool", "inspect", hub_recipe(tmp_path, clip_paths, shade="you/strange"), "--dry-run")
    assert "Traceback" not in done["err"]
    assert done["code"] == (0 if name == "card" else 2) and (name == "card" or "you/strange" in done["err"])
    found = client.run("pool", "discover", "lab/tiny-clip", "-v")
    assert found["code"] == 0 and "Traceback" not in found["err"], found["err"]


def test_a_changed_projection_is_told(clip_paths, tmp_path, caplog):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip_paths["base"])
    model.visual_projection.weight.data += 1
    model.save_pretrained(tmp_path)
    ModelPool.from_pretrained(clip_paths["base"], {"x": tmp_path, "y": clip_paths["shade"]}).vectors()
    assert [r.message.count("visual_projection.weight") for r in caplog.records if r.name.startswith("hf_mdft")] == [1]


def test_a_published_pool_with_several_experts(hub, client, clip_paths, tmp_path):
    recipe = hub_recipe(tmp_path, clip_paths)
    content = yaml.safe_load(recipe.read_text())
    content["pool"]["experts"]["shade"] = ["lab/tiny-clip_shade", "lab/tiny-clip_colour@main"]
    del content["pool"]["experts"]["colour"], content["tasks"]["colour"]
    content["teachers"] = {"shade": ["lab/big@v1"]}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    done = client.run("pool", "push", recipe, "me/several", token=hub.token)
    assert done["code"] == 0, done["err"]
    manifest = json.loads(hub.files("me/several")["mdft_pool.json"])
    assert [model["id"] for model in manifest["pool"]["experts"]["shade"]] == [
        "lab/tiny-clip_shade", "lab/tiny-clip_colour",
    ]  # fmt: skip
    assert manifest["pool"]["experts"]["stripes"]["id"] == "lab/tiny-clip_stripes"
    assert manifest["tasks"]["shade"]["teachers"] == ["lab/big@v1"]
    card = hub.files("me/several")["README.md"].decode()
    assert "lab/tiny-clip_shade/tree" in card and "lab/tiny-clip_colour/tree" in card
    code = "from hf_mdft import ModelPool\npool = ModelPool.from_pretrained('me/several')\n"
    assert client.python(code + "result = pool.reference()") == manifest["pool"]
    assert client.python(code + "result = list(pool.experts)") == ["shade/1", "shade/2", "stripes"]
