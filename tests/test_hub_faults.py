"""A Hub that misbehaves: everything ends in success, or in one clear line, and nothing is half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import TASKS, files_of, hub_recipe


INSPECT = ("pool", "inspect", "recipe.yaml")
READING = {
    "info busy": (r"GET /api/models/lab/tiny-clip_shade", "status", {"status": 429, "headers": {"Retry-After": "30"}}),
    "info limited": (
        r"GET /api/models/lab/tiny-clip_shade",
        "status",
        {"status": 429, "headers": {"RateLimit": '"api";r=0;t=40'}},
    ),
    "info broken": (r"GET /api/models/lab/tiny-clip", "status", {"status": 500, "times": 3}),
    "info silent": (r"GET /api/models/lab/tiny-clip\b", "hang", {"seconds": 4}),
    "info lost": (r"GET /api/models/lab/tiny-clip", "lost", {"times": 2}),
    "config broken": (r"HEAD .*config.json", "status", {"status": 503, "times": 2}),
    "config cut": (r"GET .*tiny-clip_shade.*config.json", "cut", {}),
    "header busy": (
        r"GET .*model.safetensors",
        "status",
        {"status": 429, "headers": {"Retry-After": "7"}, "times": 2},
    ),
    "header broken": (r"GET .*model.safetensors", "status", {"status": 502, "times": 2}),
    "header cut": (r"GET /cdn/", "cut", {"times": 2}),
    "weights broken": (r"GET /cdn/\w+$", "status", {"status": 500, "times": 3}),
    "weights cut": (r"GET /cdn/\w+$", "cut", {"times": 2}),
    "slow": (r"GET /cdn/", "slow", {"seconds": 3, "times": 5}),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "slow" else n for n in READING])
def test_reading_goes_on(hub, client, clip_paths, tmp_path, name):
    hub_recipe(tmp_path, clip_paths)
    pattern, kind, options = READING[name]
    hub.misbehave(pattern, kind, **options)
    done = client.run(*INSPECT)
    assert done["code"] == 0, done["err"]
    assert all(fault.times == 0 for fault in hub.faults), "the fault was met"
    assert "cosines" in done["out"]
    if "Retry-After" in options.get("headers", {}):
        assert max(done["slept"]) >= int(options["headers"]["Retry-After"]), "waits as long as it is asked to"
    if "RateLimit" in options.get("headers", {}):
        assert max(done["slept"]) >= 40


def test_a_cut_download_goes_on_where_it_stopped(hub, client, clip_paths, tmp_path):
    hub_recipe(tmp_path, clip_paths)
    assert client.run(*INSPECT, "--dry-run")["code"] == 0
    hub.misbehave(r"GET /cdn/\w+$", "cut", times=2)
    hub.ranges.clear()
    chunk = "from huggingface_hub import constants as c\nresult, c.DOWNLOAD_CHUNK_SIZE = c.DOWNLOAD_CHUNK_SIZE, {}"
    usual = client.python(chunk.format(1000))  # real weights come in many chunks
    assert client.run(*INSPECT)["code"] == 0
    client.python(chunk.format(usual))
    starts = [start for start in hub.ranges if start]
    assert len(starts) == 2 and all(start > 1000 for start in starts), "only the rest is asked for again"


def test_a_moment_out_of_reach_gives_no_stale_pool(hub, client, clip_paths, tmp_path):
    hub_recipe(tmp_path, clip_paths)
    assert client.run(*INSPECT)["code"] == 0
    new = hub.add("lab/tiny-clip_shade", files_of(clip_paths["colour"]))
    hub.misbehave(r"GET /api/models/lab/tiny-clip_shade", "lost", times=2)
    assert new[:12] in client.run(*INSPECT)["out"]
    newer = hub.add("lab/tiny-clip_shade", files_of(clip_paths["stripes"]))
    hub.misbehave(r"GET /api/models/lab/tiny-clip_shade", "lost", times=FOREVER)
    done = client.run(*INSPECT)
    assert done["code"] == 0 and new[:12] in done["out"] and newer[:12] not in done["out"]
    assert "lab/tiny-clip_shade: the Hub cannot be reached; its last state in the local cache is used" in done["err"]


FOREVER = 1000
READING_FAILS = {
    "busy": ("status", {"status": 429}, "the Hub limits requests (429)"),
    "asks for an hour": (
        "status",
        {"status": 429, "headers": {"Retry-After": "3600"}},
        "the Hub limits requests",
    ),
    "broken": ("status", {"status": 500}, "the Hub is out of order (500)"),
    "lost": ("lost", {}, "the Hub cannot be reached"),
    "strange": ("status", {"status": 418}, "the Hub refused (out of order)"),
}


@pytest.mark.parametrize("name", READING_FAILS)
def test_reading_fails_in_one_line(hub, client, clip_paths, tmp_path, name):
    hub_recipe(tmp_path, clip_paths)
    kind, options, message = READING_FAILS[name]
    hub.misbehave(r"GET /api/models/lab/tiny-clip_shade", kind, **options, times=FOREVER)
    done = client.run(*INSPECT)
    lines = [line for line in done["err"].splitlines() if line.strip()]
    assert done["code"] == 2 and lines[-1].startswith("Error: lab/tiny-clip_shade") and message in lines[-1], done[
        "err"
    ]
    assert "Traceback" not in done["err"]
    hub.faults.clear()
    assert client.run(*INSPECT)["code"] == 0


def weight_blobs(client):
    code = """
import hashlib
from pathlib import Path
from huggingface_hub.constants import HF_HUB_CACHE
blobs = [p for p in Path(HF_HUB_CACHE).rglob("blobs/*") if len(p.name) == 64]
links = [p for p in Path(HF_HUB_CACHE).rglob("snapshots/*/model.safetensors")]
result = [all(hashlib.sha256(p.read_bytes()).hexdigest() == p.name for p in blobs), len(links)]
"""
    return client.python(code)


def test_a_wrong_checksum_is_noticed(hub, client, clip_paths, tmp_path):
    hub_recipe(tmp_path, clip_paths)
    assert client.run(*INSPECT, "--dry-run")["code"] == 0
    hub.misbehave(r"GET /cdn/\w+$", "corrupt")
    done = client.run(*INSPECT)
    assert done["code"] == 0 and weight_blobs(client) == [True, 4], "fetched again"
    assert (
        client.python("import shutil\nfrom huggingface_hub.constants import HF_HUB_CACHE\nshutil.rmtree(HF_HUB_CACHE)")
        is None
    )
    assert client.run(*INSPECT, "--dry-run")["code"] == 0
    hub.misbehave(r"GET /cdn/\w+$", "corrupt", times=FOREVER)
    done = client.run(*INSPECT)
    assert done["code"] == 2 and "model.safetensors does not match its checksum, twice" in done["err"]
    assert weight_blobs(client) == [True, 0], "nothing broken stays in the cache"
    hub.faults.clear()
    assert client.run(*INSPECT)["code"] == 0 and weight_blobs(client) == [True, 4]


PUSHING = {
    "create busy": (r"POST /api/repos/create", "status", {"status": 429, "headers": {"Retry-After": "9"}}),
    "create broken": (r"POST /api/repos/create", "status", {"status": 500, "times": 2}),
    "create lost": (r"POST /api/repos/create", "lost", {}),
    "preupload broken": (r"POST .*/preupload/", "status", {"status": 503, "times": 2}),
    "batch broken": (r"POST .*/lfs/objects/batch", "status", {"status": 500, "times": 2}),
    "upload busy": (r"PUT /lfs/", "status", {"status": 429, "headers": {"Retry-After": "5"}}),
    "upload lost": (r"PUT /lfs/", "lost", {}),
    "verify broken": (r"POST .*/verify", "status", {"status": 500}),
    "commit broken": (r"POST .*/commit/", "status", {"status": 500, "times": 2}),
    "commit busy": (r"POST .*/commit/", "status", {"status": 429, "headers": {"Retry-After": "3"}}),
    "commit lost": (r"POST .*/commit/", "lost", {}),
}


@pytest.mark.parametrize("name", PUSHING)
def test_pushing_goes_on(hub, client, results, name):  # noqa: F811
    pattern, kind, options = PUSHING[name]
    hub.misbehave(pattern, kind, **options)
    done = client.run("push", results / "specialists" / "shade", "me/shade", token=hub.token)
    assert done["code"] == 0, done["err"]
    assert all(fault.times == 0 for fault in hub.faults), "the fault was met"
    assert len(hub.repos["me/shade"].commits) == 1 and "model.safetensors" in hub.files("me/shade")
    if "Retry-After" in options.get("headers", {}):
        assert max(done["slept"]) >= int(options["headers"]["Retry-After"])


EARLY = [pytest.param(pattern, marks=pytest.mark.slow) for pattern in (r"POST .*/preupload/", r"PUT /lfs/")]


@pytest.mark.parametrize("pattern", [*EARLY, r"POST .*/commit/"])
def test_a_failed_push_leaves_the_repo_as_it_was(hub, client, results, pattern):  # noqa: F811
    push = ["push", results / "specialists" / "shade", "me/shade"]
    hub.misbehave(pattern, "status", status=500, times=FOREVER)
    done = client.run(*push, token=hub.token)
    assert done["code"] == 2 and "Traceback" not in done["err"], done["err"]
    (line,) = [line for line in done["err"].splitlines() if line.startswith("Error:")]
    assert "me/shade: the Hub is out of order" in line and "nothing was committed (the repo is new and empty)" in line
    assert hub.repos["me/shade"].commits == {}
    hub.faults.clear()
    hub.log.clear()
    assert client.run(*push, token=hub.token)["code"] == 0
    uploads = hub.asked("PUT /lfs/")
    assert "model.safetensors" in hub.files("me/shade")
    if "commit" in pattern:
        assert uploads == 0, "what was uploaded before is not sent again"

    before = hub.head("me/shade")
    hub.misbehave(pattern, "status", status=500, times=FOREVER)
    other = client.run("push", results / "specialists" / "colour", "me/shade", token=hub.token)
    assert other["code"] == 2 and "new and empty" not in other["err"]
    assert hub.head("me/shade") == before and set(hub.files("me/shade", before))


def test_a_pull_request_is_never_opened_twice(hub, client, results):  # noqa: F811
    assert client.run("push", results / "specialists" / "colour", "me/meta", token=hub.token)["code"] == 0
    hub.misbehave(r"POST .*/commit/", "lost", times=1)
    push = ["push", results / "specialists" / "shade", "me/meta", "--create-pr"]
    done = client.run(*push, token=hub.token)
    assert done["code"] == 2 and "me/meta" in done["err"] and "Traceback" not in done["err"], done["err"]
    assert [ref for ref in hub.repos["me/meta"].refs if ref.startswith("refs/pr")] == ["refs/pr/1"]


def test_discovery_leaves_out_what_cannot_be_read(hub, client):
    hub.misbehave(r"GET /api/models/lab/tiny-clip_shade", "status", status=500, times=FOREVER)
    hub.repos["lab/tiny-clip_colour"].gated = True
    done = client.run("pool", "discover", "lab/tiny-clip", "-v")
    assert done["code"] == 0 and "lab/tiny-clip_stripes" in done["out"] and "1 of 3 models fit" in done["err"]
    assert "Left out lab/tiny-clip_shade: the Hub is out of order" in done["err"]
    assert "Left out lab/tiny-clip_colour: gated repo" in done["err"]


def test_a_collection_is_completed(hub, client, clip_paths, tmp_path):
    hub_recipe(tmp_path, clip_paths)
    hub.misbehave(r"POST /api/collections/.*/items", "status", status=500, times=2)
    done = client.run("pool", "push", "recipe.yaml", "me/pool", "--collection", "Mine", token=hub.token)
    assert done["code"] == 0, done["err"]
    (collection,) = hub.collections.values()
    assert len(collection["items"]) == 2 + len(TASKS)


def test_faults_of_the_storage_behind_large_files(hub, client, clip_paths, tmp_path):
    """hf_xet, which moves large files on the Hub, tells of them as a plain RuntimeError."""
    hub_recipe(tmp_path, clip_paths)
    code = """
import huggingface_hub
from hf_mdft.hub import download
whole, calls = download.hf_hub_download, []
def broken(repo, name, **options):
    if name == "model.safetensors":
        calls.append(name)
        if len(calls) <= {times}:
            raise RuntimeError("Task error: CAS client error: connection reset")
    return whole(repo, name, **options)
download.hf_hub_download = broken
try:
    from hf_mdft import InputError, ModelPool
    ModelPool.from_pretrained("lab/tiny-clip", {{"shade": "lab/tiny-clip_shade"}}).fetch()
    result = "here"
except InputError as error:
    result = str(error)
finally:
    download.hf_hub_download = whole
"""
    assert "the transfer failed (Task error: CAS client error: connection reset)" in client.python(
        code.format(times=99)
    )
    assert client.python(code.format(times=2)) == "here"


FETCHED = """
import os
from pathlib import Path
from hf_mdft.hub import download
from hf_mdft.pool.source import ModelSource
download._LOOKED_UP.clear()
source = ModelSource.resolve('lab/tiny-clip')
source.fetch()
result = str(source.folder)
"""


FORGOTTEN = """
import os
from unittest import mock
with mock.patch.dict(os.environ, HF_MDFT_CACHE={cache!r}):
    names = dict()
    exec({code!r}, names)
"""


@pytest.mark.parametrize("asked", [True, False], ids=["asked before", "another program's"])
def test_a_cache_without_the_image_processor(hub, client, tmp_path, asked):
    """Out of reach, an expert's own may be missing from the cache: the base's is not taken silently."""
    folder = Path(client.python(FETCHED))
    away = {file: os.readlink(file) for file in folder.iterdir() if "processor" in file.name}
    assert away
    for file in away:
        file.unlink()
    hub.misbehave(r"GET /api/models/lab/tiny-clip\b", "lost", times=20)
    try:
        done = client._send(code=FETCHED if asked else FORGOTTEN.format(cache=str(tmp_path), code=FETCHED))
    finally:
        for file, target in away.items():
            file.symlink_to(target)
    said = "the local cache does not have preprocessor_config.json" if asked else "has no image processor of it"
    assert said in done["err"] and bool(done["code"]) == asked, done["err"]
