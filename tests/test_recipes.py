"""Recipes and presets: one clear line for bad input, published methods as fragments."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from conftest import TASKS, call, edited, write_recipe

from hf_mdft import InputError, MdftTrainingArguments, Recipe, SpecializeArguments, Task
from hf_mdft.artifacts.run_folder import refuse_inputs_within
from hf_mdft.meta import MdftTrainer
from hf_mdft.recipes import presets, renamed, schema
from hf_mdft.recipes.options import ADAPTER_OPTIONS, KINDS
from hf_mdft.recipes.preflight import check_options
from hf_mdft.recipes.presets import Preset, names, preset
from hf_mdft.recipes.yaml_files import read_yaml
from hf_mdft.tasks.task import resolve_path
from hf_mdft.transforms import TRANSFORMS


BAD = {
    "unknown key": (lambda c: c.update(metta={}), "unknown key 'metta': did you mean 'meta'"),
    "unknown option": (lambda c: c["meta"].update(learning_rat=1), "meta: unknown key 'learning_rat': did you mean 'learning_rate'"),
    "unknown task key": (lambda c: c["tasks"]["shade"].update(image_colum="x"), "tasks.shade: unknown key 'image_colum'"),
    "no pool": (lambda c: c.pop("pool"), "'pool' is missing"),
    "no base": (lambda c: c["pool"].pop("base"), "pool.base is missing"),
    "task not in pool": (lambda c: c["pool"]["experts"].pop("shade"), "task 'shade' is not under pool.experts"),
    "no unlabelled": (lambda c: c["tasks"]["shade"].pop("unlabelled"), "tasks.shade: 'unlabelled' is missing"),
    "no path": (lambda c: c["tasks"]["shade"]["unlabelled"].pop("path"), "tasks.shade.unlabelled: 'path' is missing"),
    "missing data": (lambda c: c["tasks"]["shade"]["unlabelled"].update(data_files="none.parquet"), "cannot load"),
    "missing expert": (lambda c: c["pool"]["experts"].update(shade="./none"), "none: no such folder"),
    "no number": (lambda c: c["meta"].update(learning_rate="fast"), "meta: learning_rate must be a number, got 'fast'"),
    "no integer": (lambda c: c["meta"].update(images_per_task="many"), "meta: images_per_task must be a whole number, got 'many'"),
    "half a step": (lambda c: c["meta"].update(gradient_accumulation_steps=2.5), "meta: gradient_accumulation_steps must be a whole number, got 2.5"),
    "switch is text": (lambda c: c["specialize"].update(gate="false"), "specialize: gate must be true or false, got 'false'"),
    "switch is a number": (lambda c: c["meta"].update(train_heads=1), "meta: train_heads must be true or false, got 1"),
    "no term": (lambda c: c["meta"].update({f"{t}_weight": 0 for t in ("distillation", "entropy", "prior")}), "meta: every term has weight 0"),
    "no term of the student": (lambda c: c["specialize"].update({f"{t}_weight": 0 for t in ("distillation", "infomax")}), "specialize: every term of the student's outputs has weight 0"),
    "negative term": (lambda c: c["specialize"].update(terms={"entropy": -1.0}), "terms: the weight of 'entropy' must be a number of at least 0"),
    "a task twice": (lambda c: c["tasks"].update({1: {}, "1": {}}), "tasks: '1' is there twice, as a number and in quotes"),
    "epochs": (lambda c: c["meta"].update(num_train_epochs=1), "meta: num_train_epochs counts where max_steps is -1 alone"),
    "rounds are text": (lambda c: c["specialize"].update(rounds="two"), "specialize: rounds must be a whole number, got 'two'"),
    "filter is a number": (lambda c: c["meta"].update(filter=3), "meta: filter must be text or keys and values, got 3"),
    "range is a number": (lambda c: c["meta"].update(coefficient_range=1), "meta: coefficient_range must be a list, got 1"),
    "start is text": (lambda c: c.update(adapter={"init_coefficient": "x"}), "adapter: init_coefficient must be a number, got 'x'"),
    "former phase-1 option": (lambda c: c["meta"].update(anchor_weight=1), "recipe.yaml: meta: 'anchor_weight' is now called 'distillation_weight'"),
    "former phase-2 option": (lambda c: c["specialize"].update(shots=8), "recipe.yaml: specialize: 'shots' is now called 'images'"),
    "former transform": (lambda c: c.update(adapter={"transform": "quantise"}), "adapter: transform 'quantise' is now called 'quantize'"),
    "former transform within": (lambda c: c.update(adapter={"transform": {"name": "lines", "of": {"name": "quantise"}}}), "is now called 'quantize'"),
    "bad value": (lambda c: c["specialize"].update(rounds=-1), "specialize: rounds must be at least 0"),
    "bad granularity": (lambda c: c.update(adapter={"granularity": "tensr"}), "recipe.yaml: adapter: unknown granularity 'tensr': did you mean 'tensor'"),
    "bad filter": (lambda c: c["meta"].update(filter="eta"), "unknown filter 'eta': did you mean 'eata'"),
    "wrong class count": (lambda c: c["tasks"]["shade"].update(class_names=["a", "b"]), "3 labels and 2 classes: say with label_names"),
    "one class": (lambda c: c["tasks"]["shade"].update(class_names=["a"]), "at least two names"),
    "wrong column": (lambda c: c["tasks"]["shade"].update(image_column="picture"), "no column 'picture'"),
    "bad density": (lambda c: c.update(adapter={"transform": {"name": "trim", "density": "x"}}), "recipe.yaml: adapter: "),
    "transform list": (lambda c: c.update(adapter={"transform": ["trim"]}), "recipe.yaml: adapter: "),
    "templates number": (lambda c: c["tasks"]["shade"].update(templates=5), "templates must be a list"),
    "half an image": (lambda c: c["meta"].update(images_per_task=2.5), "must be a whole number"),
    "pool is text": (lambda c: c.update(pool="me/pool"), "me/pool: no such folder here, not in the local cache"),
    "seed is text": (lambda c: c.update(seed="x"), "seed must be a whole number"),
    "seed is a switch": (lambda c: c.update(seed=True), "recipe.yaml: seed must be a whole number, got True"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes_end_in_one_line(name, clip_paths, tmp_path, monkeypatch, capsys):
    change, message = BAD[name]
    recipe = edited(write_recipe(tmp_path, clip_paths), change)
    command = "evaluate" if name == "wrong class count" else "run"
    options = [] if command == "evaluate" else ["--output-dir", tmp_path / "out"]
    code, out, err = call([command, recipe, *options], monkeypatch, capsys)
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0] and not out
    assert not (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "meta").exists()


def test_unreadable_recipes(tmp_path, monkeypatch, capsys):
    code, _, err = call(["run", tmp_path / "none.yaml"], monkeypatch, capsys)
    assert code == 2 and "none.yaml: no such file; give a recipe" in err
    (tmp_path / "bad.yaml").write_text("pool: {base: [", encoding="utf-8")
    code, _, err = call(["run", tmp_path / "bad.yaml"], monkeypatch, capsys)
    assert code == 2 and "bad.yaml, line 1: no valid YAML" in err
    (tmp_path / "list.yaml").write_text("- a", encoding="utf-8")
    code, _, err = call(["run", tmp_path / "list.yaml"], monkeypatch, capsys)
    assert code == 2 and "expected keys and values, got list" in err


def test_paths_are_relative_to_the_recipe(clip_paths, tmp_path):
    shutil.copytree(clip_paths["base"], tmp_path / "models" / "base")
    shutil.copytree(clip_paths["shade"], tmp_path / "models" / "shade")
    (tmp_path / "recipes").mkdir()
    recipe = write_recipe(tmp_path / "recipes", clip_paths)
    pool = {
        "base": "../models/base",
        "experts": {"shade": "../models/shade", "colour": "owner/name@v1", "stripes": None},
    }
    loaded = Recipe.load(edited(recipe, lambda c: c.update(pool=pool)))
    assert loaded.base == str((tmp_path / "models" / "base").resolve())
    assert loaded.experts == {
        "shade": [str((tmp_path / "models" / "shade").resolve())], "colour": ["owner/name@v1"], "stripes": [],
    }  # fmt: skip
    file = loaded.tasks["shade"].unlabelled["data_files"]
    assert file == str((tmp_path / "recipes" / "shade-unlabelled.parquet").resolve())
    with pytest.raises(InputError, match="unknown key"):
        Recipe.load(edited(recipe, lambda c: c.update(extra=1)))


def test_numbers_without_a_point(clip_paths, tmp_path):
    """YAML reads 1e-3 as text; people mean the number."""
    recipe = edited(write_recipe(tmp_path, clip_paths), lambda c: c["meta"].update(learning_rate="1e-3"))
    assert Recipe.load(recipe).meta_arguments(tmp_path).learning_rate == 0.001


def test_former_names_lead_to_options_that_exist():
    for part, options in renamed.OPTIONS.items():
        fields = ADAPTER_OPTIONS if part == "adapter" else {field.name for field in dataclasses.fields(KINDS[part])}
        assert set(options.values()) <= set(fields) and not set(options) & set(fields)
    assert set(renamed.TRANSFORMS.values()) <= set(TRANSFORMS.names())


def test_python_overrides_name_the_new_option_too(clip_paths, tmp_path):
    recipe = Recipe.load(write_recipe(tmp_path, clip_paths))
    with pytest.raises(InputError, match="recipe.yaml: specialize: 'pull_weight' is now called 'l2_sp_weight'"):
        recipe.specialize_arguments(tmp_path, pull_weight=1.0)
    with pytest.raises(
        InputError, match="recipe.yaml: meta: 'images_per_pass' is now called 'images_per_micro_batch'"
    ):
        recipe.meta_arguments(tmp_path, images_per_pass=8)


# Presets

PHASE_1 = [name for name in names() if not preset(name).makes_specialists]
PHASE_2 = [name for name in names() if preset(name).makes_specialists]

TIES = {"name": "ties", "density": 0.2, "scope": "model", "disjoint_mean": False}
EXACTLY = {
    "weight_average": {
        "adapter": {"granularity": "tensor", "transform": {"name": "identity"}, "init_coefficient": None},
        "meta": {"max_steps": 0},
        "specialize": {"rounds": 0},
    },
    "ties": {
        "adapter": {"granularity": "tensor", "transform": TIES, "init_coefficient": 0.3},
        "meta": {"max_steps": 0},
        "specialize": {"rounds": 0},
    },
    "symerge": {
        "adapter": {"granularity": "tensor", "transform": {"name": "identity"}, "init_coefficient": 0.3},
        "meta": {
            "learning_rate": 1e-2, "adam_epsilon": 1e-8, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "max_steps": 500,
            "images_per_task": 32, "entropy_weight": 0.0, "normalize_entropy": True, "distillation_weight": 1.0,
            "distillation_distance": "hard", "distillation_temperature": 2.0, "prior_weight": 0.0,
            "diversity_weight": 0.0, "filter": "none", "restore": False, "distillation_views": False,
            "agreement_rule": True, "train_heads": True, "train_projection": False, "head_steps": 0, "coefficient_range": [0.0, 1.0],
            "fewer_steps": False, "sharpness_radius": 0.0, "head_learning_rate": 1e-4, "terms": {},
        },
        "specialize": {"rounds": 0},
    },
}  # fmt: skip
BOOKKEEPING = {
    "output_dir", "max_steps", "learning_rate", "lr_scheduler_type", "logging_steps", "save_steps", "save_total_limit",
    "ddp_timeout", "disable_tqdm", "remove_unused_columns", "hub_strategy",
}  # fmt: skip
"""Options of both phases that change no objective."""


@pytest.mark.parametrize("name", EXACTLY)
def test_preset_is_exactly(name):
    found = preset(name)
    assert {part: getattr(found, part) for part in presets.PARTS} == EXACTLY[name]


@pytest.mark.parametrize("name", names())
def test_preset_names_its_paper(name):
    found = preset(name)
    assert found.paper.startswith("https://") and "\n" not in found.about.strip() and found.about.endswith(".")


def test_learned_presets_leave_no_option_of_the_objective_to_the_recipe():
    shared = set(presets._content(presets.SHARED / "learned.yaml")["meta"])
    # A prior without weight and a learning rate of heads that are not trained change nothing.
    idle = {
        "adam_epsilon",
        "images_per_micro_batch",
        "shard_task_vectors",
        "prior",
        "head_learning_rate",
        "bf16",
        "images",
    }
    assert set(MdftTrainingArguments.__annotations__) - BOOKKEEPING - idle <= shared
    for name in names():
        meta = preset(name).meta
        assert meta is None or meta["max_steps"] == 0 or shared <= set(meta), name


def test_presets_of_phase_2_leave_no_option_of_the_objective_to_the_recipe():
    own = set(SpecializeArguments.__annotations__) - BOOKKEEPING
    own -= {"per_device_train_batch_size", "bf16", "warmup_steps", "images"}
    assert "born_again" in PHASE_2
    for name in PHASE_2:
        assert own <= set(preset(name).specialize), name


def test_a_preset_is_one_file(clip_paths, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "about: Mine.\npaper: https://example.org\nextends: learned\nmeta: {entropy_weight: 1e-1}", encoding="utf-8"
    )
    assert names() == ["mine"] and preset("mine").meta["filter"] == "none"
    recipe = Recipe.load(write_recipe(tmp_path / "data", clip_paths, meta={"distillation_weight": 3.0}))
    changed = recipe.with_preset("mine")
    assert changed.meta["entropy_weight"] == 0.1 and changed.meta["distillation_weight"] == 0.0
    (tmp_path / "wrong.yaml").write_text("about: Mine.\npaper: x\nmeta: {filter: 3}", encoding="utf-8")
    with pytest.raises(InputError, match="preset 'wrong': meta: filter must be"):
        recipe.with_preset("wrong")
    (tmp_path / "wrong.yaml").write_text("about: Mine.\nmeta: {filter: none}", encoding="utf-8")
    with pytest.raises(InputError, match=r"wrong\.yaml: 'paper' is missing"):
        preset("wrong")


@pytest.mark.parametrize("name", PHASE_1)
def test_preset_of_phase_1(name, clip_paths, tmp_path):
    """It makes a meta-model, and no specialists."""
    recipe = Recipe.load(write_recipe(tmp_path, clip_paths, meta={"use_cpu": True, "bf16": False})).with_preset(name)
    steps = {} if recipe.meta["max_steps"] == 0 else {"max_steps": 2, "images_per_task": 4}
    merger = recipe.merger()
    merger.fit(recipe.meta_arguments(tmp_path, **steps))
    assert merger.specialize(recipe.specialize_arguments(tmp_path)) == {}
    table = merger.model.base_model.coefficients("default")
    start = recipe.adapter["init_coefficient"]
    start = 1 / len(TASKS) if start is None else start
    moved = any((row != start).any() for row in table.values())
    assert moved == bool(steps)
    assert set(merger._meta_heads) == (set(TASKS) if name == "symerge" else set())


QUICK = {"max_steps": 2, "images_per_task": 4, "head_steps": 3, "use_cpu": True}


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_task_arithmetic_preset_is_the_baseline_of_that_name(clip_paths, tmp_path, monkeypatch, capsys):
    def quick(name: str) -> Preset:
        found = preset(name)
        return dataclasses.replace(
            found, meta={**found.meta, "max_steps": 2} if found.meta["max_steps"] else found.meta
        )

    monkeypatch.setattr(schema, "preset", quick)
    recipe = write_recipe(tmp_path, clip_paths, meta=QUICK, specialize={"rounds": 0})
    command = ["run", recipe, "--output-dir", tmp_path / "out", "--preset", "task_arithmetic", "--baseline", "symerge"]
    code, out, _ = call(command, monkeypatch, capsys)
    assert code == 0
    accuracy = results(tmp_path / "out")["accuracy"]
    assert accuracy["meta"] == accuracy["task_arithmetic"] and "symerge" in accuracy and "symerge" in out
    assert "specialist" not in accuracy
    assert list((tmp_path / "out" / "checkpoints" / "baselines" / "symerge").rglob("checkpoint-*"))


@pytest.mark.slow
def test_a_baseline_of_phase_2_has_specialists_of_its_own(clip_paths, tmp_path, monkeypatch, capsys):
    """On the run's meta-model, which is trained once; the same as a run with that preset gives."""
    made, init = [], MdftTrainer.__init__

    def counted(self, *args, **kwargs):
        made.append(kwargs["train_dataset"].keys())
        init(self, *args, **kwargs)

    monkeypatch.setattr(MdftTrainer, "__init__", counted)
    specialize = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 8, "use_cpu": True}
    recipe = write_recipe(tmp_path, clip_paths, meta=QUICK, specialize=specialize)
    command = ["run", recipe, "--output-dir", tmp_path / "ours", "--baseline", "born_again"]
    code, out, _ = call(command, monkeypatch, capsys)
    assert code == 0 and len(made) == 1 and "born_again" in out
    work = tmp_path / "ours" / "checkpoints" / "baselines" / "born_again"
    assert (work / "specialists").is_dir() and not (work / "meta").exists()
    code, _, _ = call(
        ["run", recipe, "--output-dir", tmp_path / "theirs", "--preset", "born_again"], monkeypatch, capsys
    )
    assert code == 0
    ours, theirs = results(tmp_path / "ours"), results(tmp_path / "theirs")
    assert ours["accuracy"]["born_again"] == theirs["accuracy"]["specialist"]
    assert ours["accuracy"]["meta"] == theirs["accuracy"]["meta"]
    assert ours["accuracy"]["born_again"] != ours["accuracy"]["specialist_ungated"]
    assert all(gate["chosen"] == "specialist" for gate in theirs["gate"].values()), "the gate is off"


def test_unknown_preset_ends_in_one_line(clip_paths, tmp_path, monkeypatch, capsys):
    for option in ("--preset", "--baseline"):
        code, _, err = call(["run", write_recipe(tmp_path, clip_paths), option, "simerge"], monkeypatch, capsys)
        assert code == 2 and "did you mean 'symerge'" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("meta: {max_steps: 1}\nmeta: {learning_rate: 0.1}", "line 2: 'meta' is there twice; keep one of them"),
        ("a: {x: 1, y: 2, x: 3}", "'x' is there twice"),
        ("a: 010", "line 1: 010 is the number 8 in YAML: write that, or text in quotes"),
        ("a: [1:30]", "1:30 is the number 90"),
        ("a: 1_0", "1_0 is the number 10"),
        ("a: 0x10", "0x10 is the number 16"),
    ],
)
def test_yaml_that_means_something_else(tmp_path, line, said):
    (tmp_path / "recipe.yaml").write_text(line)
    with pytest.raises(InputError, match=said):
        read_yaml(tmp_path / "recipe.yaml")


def test_yaml_numbers_as_people_write_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("[0, -3, 12, 0.1, 1.e-3, 1e-3, .5, +2, .inf, '010', 'x: 010', 1, yes]")
    assert read_yaml(tmp_path / "recipe.yaml")[:5] == [0, -3, 12, 0.1, 0.001]


@pytest.mark.parametrize("name", ["off", "null", "1.5"])
def test_names_of_tasks_that_are_values(clip_paths, tmp_path, name):
    recipe = write_recipe(tmp_path, clip_paths)
    recipe.write_text(recipe.read_text().replace("shade:", f"{name}:"))
    with pytest.raises(InputError, match="YAML takes it for a value; put the name in quotes"):
        Recipe.load(recipe)


@pytest.mark.parametrize(
    ("part", "options", "said"),
    [
        ("meta", {"output_dir": "mine"}, "meta: output_dir has no place in a recipe: results go to --output-dir"),
        ("specialize", {"resume_from_checkpoint": "x"}, "goes on where it stopped"),
        ("specialize", {"eval_strategy": "steps"}, "training reads no labels"),
        ("meta", {"eval_on_start": True}, "meta: eval_on_start has no place in a recipe: training reads no labels"),
        ("meta", {"deepspeed": "nowhere.json"}, "meta: "),
    ],
)
def test_options_without_a_place_in_a_recipe(clip_paths, tmp_path, part, options, said):
    with pytest.raises(InputError, match=said):
        recipe = Recipe.load(
            edited(write_recipe(tmp_path, clip_paths), lambda c: c.setdefault(part, {}).update(options))
        )
        recipe.meta_arguments(tmp_path)


@pytest.mark.parametrize(
    ("part", "options", "said"),
    [
        ("meta", {"filter": {"name": "eata", "marginn": 1}}, "marginn"),
        ("meta", {"images_per_task": 4, "gradient_accumulation_steps": 3}, "images_per_task=4 must be a multiple"),
        ("specialize", {"optim": "adamw_bnb_8bit"}, "optim: .*bitsandbytes"),
    ],
)
def test_what_training_would_make_late_is_made_first(clip_paths, tmp_path, part, options, said):
    changed = edited(write_recipe(tmp_path, clip_paths), lambda c: c.setdefault(part, {}).update(options))
    recipe = Recipe.load(changed)
    with pytest.raises(InputError, match=said):
        check_options(recipe.meta_arguments(tmp_path), recipe.specialize_arguments(tmp_path))


def test_paths_are_never_those_of_the_working_directory(clip_paths, tmp_path, monkeypatch):
    """What is not beside the recipe may be of the Hub, but no folder of the same name where the command is given."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    (here / "base").mkdir()
    (here / "data.parquet").write_bytes(b"")
    monkeypatch.chdir(here)
    with pytest.raises(InputError, match="base: not in .*elsewhere, but in the working directory"):
        resolve_path("base", elsewhere)
    assert resolve_path("base", here) == str((here / "base").resolve())
    assert resolve_path("owner/name", elsewhere) == "owner/name"
    spec = Task.from_dict(
        {"unlabelled": {"path": "parquet", "data_files": "data.parquet", "split": "train"}}, "x", folder=elsewhere
    ).unlabelled
    assert spec["data_files"] == str(elsewhere.resolve() / "data.parquet")
    hub = Task.from_dict(
        {"unlabelled": {"path": "owner/name", "data_files": "x.parquet"}}, "x", folder=elsewhere
    ).unlabelled
    assert hub == {"path": "owner/name", "data_files": "x.parquet"}
    (here / "sub").mkdir()
    (elsewhere / "photos").mkdir()
    (elsewhere / "data").mkdir()
    for files in ({"data_files": "data.parquet"}, {"data_files": "data/*.parquet"}, {"data_dir": "sub"}):
        for path, meant in (("owner/name", "owner/name"), ("photos", str((elsewhere / "photos").resolve()))):
            task = Task.from_dict({"unlabelled": {"path": path, **files}}, "x", folder=elsewhere)
            assert task.unlabelled == {"path": meant, **files}, "files of the data set"


def test_a_run_does_not_replace_its_own_experts(clip_paths, tmp_path, monkeypatch, capsys):
    expert = tmp_path / "out" / "specialists" / "shade"
    shutil.copytree(clip_paths["shade"], expert)
    recipe = write_recipe(tmp_path, clip_paths)
    edited(recipe, lambda c: c["pool"]["experts"].update(shade=str(expert)))
    for command in ("run", "check"):
        code, _, err = call([command, recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
        assert code == 2 and "choose another --output-dir" in err
    with pytest.raises(InputError, match="a run in .* would replace it"):
        refuse_inputs_within(tmp_path / "out", [expert])
    refuse_inputs_within(tmp_path / "other", [expert])
