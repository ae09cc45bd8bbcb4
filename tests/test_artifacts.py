"""Finished results: folders that are opened again as what was written, and a run that removes nothing of others."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from conftest import TASKS, both_architectures, call, fit_arguments, specialize_arguments, write_recipe

from hf_mdft import InputError, MdftConfig, MetaMerger, ModelPool, Task
from hf_mdft.artifacts import FoldedMetaModel, MetaModel, PoolFolder, SpecialistModel, VisionTower, open_result
from hf_mdft.artifacts.layout import files_of, refuse_foreign, replace_folder, written_files
from hf_mdft.artifacts.provenance import continued, recipe_of
from hf_mdft.artifacts.run_folder import refuse_foreign_output
from hf_mdft.core.reference import ModelReference
from hf_mdft.core.scratch import remove_left_over
from hf_mdft.specialize import specialize_task


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
        content = json.loads((tmp_path / name / "mdft.json").read_text(encoding="utf-8"))
        assert sorted([*content["files"], "mdft.json"]) == files_of(tmp_path / name)
        assert set(written_files(tmp_path / name).values()) == {True}
    assert meta.facts == done.record.meta and meta.measured == done.record.measured
    assert meta.average == report.average and meta.seed == 0 and meta.pool_reference == done.pool.pinned()
    assert {task: found.class_names for task, found in meta.tasks.items()} == TASKS
    assert whole.facts == tower.facts == specialist.facts
    assert whole.measured == done.record.measured["colour"] and whole.measured.accuracy["expert"] <= 1
    assert str(tmp_path) not in "".join(
        (tmp_path / name / "mdft.json").read_text(encoding="utf-8") for name in kinds
    ), "no folders of this machine"


def test_a_meta_model_that_is_made_again_stays_a_trained_one(clip_pool, tasks, tmp_path):
    """Where a training ends before its first log line, its last checkpoint holds none."""
    for number in range(2):
        merger = MetaMerger(clip_pool, tasks)
        merger.fit(fit_arguments(tmp_path, max_steps=2, logging_steps=10))
        merger.save_pretrained(tmp_path / str(number))
    assert merger.record.meta.history == () and merger.record.meta.trained
    first, again = (str((tmp_path / str(number) / "README.md").read_text(encoding="utf-8")) for number in range(2))
    assert first == again and "**without one" in again and "static merge" not in again


def test_a_published_pool_is_a_result(tmp_path):
    commit = "b" * 40
    manifest = {
        "schema": 1,
        "pool": {"base": {"id": "a/b", "revision": commit}, "experts": {"x": None}, "tasks": ["x"]},
        "tasks": {"x": {"class_names": ["c", "d"]}},
    }
    (tmp_path / "mdft_pool.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = open_result(tmp_path)
    assert isinstance(found, PoolFolder) and found.pool.to_dict() == manifest
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
            (lambda c: c.update(kind=["x"]), "mdft.json is damaged"),
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


def test_a_recipe_takes_experts_of_another_base_where_its_maker_did(clip_paths):
    for given in (False, True):
        experts = {"shade": clip_paths["shade"]}
        pool = ModelPool.from_pretrained(clip_paths["base"], experts, allow_base_mismatch=given)
        recipe = recipe_of(pool, {}, {}, MdftConfig(pool=pool.reference()), seed=0)
        assert recipe["pool"].get("allow_base_mismatch", False) is given
        pinned = ModelPool.from_reference(pool.reference())
        again = recipe_of(pinned, {}, {}, MdftConfig(pool=pool.reference()), seed=0)
        assert continued(recipe, again, {})["pool"] == recipe["pool"], "models that are pinned are taken as they are"


@pytest.mark.parametrize("part", ["pool", "tasks"])
@pytest.mark.parametrize("value", [None, "me/pool", ["me/pool"]])
def test_a_recipe_of_somebody_else_may_hold_anything(part, value):
    now = {"pool": {"base": "b"}, "tasks": {"shade": {"head": "own"}}, "seed": 0}
    assert continued({part: value, "notes": "kept"}, now, {"shade": Task("images")}) == {**now, "notes": "kept"}
    odd = continued({"tasks": {"shade": value, "other": value}}, now, {"shade": Task("images")})
    assert odd["tasks"] == {**now["tasks"], "other": {}}


@both_architectures
def test_facts_are_values(done, tmp_path):
    """What was found after one phase stays as it was when the next one is over, and belongs to what it is of."""
    first, before = done.specialists["shade"], done.record.meta
    done.evaluate()
    measured = done.record.measured["shade"]
    second = done.specialize(specialize_arguments(tmp_path / "second", gate=False), ["shade"])["shade"]
    assert done.record.meta is not before and before.recipe["specialize"].get("gate") is True
    assert first.facts.meta is before and second.facts.meta is done.record.meta and second.improved
    for name, specialist, known in (("first", first, measured), ("second", second, None)):
        specialist.save_pretrained(tmp_path / name)
        found = open_result(tmp_path / name)
        assert found.measured == known, "figures are those of the specialist that was measured"
        assert found.facts.gate == specialist.decision
    assert "nothing was measured" in (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(AttributeError):
        before.tasks = ()


def test_a_specialist_without_a_run_around_it(clip_done, tmp_path):
    alone = specialize_task(
        "shade",
        clip_done.pool,
        clip_done.meta_tower(),
        clip_done.head("shade"),
        clip_done.unlabelled("shade"),
        specialize_arguments(tmp_path),
    )
    alone.save_pretrained(tmp_path / "alone")
    found = open_result(tmp_path / "alone")
    assert found.facts.gate == alone.decision and found.facts.class_names == tuple(TASKS["shade"])


def test_numbers_that_are_none_survive(clip_done, tmp_path):
    """A loss or a coefficient may be NaN: null in the manifest, a gap in the figure."""
    facts = clip_done.record.meta
    tensor, row = next(iter(facts.coefficients.items()))
    clip_done.record.meta = dataclasses.replace(
        facts,
        history=tuple({**line, "loss_entropy": float("nan")} for line in (*facts.history, *facts.history)),
        coefficients={**facts.coefficients, tensor: dict.fromkeys(row, float("nan"))},
        kept={"shade": {"entropy": float("nan")}},
    )
    clip_done.save_pretrained(tmp_path / "meta")
    found = open_result(tmp_path / "meta")
    assert set(found.facts.coefficients[tensor].values()) == {None} and found.facts.kept["shade"]["entropy"] is None
    found.load().write_folded(tmp_path / "folded")
    assert "| shade | - | - |" in (tmp_path / "folded" / "README.md").read_text(encoding="utf-8")


def test_one_form_replaces_the_other_and_leaves_what_is_not_its_own(clip_done, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    clip_done.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file() and "notes.txt" not in written_files(tmp_path)
    clip_done.save_pretrained(tmp_path, folded=True)
    assert not (tmp_path / "adapter_model.safetensors").exists() and (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    with pytest.raises(InputError, match="holds notes.txt"):
        refuse_foreign(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / ".DS_Store").touch()
    refuse_foreign(tmp_path)
    (tmp_path / "README.md").write_text("my own words", encoding="utf-8")
    with pytest.raises(InputError, match="README.md was changed since hf-mdft wrote it"):
        refuse_foreign(tmp_path)


@pytest.mark.parametrize("kind", [Path, str])
def test_a_head_of_a_file_travels_along(kind, clip_done, tmp_path):
    head = clip_done.head("shade")
    head.save(tmp_path / "h.safetensors")
    clip_done.tasks["shade"].head = kind(tmp_path / "h.safetensors")
    clip_done.save_pretrained(tmp_path / "meta")
    (tmp_path / "h.safetensors").unlink()
    again = MetaMerger.from_pretrained(tmp_path / "meta")
    assert again.head("shade").key() == head.key() and str(again.tasks["shade"].head).startswith(
        str(tmp_path / "meta")
    )


def test_a_rename_that_fails_keeps_the_old_result(tmp_path, monkeypatch):
    def write(folder):
        folder.mkdir()
        (folder / "a").touch()
        (folder / "mdft.json").write_text(json.dumps({"files": {"a": None}}), encoding="utf-8")

    target = tmp_path / "meta"
    replace_folder(target, write)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: _fail(a) if a.name == "new" else rename(a, b))
    with pytest.raises(InputError, match="cannot write the result"):
        replace_folder(target, write)
    assert files_of(tmp_path) == ["meta/a", "meta/mdft.json"]


def _fail(path):
    raise OSError(13, "Permission denied", str(path))


@pytest.mark.parametrize("name", ["base", "specialist", "weight_average", "specialist_round_1"])
def test_baselines_have_names_of_their_own(name, clip_done):
    with pytest.raises(InputError, match=f"baseline '{name}': every comparison has a model of that name"):
        clip_done.evaluate({name: clip_done.variant(fitted=True)})


def test_a_folder_with_other_content_is_never_removed(tmp_path):
    def write(folder, text="new"):
        folder.mkdir()
        (folder / "a").write_text(text, encoding="utf-8")
        (folder / "mdft.json").write_text(json.dumps({"files": {"a": None}}), encoding="utf-8")

    target = tmp_path / "out" / "meta"
    replace_folder(target, write)
    replace_folder(target, lambda folder: write(folder, "newer"))
    assert (target / "a").read_text(encoding="utf-8") == "newer" and files_of(tmp_path) == [
        "out/meta/a",
        "out/meta/mdft.json",
    ]
    (target / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"meta: holds notes.txt, which this hf-mdft has not written"):
        replace_folder(target, write)
    assert files_of(tmp_path) == ["out/meta/a", "out/meta/mdft.json", "out/meta/notes.txt"]
    for content in ("{}", "[]", "nothing"):
        (target / "mdft.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="this hf-mdft has not written"):
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
        pinned = [p.pinned().base if model == "base" else p.pinned().named()["shade"] for p in (first, second)]
        assert isinstance(pinned[0], ModelReference) and pinned[0] != pinned[1]
    assert second.identity("shade") != first.identity("shade") and second.identity() != first.identity()
    with pytest.raises(InputError, match="its weights or config changed since this pool was pinned"):
        ModelPool.from_reference(first.reference())


def test_a_kill_between_two_moves_loses_nothing(tmp_path, monkeypatch):
    def write(folder, text="new"):
        folder.mkdir()
        (folder / "a").write_text(text, encoding="utf-8")
        (folder / "mdft.json").write_text(json.dumps({"files": {"a": None}}), encoding="utf-8")

    target, rename = tmp_path / "meta", Path.rename
    replace_folder(target, lambda folder: write(folder, "old"))

    def killed(path, place):
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        replace_folder(target, write)
    remove_left_over(tmp_path)
    assert not target.exists() and [path.read_text() for path in tmp_path.rglob("a")] == ["old"]
    with pytest.raises(InputError, match="no space"):
        replace_folder(target, lambda _: _full())
    assert (target / "a").read_text() == "old", "it is back"
    replace_folder(target, write)
    assert files_of(tmp_path) == ["meta/a", "meta/mdft.json"] and (target / "a").read_text() == "new"


def _full():
    raise InputError("no space")


def test_words_of_somebody_are_not_written_over(clip_done, tmp_path):
    card = tmp_path / "README.md"
    card.write_text("my own words", encoding="utf-8")
    clip_done.save_pretrained(tmp_path)
    assert (tmp_path / "README.md.1").read_text(
        encoding="utf-8"
    ) == "my own words" and "# Meta-model" in card.read_text()
    clip_done.save_pretrained(tmp_path)
    card.write_text(card.read_text(encoding="utf-8") + "mine", encoding="utf-8")
    clip_done.save_pretrained(tmp_path)
    assert (tmp_path / "README.md.2").read_text(encoding="utf-8").endswith("mine")
    clip_done.model.save_pretrained(tmp_path)  # PEFT adds to the card
    clip_done.save_pretrained(tmp_path)
    assert "# Meta-model" in card.read_text(encoding="utf-8") and len(list(tmp_path.glob("README.md.*"))) <= 3
    with pytest.raises(InputError, match="cannot be made"):
        clip_done.save_pretrained(card)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f["versions"].update(python="[now](https://evil.example)"),
        lambda f: f["versions"].update(python="3 \\\\<img src=x>"),
        lambda f: f["pool"].update(teachers={"shade": [{"id": "x](https://evil.example)", "revision": "main"}]}),
        lambda f: f["pool"].update(teachers={"shade": [{"id": "lab/x", "revision": "main) [now](https://x.example"}]}),
        lambda f: f["pool"]["reference"].update(base={"id": 'x"); import os  #', "revision": "main"}),
    ],
)
def test_facts_of_others_are_no_markup(clip_done, tmp_path, change):
    clip_done.save_pretrained(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "mdft.json").read_text(encoding="utf-8"))
    change(content["facts"])
    (tmp_path / "a" / "mdft.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="is no name; make it again"):
        MetaMerger.from_pretrained(tmp_path / "a")


def test_a_card_names_the_pool_that_the_adapter_loads(clip_done, tmp_path):
    clip_done.save_pretrained(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "mdft.json").read_text(encoding="utf-8"))
    content["facts"]["pool"]["reference"]["base"] = {"id": "lab/other", "revision": "main"}
    (tmp_path / "a" / "mdft.json").write_text(json.dumps(content), encoding="utf-8")
    MetaMerger.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert "lab/other" not in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")


def test_another_adapter_is_not_saved_under_the_meta_models_figures(clip_done, tmp_path):
    clip_done.model.add_adapter("other", MdftConfig(pool=clip_done.pool, init_coefficient=0.0))
    clip_done.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "other").exists()
    clip_done.model.set_adapter("other")
    for folded in (False, True):
        with pytest.raises(InputError, match=r"adapter is 'default', active is other; call set_adapter\('default'\)"):
            clip_done.save_pretrained(tmp_path / "again", folded=folded)
    clip_done.model.set_adapter("default")
    clip_done.model.delete_adapter("other")
