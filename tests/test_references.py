"""Values that travel: references to models, pools and data sets, and the written form of a task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_mdft import InputError, Task
from hf_mdft.core.data_reference import DataReference
from hf_mdft.core.json_files import plain, read_json, write_json
from hf_mdft.core.reference import ModelReference, PoolReference


COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("spec", "revision", "expected"),
    [
        ("lab/clip", None, ("lab/clip", None)),
        ("lab/clip@v1", None, ("lab/clip", "v1")),
        ("lab/clip@refs/pr/3", None, ("lab/clip", "refs/pr/3")),
        ("lab/clip@v1", "v2", ("lab/clip", "v2")),
        ("gpt2", "main", ("gpt2", "main")),
    ],
)
def test_a_model_on_the_hub(spec, revision, expected):
    found = ModelReference.parse(spec, revision)
    assert (found.id, found.revision) == expected and not found.is_local and found.name == found.id
    assert ModelReference.parse(found) == found and ModelReference.parse(found.spec) == found


def test_a_model_in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "odd@name").mkdir()
    monkeypatch.chdir(tmp_path)
    for spec in ("odd@name", Path("odd@name"), tmp_path / "odd@name"):
        found = ModelReference.parse(spec)
        assert found.id == str(tmp_path / "odd@name") and found.is_local
    assert found.name == "odd@name" and found.spec == found.id and found.shown().id == "odd@name"
    for missing in ("./nowhere", "~/nowhere-at-all", "/nowhere"):
        with pytest.raises(InputError, match="no such folder"):
            ModelReference.parse(missing)


@pytest.mark.parametrize("identity", ["/home/me/model", "C:\\models\\mine", "model"])
def test_local_means_one_thing(identity):
    """A folder of any system, or anything that is pinned by content."""
    found = ModelReference(identity, "sha256:" + "c" * 64)
    assert found.is_local and found.shown().is_local and found.name in ("model", "mine")
    assert not found.is_commit and ModelReference("lab/x", COMMIT).is_commit


def test_a_pools_reference_keeps_its_order_and_is_checked():
    pool = PoolReference(
        ModelReference("/home/me/base", "sha256:0"),
        {"z": ModelReference("lab/z", COMMIT), "base": ModelReference("lab/b", COMMIT), "none": None},
    )
    assert PoolReference.from_dict(json.loads(json.dumps(pool.to_dict(), sort_keys=True)), "x") == pool
    assert list(PoolReference.from_dict(pool.to_dict(), "x").experts) == ["z", "base", "none"]
    assert pool.local() == ["the base"], "a task called base hides no local base"
    hidden = PoolReference(pool.base, {"the base": ModelReference("/home/me/expert", "sha256:1")})
    assert hidden.local() == ["the expert of 'the base'", "the base"], "nor does one called that hide its expert"
    assert "/home" not in str(pool.shown())
    moved = PoolReference(ModelReference("/elsewhere/b", "sha256:0"), {**pool.experts, "none": pool.experts["z"]})
    assert pool.differences(pool) == [] and pool.differences(moved) == ["the expert of 'none'"]
    assert not ModelReference("lab/z").is_same(pool.base) and pool.base.is_same(moved.base)
    for broken in (None, {}, {"base": {"id": "a"}, "experts": {}}, {**pool.to_dict(), "tasks": ["z"]}):
        with pytest.raises(InputError, match=r"^file: pool"):
            PoolReference.from_dict(broken, "file: pool")


SECRET = {
    "path": "parquet",
    "data_files": {"train": ["/home/me/a.parquet", "https://user:pass@host/b.parquet?sig=key#x", "C:\\me\\c.parquet"]},
    "token": "hf_secret",
    "storage_options": {"key": "s3"},
    "cache_dir": "/home/me/cache",
    "split": "train",
}


def test_data_leave_this_machine_without_folders_and_secrets(tmp_path, monkeypatch):
    shown = DataReference.of(SECRET)
    assert shown.to_dict() == {
        "path": "parquet",
        "split": "train",
        "data_files": {"train": ["a.parquet", "https://host/b.parquet", "c.parquet"]},
    }
    assert not shown.on_hub and DataReference.of({"path": "lab/images"}).on_hub
    assert not DataReference.of({"path": "lab/images", "data_files": "x.parquet"}).on_hub
    (tmp_path / "lab" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    local = DataReference.of({"path": "lab/images", "split": "test"})
    assert not local.on_hub and local.path == "images", "a folder comes before a repo"
    assert DataReference.of([1, 2, 3]).to_dict() == "3 images in memory"
    for reference in (shown, DataReference(count=3), DataReference("lab/images", split="test")):
        assert DataReference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference
    assert DataReference.of(None) is None and DataReference.from_dict("anything") is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("file:///home/me/x.parquet", "x.parquet"),
        ("zip://*.jpg::/home/me/x.zip", "zip://*.jpg::x.zip"),
        ("~/private/x.csv", "x.csv"),
        ("s3://KEY:sec/ret@bucket/x", "s3://bucket/x"),
        ("https://u:p@ss@host/x?sig=1", "https://host/x"),
        ("hf://datasets/lab/x@v1/a.parquet", "hf://datasets/lab/x@v1/a.parquet"),
        ("a/b.parquet", "a/b.parquet"),
    ],
)
def test_addresses_lose_what_is_private(address, shown):
    assert DataReference.of({"path": "parquet", "data_files": address}).data_files == shown


def test_a_task_is_read_and_written_in_one_form(tmp_path):
    (tmp_path / "a.parquet").touch()
    options = {
        "unlabelled": {"path": "parquet", "data_files": "a.parquet", "split": "train"},
        "evaluation": {"path": "lab/images", "split": "test"},
        "class_names": [0, 1],
        "templates": ["a {}."],
        "head": "zero_shot",
        "image_column": "photo",
    }
    task = Task.from_dict(options, "recipe", folder=tmp_path)
    assert task.unlabelled["data_files"] == str(tmp_path / "a.parquet") and task.class_names == ["0", "1"]
    written = task.to_dict()
    assert written == {**options, "class_names": ["0", "1"]} and str(tmp_path) not in json.dumps(written)
    assert Task.from_dict(written, "recipe", folder=tmp_path) == task
    assert Task.from_dict({"templates": ["b {}."]}, "x", defaults=task).class_names == ["0", "1"]
    assert Task(None).to_dict() == {} and Task(None).to_dict(["a", "b"]) == {"class_names": ["a", "b"]}


def test_somebody_elses_task_reads_nothing_of_this_machine(tmp_path):
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "x.safetensors").touch()
    options = {
        "unlabelled": {"path": "pandas", "data_files": "https://evil/x.pkl"},
        "evaluation": {
            "path": "lab/images",
            "split": "test",
            "cache_dir": "/",
            "token": "t",
            "trust_remote_code": True,
        },
        "head": "heads/x.safetensors",
        "unknown": 1,
    }
    task = Task.from_dict(options, "pool", folder=tmp_path, foreign=True)
    assert task.unlabelled is None and task.evaluation == {"path": "lab/images", "split": "test"}
    assert task.head == str(tmp_path / "heads" / "x.safetensors")
    for head in ("../x.safetensors", "/etc/x.safetensors", "x.bin", ["zero_shot"], 5):
        assert Task.from_dict({"head": head}, "pool", folder=tmp_path / "heads", foreign=True).head is None
    assert Task.from_dict({"head": "heads/x.safetensors"}, "pool", foreign=True).head is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "recipe: expected keys and values, got list"),
        ({"unlabeled": {}}, "recipe: unknown key 'unlabeled': did you mean 'unlabelled'?"),
        ({"unlabelled": {"split": "train"}}, "recipe.unlabelled: 'path' is missing"),
        ({"unlabelled": 5}, "recipe.unlabelled: expected keys and values, got int"),
        ({"class_names": ["one"]}, "class_names must list at least two names"),
        ({"templates": 5}, "templates must be a list or the name of a set, got 5"),
        ({"image_column": 5}, "image_column must be the name of a column, got 5"),
    ],
)
def test_a_bad_task_is_one_line(options, message):
    with pytest.raises(InputError) as caught:
        Task.from_dict(options, "recipe")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_json_is_valid_whatever_was_measured(tmp_path):
    write_json(tmp_path / "x.json", {"loss": float("nan"), "path": tmp_path, "ü": [float("inf"), 1.5, True]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {
        "loss": None,
        "path": str(tmp_path),
        "ü": [None, 1.5, True],
    }
    assert plain(ModelReference("a")) == {"id": "a"}
    for content in ("", "{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"^out: bad.json is damaged"):
            read_json(tmp_path / "bad.json", "out")
