"""Repos as they are found on the Hub: conversion pull requests, and layouts that are no model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import files_of, hub_environment
from hub_listings import EVERYWHERE, LISTINGS
from test_classifiers import save_pool
from test_lora import adapted
from transformers import AutoModelForImageClassification, CLIPVisionModel

from hf_mdft.hub.conversion import AUTHOR, TITLE
from hf_mdft.pool.layout import advice


RESOLVE = """
from hf_mdft.pool.source import ModelSource
source = ModelSource.resolve({spec!r})
source.fetch()
result = [source.reference.revision, sorted(source.weights)]
"""


def resolve(client, spec):
    return client._send(code=RESOLVE.format(spec=spec), environment={})


@pytest.fixture
def pickled(hub, clip_paths):
    """A repo whose weights are in another format, and the files of a conversion."""
    files = files_of(clip_paths["base"])
    weights = {"model.safetensors": files.pop("model.safetensors")}
    hub.add("lab/old-clip", {**files, "pytorch_model.bin": b"pickle"})
    return weights


def test_weights_of_the_conversion_request(hub, client, pickled, hub_session):
    for number in range(3):  # several pages
        hub.open_request("lab/old-clip", pickled, f"Update {number}", "someone")
    ref, commit = hub.open_request("lab/old-clip", pickled, TITLE, AUTHOR)
    done = resolve(client, "lab/old-clip")
    assert done["result"] == [commit, ["model.safetensors"]]
    said = [line for line in done["err"].splitlines() if "conversion" in line]
    assert len(said) == 1 and ref in said[0] and commit[:12] in said[0]
    assert client.python(RESOLVE.format(spec=f"lab/old-clip@{commit}"))[0] == commit, "pools that pin it find it"
    _, _, home, address = hub_session
    offline = {**hub_environment(address, home), "HF_HUB_OFFLINE": "1"}
    code = RESOLVE.format(spec="lab/old-clip") + "print(result)"
    again = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert commit in again.stdout, again.stderr


@pytest.mark.parametrize("wrong", ["author", "title", "closed", "parent"])
def test_other_requests_are_not_taken(hub, client, pickled, wrong):
    old = hub.head("lab/old-clip")
    if wrong == "parent":
        hub.add("lab/old-clip", {**hub.files("lab/old-clip"), "config.json": hub.files("lab/old-clip")["config.json"]
                                 + b"\n"})  # fmt: skip
    hub.open_request(
        "lab/old-clip",
        pickled,
        f"{TITLE}!" if wrong == "title" else TITLE,
        "stranger" if wrong == "author" else AUTHOR,
        old if wrong == "parent" else None,
        "closed" if wrong == "closed" else "open",
    )
    error = resolve(client, "lab/old-clip")["err"]
    assert "lab/old-clip: no safetensors, only pytorch_model.bin" in error
    assert "hf-mdft pool convert lab/old-clip FOLDER" in error
    assert ("lab/old-clip@refs/pr/1" in error) == (wrong == "parent"), "an older one is named, not taken"


def test_a_pool_of_a_converted_base(hub, client, pickled, clip_paths, tmp_path):
    hub.open_request("lab/old-clip", pickled, TITLE, AUTHOR)
    code = "from hf_mdft import ModelPool\n"
    code += "pool = ModelPool.from_pretrained('lab/old-clip', {'shade': 'lab/tiny-clip_shade'})\n"
    code += "result = [pool.reference()['base'], sum(t.double().sum().item() for _, t in pool.weights(None).items())]"
    reference, total = client.python(code)
    assert reference == {"id": "lab/old-clip", "revision": hub.head("lab/old-clip", "refs/pr/1")}
    plain = client.python(code.replace("lab/old-clip", "lab/tiny-clip"))
    assert total == plain[1]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.json", "pytorch_model.bin"], "no safetensors, only pytorch_model.bin"),
        (["open_clip_config.json", "open_clip_pytorch_model.bin"], "an open_clip model; 'hf-mdft pool convert x"),
        (["adapter_config.json", "adapter_model.safetensors"], "a PEFT adapter, not a model; 'hf-mdft pool convert"),
        (["config.json", "rng_state.pth", "training_args.bin"], "no model.safetensors"),
        (["config.json", "pytorch_model.bin", "open_clip_config.json"], "no safetensors, only pytorch_model.bin"),
        (["config.json", "model.fp16.safetensors"], "only as a variant (model.fp16.safetensors)"),
        (["config.json", "checkpoint-5", "checkpoint-10", "training_args.bin"], "a checkpoint, as checkpoint-10"),
        (["checkpoint-5/config.json", "checkpoint-5/model.safetensors"], "a checkpoint, as checkpoint-5"),
        (["weights.pt"], "no config.json, only weights.pt"),
        (["config.json", "tf_model.h5"], "only tf_model.h5"),
        (["config.json", "README.md"], "no model.safetensors"),
    ],
)
def test_what_is_no_model_is_told_apart(names, said):
    assert said in advice(names, "x") and "\n" not in advice(names, "x")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, clip_paths, vit_paths, siglip_pool):
    """Folder of a tiny model of every kind in the listings."""
    root = tmp_path_factory.mktemp("tiny")
    found = {"clip": clip_paths["base"], "clip tower": clip_paths["shade"], "vit": vit_paths["base"]}
    found["siglip"], found["open_clip"] = siglip_pool.base.folder, clip_paths["base"]
    for kind, name in (
        ("deit", "DeiTForImageClassification"),
        ("swin", "SwinForImageClassification"),
        ("dinov2", "Dinov2ForImageClassification"),
        ("convnext", "ConvNextForImageClassification"),
        ("resnet", "ResNetForImageClassification"),
    ):
        save_pool(root / kind, kind, name)
        found[kind] = root / kind / "base"
    adapted(CLIPVisionModel.from_pretrained(found["clip"]), root / "clip lora")
    model = AutoModelForImageClassification.from_pretrained(found["dinov2"])
    adapted(model, root / "dinov2 lora", target_modules=["q_proj"], modules_to_save=["classifier"])
    found |= {kind: root / kind for kind in ("clip lora", "dinov2 lora")}
    (root / "timm").mkdir()
    (root / "timm" / "config.json").write_text('{"architecture": "resnet50", "num_classes": 3, "pretrained_cfg": {}}')
    return {**found, "timm": root / "timm"}


def served(hub, repo, tiny):
    """A repo with the files of its listing: those of a tiny model where it has them, else bytes."""
    listing = LISTINGS[repo]
    own = files_of(tiny[listing.kind])
    if listing.kind.endswith("lora"):  # trained on the base of the Hub
        base = {"clip lora": "openai/clip-vit-base-patch16", "dinov2 lora": "facebook/dinov2-base"}[listing.kind]
        config = {**json.loads(own["adapter_config.json"]), "base_model_name_or_path": base}
        own["adapter_config.json"] = json.dumps(config).encode()
    own.setdefault("preprocessor_config.json", files_of(tiny["vit"])["preprocessor_config.json"])
    other = {name: b"{}" if name.endswith(".json") else b"other" for name in (*EVERYWHERE, *listing.files)}
    hub.add(repo, {name: own.get(name, content) for name, content in other.items()})
    if listing.request:
        hub.open_request(repo, {name: own[name] for name in listing.request}, TITLE, AUTHOR)
    return listing


RESOLVE_ANY = """
from hf_mdft.core.errors import InputError
from hf_mdft.pool.source import ModelSource
result = {{}}
for name in {names!r}:
    try:
        source = ModelSource.resolve(name, adapters=True)
        source.fetch()
        result[name] = sorted(source.weights), source.reference.revision, source.is_adapter
    except InputError as error:
        result[name] = str(error)
"""


def test_listings(hub, client, tiny):
    listings = {repo: served(hub, repo, tiny) for repo in LISTINGS}
    result = client.python(RESOLVE_ANY.format(names=list(listings)))
    for repo, listing in listings.items():
        found = result[repo]
        if not listing.weights:
            assert listing.said in found
            continue
        weights, revision, is_adapter = found
        assert tuple(weights) == listing.weights and is_adapter is listing.kind.endswith("lora"), repo
        assert revision == hub.head(repo, "refs/pr/1" if listing.request else "main"), repo


POOLS = {
    "openai/clip-vit-base-patch32": "tanganke/clip-vit-base-patch32_mnist",
    "openai/clip-vit-base-patch16": "tanganke/clip-vit-base-patch16_mnist_lora-16",
    "facebook/dinov2-base": "namrahrehman/dinov2-base-finetuned-lora-rank8",
}
"""Bases and experts of one pool."""


@pytest.mark.parametrize(("base", "expert"), POOLS.items())
def test_pools_of_listings(hub, client, tiny, base, expert):
    for repo in (base, expert):
        served(hub, repo, tiny)
    code = "from hf_mdft import ModelPool\nfrom hf_mdft.pool.parity import parity\n"
    code += f"pool = ModelPool.from_pretrained({base!r}, {{'x': {expert!r}}})\n"
    code += "result = max(parity(pool).values()), len(parity(pool)), len(pool.vectors().names())"
    difference, models, tensors = client.python(code)
    assert difference < 1e-4 and models == 2 and tensors > 10


def test_docs_name_only_models_of_listings():
    """Whoever follows them must find what they name."""
    root, named = Path(__file__).parent.parent, set()
    for path in [root / "README.md", *root.glob("docs/*.md"), *root.glob("examples/*.*")]:
        named |= set(re.findall(r"\b(?:openai|tanganke|laion|timm)/[\w.-]*\d\w*", path.read_text(encoding="utf-8")))
    families = {repo.split("_")[0] for repo in LISTINGS} | {"tanganke/clip-vit-large-patch14"}
    assert named and {repo.split("_")[0] for repo in named} <= families
