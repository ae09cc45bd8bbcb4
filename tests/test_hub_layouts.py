"""Repos as they are found on the Hub: conversion pull requests, and layouts that are no model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import files_of, hub_environment

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
