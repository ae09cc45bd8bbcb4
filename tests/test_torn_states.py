"""Whatever happens to a file of a stopped run or of the cache, the next run gives what an undisturbed one gives."""

from __future__ import annotations

import logging
import random
import shutil

import pytest
import torch
from conftest import fit_arguments, make_tasks, specialize_arguments
from safetensors.torch import load_file

from hf_mdft import InputError, MetaMerger
from hf_mdft.core.cache import prepared, remember, remembered
from hf_mdft.core.sealed import SEAL, damage, seal, whole
from hf_mdft.core.state_files import load_state, save_state
from hf_mdft.pool import manifest


DAMAGE = {
    "empty": lambda file, _: file.write_bytes(b""),
    "half": lambda file, _: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeroed": lambda file, _: file.write_bytes(bytes(file.stat().st_size)),
    "missing": lambda file, _: file.unlink(),
    "foreign": lambda file, chance: file.write_bytes(chance.randbytes(file.stat().st_size)),
    "one bit": lambda file, chance: file.write_bytes(flipped(file.read_bytes(), chance)),
    "a folder": lambda file, _: (file.unlink(), file.mkdir()),
}


def flipped(data, chance):
    place = chance.randrange(max(1, len(data)))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] if data else b"x"


def work(folder, pool, tasks):
    """Both phases in a folder, and everything that they give."""
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(folder, save_steps=1, save_total_limit=None))
    found = {name: p for name, p in merger.model.named_parameters() if p.requires_grad}
    assert found
    for task, made in merger.specialize(specialize_arguments(folder, save_steps=1, save_total_limit=None)).items():
        found |= {f"{task} {name}": tensor for name, tensor in load_file(made.candidate / "model.safetensors").items()}
        steps = [line for line in made.history if "loss" in line]  # the rest are seconds
        found[f"{task} gate"] = repr((made.decision, steps, made.trust))
    return found


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        equal = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert equal, name


@pytest.fixture(scope="module")
def undisturbed(clip_pool, unlabelled_data, test_data, tmp_path_factory):
    """A run's folder and cache, and what it gave."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MDFT_CACHE", str(folder / "cache"))
        patch.setattr(manifest, "_OPEN_VECTORS", {})
        tasks = {name: task for name, task in make_tasks(unlabelled_data, test_data).items() if name != "colour"}
        return folder, tasks, work(folder / "out", clip_pool, tasks)


@pytest.fixture
def again(undisturbed, clip_pool, tmp_path, monkeypatch):
    """The same run on a copy of its folders, after some of its files were damaged; gives the chosen files."""
    kept, tasks, expected = undisturbed
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(manifest, "_OPEN_VECTORS", {})
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)

    def run(kind, chance, chosen=lambda file: True):
        files = [f for f in sorted(tmp_path.rglob("*")) if f.is_file() and "damaged-" not in str(f) and chosen(f)]
        file = chance.choice(files)
        DAMAGE[kind](file, chance)
        same(work(tmp_path / "out", clip_pool, tasks), expected)
        return file

    return run


@pytest.mark.parametrize("seed", range(0, len(DAMAGE), 2))
def test_any_damaged_file(again, seed):
    chance = random.Random(seed)
    again(list(DAMAGE)[seed % len(DAMAGE)], chance)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_any_damaged_file_three_hundred_times(again, seed):
    chance = random.Random(1000 + seed)
    again(chance.choice(list(DAMAGE)), chance)


def test_a_lost_optimizer_is_no_fresh_one(again, caplog):
    """Results stay equal because the state before is taken, and a line says so."""
    with caplog.at_level(logging.WARNING):
        again("missing", random.Random(0), lambda f: f.match("meta/checkpoint-3/optimizer.safetensors"))
    (line,) = [r.message for r in caplog.records if "checkpoint" in r.message]
    assert "optimizer.safetensors is missing; set aside as damaged-checkpoint-3" in line


def test_checkpoints_hold_no_pickle(undisturbed):
    files = [file for file in (undisturbed[0] / "out").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".txt", ".key", ".md", ".lock"}
    assert not [file for file in files if b"PK\x03\x04" in file.read_bytes()[:4]]


def test_what_is_whole(tmp_path, caplog):
    folder = tmp_path / "state"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "a").write_text("a", encoding="utf-8")
    seal(folder)
    assert damage(folder) is None and whole(folder)
    (folder / "part" / "a").write_text("b", encoding="utf-8")
    assert damage(folder) == "part/a is damaged or foreign"
    (folder / SEAL).write_text("{}", encoding="utf-8")
    assert damage(folder) == "part/a is damaged or foreign"
    assert not whole(folder) and (tmp_path / "damaged-state" / SEAL).exists() and not folder.exists()
    folder.mkdir()
    assert not whole(folder) and not folder.exists() and "it was not finished; removed" in caplog.text


def test_remembered_values_are_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))
    remember("hashes", "a", "1")
    remember("hashes", "b", "2")
    assert remembered("hashes", "a") == "1" and remembered("hashes", "c") is None
    (tmp_path / "hashes" / "b").replace(tmp_path / "hashes" / "a")
    assert remembered("hashes", "a") is None, "another value's file"


def test_a_cache_that_was_changed_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))

    def make(folder):
        (folder / "value").write_text("right", encoding="utf-8")

    folder = prepared("things", "key", make)
    (folder / "value").write_text("wrong", encoding="utf-8")
    assert (prepared("things", "key", make) / "value").read_text(encoding="utf-8") == "right"


def test_state_comes_back_as_it_was(tmp_path):
    import numpy as np

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "python": random.getstate(), "numpy": np.random.get_state()}
    save_state(state, tmp_path / "state.safetensors")
    back = load_state(tmp_path / "state.safetensors")
    assert back["python"] == state["python"] and repr(back["optimizer"]) == repr(state["optimizer"])
    random.setstate(back["python"])
    np.random.set_state(back["numpy"])
    with pytest.raises(TypeError, match="Linear cannot be kept in a checkpoint"):
        save_state({"model": model}, tmp_path / "state.safetensors")


def test_foreign_checkpoints_are_refused(clip_pool, tasks, tmp_path):
    strange = tmp_path / "meta" / "checkpoint-500"
    strange.mkdir(parents=True)
    (strange / "optimizer.pt").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="checkpoint-500: not written by hf_mdft; move it away"):
        MetaMerger(clip_pool, tasks).fit(fit_arguments(tmp_path))
    assert (strange / "optimizer.pt").exists()
