"""Finished results: folders that are opened again as what was written, and a run that removes nothing of others."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import TASKS, call, specialize_arguments, write_recipe

from hf_mdft import InputError, MetaMerger, ModelPool
from hf_mdft.artifacts import FoldedMetaModel, MetaModel, PoolFolder, SpecialistModel, VisionTower, open_result
from hf_mdft.artifacts.layout import files_of, refuse_foreign, replace_folder
from hf_mdft.artifacts.run_folder import refuse_foreign_output
from hf_mdft.core.reference import ModelReference


def test_each_result_is_opened_as_what_was_written(done, tmp_path):
    report = done.evaluate()
    done.save_pretrained(tmp_path / "meta")
    done.save_pretrained(tmp_path / "folded", folded=True)
    specialist = done.specialists["colour"]
    specialist.save_pretrained(tmp_path / "colour")
    specialist.save_pretrained(tmp_path / "tower", vision_only=True)
    meta, whole, tower = (open_result(tmp_path / name) for name in ("meta", "colour", "tower"))
    kinds = {"meta": MetaModel, "folded": FoldedMetaModel, "colour": SpecialistModel, "tower": VisionTower}
    for name, kind in kinds.items():
        found = open_result(tmp_path / name)
        assert type(found) is kind and found.label in str(found)
        assert sorted([*found.content["files"], "mdft.json"]) == files_of(tmp_path / name)
    assert meta.facts == done.record.meta and meta.measured == done.record.measured
    assert meta.average == report.average and meta.seed == 0 and meta.pool_reference == done.pool.pinned()
    assert {task: found.class_names for task, found in meta.tasks.items()} == TASKS
    assert whole.facts == tower.facts == done.record.specialists["colour"]
    assert whole.measured == done.record.measured["colour"] and whole.measured.accuracy["expert"] <= 1
    assert str(tmp_path) not in "".join(
        (tmp_path / name / "mdft.json").read_text(encoding="utf-8") for name in kinds
    ), "no folders of this machine"


def test_a_published_pool_is_a_result(tmp_path):
    commit = "b" * 40
    manifest = {
        "schema": 1,
        "pool": {"base": {"id": "a/b", "revision": commit}, "experts": {"x": None}, "tasks": ["x"]},
        "tasks": {"x": {"class_names": ["c", "d"]}},
    }
    (tmp_path / "mdft_pool.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = open_result(tmp_path)
    assert isinstance(found, PoolFolder) and found.content == manifest
    with pytest.raises(InputError, match="a pool, not a meta-model"):
        MetaMerger.from_pretrained(tmp_path)


def test_damaged_results_are_one_line(clip_done, tmp_path):
    whole = tmp_path / "whole"
    clip_done.save_pretrained(whole)
    content = json.loads((whole / "mdft.json").read_text(encoding="utf-8"))
    for number, (change, message) in enumerate(
        [
            (lambda c: c.update(schema=1), "mdft.json has schema 1, this hf-mdft reads 2"),
            (lambda c: c.pop("schema"), "mdft.json has schema 1"),
            (lambda c: c.update(kind="cake"), r"mdft.json is damaged \(kind 'cake'\)"),
            (lambda c: c.update(facts=None), "facts: expected keys and values"),
            (lambda c: c["facts"].pop("pool"), "facts: 'pool' is missing"),
            (lambda c: c["facts"].update(history=5), "facts: history must be a list"),
            (lambda c: c.update(tasks={"shade": 5}), "tasks.shade"),
            (lambda c: c.update(seed="zero"), "seed must be a whole number"),
            (lambda c: c.update(measured={"shade": {"accuracy": {}}}), "measured.shade: 'images' is missing"),
        ]
    ):
        folder = shutil.copytree(whole, tmp_path / str(number))
        broken = json.loads(json.dumps(content))
        change(broken)
        (folder / "mdft.json").write_text(json.dumps(broken), encoding="utf-8")
        for use in (open_result, MetaMerger.from_pretrained):
            with pytest.raises(InputError, match=message) as caught:
                use(folder)
            assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    for text in ("", "[]", "{"):
        (whole / "mdft.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="mdft.json"):
            open_result(whole)


def test_facts_are_values(done, tmp_path):
    """What was found after one phase stays as it was when the next one is over."""
    before, specialists = done.record.meta, done.record.specialists
    done.evaluate()
    done.specialize(specialize_arguments(tmp_path), ["shade"])
    assert done.record.meta is not before and done.record.specialists is not specialists
    assert before.recipe["specialize"]["max_steps"] == 2 and set(specialists) == set(TASKS)
    with pytest.raises(AttributeError):
        before.tasks = ()


def test_a_folder_with_other_content_is_never_removed(tmp_path):
    def write(folder, text="new"):
        folder.mkdir()
        (folder / "a").write_text(text, encoding="utf-8")
        (folder / "mdft.json").write_text(json.dumps({"files": ["a"]}), encoding="utf-8")

    target = tmp_path / "out" / "meta"
    replace_folder(target, write)
    replace_folder(target, lambda folder: write(folder, "newer"))
    assert (target / "a").read_text(encoding="utf-8") == "newer" and files_of(tmp_path) == [
        "out/meta/a",
        "out/meta/mdft.json",
    ]
    (target / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"meta: holds notes.txt, which no run of hf_mdft has written"):
        replace_folder(target, write)
    assert files_of(tmp_path) == ["out/meta/a", "out/meta/mdft.json", "out/meta/notes.txt"]
    for content in ("{}", "[]", "nothing"):
        (target / "mdft.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="no run of hf_mdft"):
            refuse_foreign(target)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        refuse_foreign(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    refuse_foreign(tmp_path / "empty")
    refuse_foreign(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["meta/mine.txt", "specialists/colour/model.safetensors", "results.json", "report.html"]
)
def test_a_run_refuses_a_folder_of_others_before_it_trains(name, clip_paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hf_mdft.meta.MdftTrainer.train", lambda *_: pytest.fail("trained"))
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    code, _, error = call(
        ["run", write_recipe(tmp_path, clip_paths), "--output-dir", tmp_path / "out"], monkeypatch, capsys
    )
    assert code == 2 and len(error.strip().splitlines()) <= 2 and "out" in error, error
    assert mine.read_text(encoding="utf-8") == "mine" and files_of(tmp_path / "out") == [name]


def test_results_of_a_run_may_be_replaced(tmp_path, clip_done):
    report = clip_done.evaluate()
    report.save(tmp_path / "results.json")
    refuse_foreign_output(tmp_path, list(TASKS))


def test_a_corrected_config_is_another_model(clip_paths, tmp_path):
    """Nothing old comes back: not the pinned reference, not features or task vectors; labels change no function."""
    paths = {name: shutil.copytree(clip_paths[name], tmp_path / name) for name in ("base", "shade")}

    def pool():
        return ModelPool.from_pretrained(paths["base"], {"shade": paths["shade"]})

    def correct(model, **changes):
        file = paths[model] / "config.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        for part in [content, *([content["vision_config"]] if model == "base" else [])]:
            part.update({key: value for key, value in changes.items() if key in part or key == "id2label"})
        file.write_text(json.dumps(content), encoding="utf-8")

    first = pool()
    correct("shade", id2label={"0": "cat"}, transformers_version="9", architectures=["Renamed"])
    assert pool().reference() == first.reference() and pool().identity("shade") == first.identity("shade")
    correct("base", hidden_act="gelu")
    correct("shade", hidden_act="gelu")
    second = pool()
    for model in ("base", "shade"):
        pinned = [p.pinned().base if model == "base" else p.pinned().experts["shade"] for p in (first, second)]
        assert isinstance(pinned[0], ModelReference) and pinned[0] != pinned[1]
    assert second.identity("shade") != first.identity("shade") and second.identity() != first.identity()
    with pytest.raises(InputError, match="its weights or config changed since this pool was pinned"):
        ModelPool.from_reference(first.reference())
