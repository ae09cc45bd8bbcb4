"""What can be refused is refused before anything is trained; `hf-mdft check`; wrong types from Python."""

from __future__ import annotations

import json

import datasets
import pytest
from conftest import TASKS, call, edited, fit_arguments, make_dataset, specialize_arguments, write_recipe
from transformers import TrainingArguments

from hf_mdft import InputError, MdftTrainer, MetaMerger, ModelPool, Recipe, Task
from hf_mdft.heads import build_head
from hf_mdft.recipes.preflight import Estimate, check_space


def damaged(content):
    """A picture of the evaluation set, which lies in the current folder, cannot be read."""
    data = make_dataset("colour", 12, 9).cast_column("image", datasets.Image(decode=False))
    rows = data.to_list()
    rows[3]["image"]["bytes"] = b"no picture"
    name = content["tasks"]["colour"]["evaluation"]["data_files"]
    datasets.Dataset.from_list(rows, features=data.features).to_parquet(name)


FAULTS = {
    "evaluation": (
        lambda c: c["tasks"]["colour"]["evaluation"].update(data_files="none.parquet"),
        "task 'colour', evaluation: cannot load",
    ),
    "a picture": (damaged, "task 'colour', evaluation: 1 of 12 images cannot be read: row 3 (no raster picture)"),
    "labels": (
        lambda c: c["tasks"]["colour"].update(class_names=["a", "b", "c", "d"]),
        "task 'colour', evaluation: label 'red' is none of the classes (a, b, c, d)",
    ),
    "label column": (lambda c: c["tasks"]["colour"].update(label_column="mark"), "no column 'mark' (label_column)"),
    "teacher": (lambda c: c["tasks"]["colour"].update(teachers="./nowhere"), "nowhere"),
}


@pytest.mark.parametrize(
    ("name", "command"), [*((name, "check") for name in FAULTS), ("a picture", "run"), ("labels", "run")]
)
def test_faults_are_found_before_training(clip_paths, tmp_path, monkeypatch, capsys, name, command):
    change, said = FAULTS[name]
    monkeypatch.chdir(tmp_path)
    recipe = edited(write_recipe(tmp_path, clip_paths), change)
    monkeypatch.setattr(MdftTrainer, "train", lambda *_, **__: pytest.fail("trained"))
    code, _, err = call([command, recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert code == 2 and len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "check.html").exists()


def test_check(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, specialize={"images": 20})
    page = tmp_path / "pages" / "check.html"
    code, out, err = call(["check", recipe, "--page", page], monkeypatch, capsys)
    assert code == 0, err
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "24" in rows["shade"] and "12" in rows["shade"] and "32 x 32" in rows["shade"]
    assert "3: dark, middle, bright (class_names)" in rows["shade"] and "by name" in rows["shade"]
    assert "Roughly" in out and "of disk" in out
    assert f"Of {', '.join(TASKS)}, 20 images are used ('images'; null: all)" in out
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 8 * len(TASKS) and "<h2>stripes</h2>" in text
    assert not (tmp_path / "mdft-output").exists()


def test_too_few_images_are_told(clip_paths, tmp_path, monkeypatch, capsys):
    """The gate would keep every expert, whatever is learned from them."""

    def few(content):
        content["tasks"]["shade"]["unlabelled"]["split"] = "train[:15]"

    monkeypatch.chdir(tmp_path)
    recipe = edited(write_recipe(tmp_path, clip_paths), few)
    code, out, err = call(["check", recipe], monkeypatch, capsys)
    assert code == 0, err
    assert "Of shade, fewer than 16 images are there, too few to show an improvement" in out
    recipe = edited(recipe, lambda content: content.setdefault("specialize", {}).update(gate=False))
    assert "fewer than 16" not in call(["check", recipe], monkeypatch, capsys)[1]


def test_results_and_report_say_what_was_given(results):
    inputs = json.loads((results / "results.json").read_text())["inputs"]
    assert list(inputs) == list(TASKS) and inputs["shade"]["images"] == 24 and inputs["shade"]["skipped"] == 0
    assert inputs["shade"]["labels"] == [[name, name] for name in TASKS["shade"]]
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.index("<h2>What was given</h2>") < page.index("<h2>Accuracy</h2>")
    assert str(results.parent) not in page


def test_skipped_pictures_are_counted(clip_pool, tmp_path):
    bad = make_dataset("shade", 12, 3).to_list()
    pictures = [row["image"] for row in bad]
    pictures[5] = {"bytes": b"no picture", "path": None}
    task = Task(pictures, make_dataset("shade", 6, 4), class_names=TASKS["shade"], on_bad_image="skip")
    pool = ModelPool(clip_pool.base, {"shade": clip_pool.experts["shade"]})
    merger = MetaMerger(pool, {"shade": task})
    assert merger.inputs()["shade"].cells()[0] == "11 (1 skipped)"
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=1))
    made = merger.specialize(specialize_arguments(tmp_path / "phase2", max_steps=1))["shade"]
    made.save_pretrained(tmp_path / "specialist")
    merger.save_pretrained(tmp_path / "meta")
    for folder in ("specialist", "meta"):
        card = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
        assert "1 could not be read and" in card and "left out" in card


def test_bad_pictures_of_all_sets_are_told_at_once(clip_pool):
    bad = [{"bytes": b"no picture", "path": None}, {"bytes": b"neither", "path": None}]
    tasks = {task: Task(bad, class_names=TASKS[task]) for task in ("shade", "colour")}
    with pytest.raises(InputError) as error:
        MetaMerger(clip_pool, tasks).inputs()
    assert all(f"task '{task}', unlabelled: 2 of 2 images cannot be read" in str(error.value) for task in tasks)


def test_a_run_looks_at_space_and_place_first(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    monkeypatch.setattr(MdftTrainer, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").write_text("mine")
    for command in ("run", "check"):
        code, _, err = call([command, recipe, "--output-dir", tmp_path / "file" / "out"], monkeypatch, capsys)
        assert code == 2 and "file is not a folder; choose another --output-dir" in err
    code, _, err = call(["check", recipe, "--page", tmp_path / "file"], monkeypatch, capsys)
    assert code == 2 and "file: not written by hf_mdft; choose another --page" in err
    monkeypatch.setattr("hf_mdft.recipes.run.estimate", lambda *_: Estimate(1.0, 1.0, 1e18, "cpu"))
    code, _, err = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 2 and "are needed for caches and results" in err


def test_space_is_looked_at(tmp_path):
    check_space(Estimate(1.0, 1.0, 1.0, "cpu"), tmp_path / "out")
    with pytest.raises(InputError, match="are needed for caches and results"):
        check_space(Estimate(1.0, 1.0, 1e18, "cpu"), tmp_path / "out")


# Class names that no text can be made of


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["0", "1", "2"], "numbers"),
        (["1999", "2000"], "numbers"),
        (["n01440764", "n01443537"], "WordNet codes"),
        (["train", "test"], "parts of a data set"),
        (["photos"], "a single class"),
        (["LABEL_0", "LABEL_1"], "placeholders"),
        (["class_0", "class_1"], "placeholders"),
        (["2023-07-14", "2024-01-02"], "numbers"),
        (["training_set", "test_set"], "parts of a data set"),
    ],
)
def test_names_that_are_no_classes(clip_pool, names, what):

    data = make_dataset("shade", 4, 0).cast_column("label", datasets.Value("int64"))
    features = datasets.Features({**data.features, "label": datasets.ClassLabel(names=names)})
    data = data.map(lambda row: {"label": 0}, features=features)
    with pytest.raises(InputError) as error:
        build_head("shade", Task(data), clip_pool)
    assert f"the dataset's names of classes are {what} ({names[0]}" in str(error.value)
    assert "write class_names: [NAME, ...]" in str(error.value)
    if len(names) > 1:  # whoever writes them means them
        assert build_head("shade", Task(data, class_names=names), clip_pool).class_names == names


# Python


@pytest.fixture
def small(clip_pool, unlabelled_data):
    return MetaMerger(clip_pool, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda m: m.fit(TrainingArguments(use_cpu=True)), "args of fit() must be MdftTrainingArguments, got Train"),
        (lambda m: m.fit({"max_steps": 1}), "args of fit() must be MdftTrainingArguments, got dict"),
        (lambda m: m.specialize(TrainingArguments(use_cpu=True)), "args of specialize() must be SpecializeArguments"),
        (lambda m: m.specialize(tasks=["shad"]), "unknown task 'shad': did you mean 'shade'?"),
        (lambda m: m.specialize(tasks="shad"), "unknown task 'shad': did you mean 'shade'?"),
        (lambda m: m.evaluate({"mine": 3}), "baseline 'mine' must be a MetaMerger or a method, got int"),
        (lambda m: m.head("shad"), "unknown task 'shad': did you mean 'shade'?"),
        (lambda m: m.expert_tower("shad"), "unknown task 'shad': did you mean 'shade'?"),
        (lambda m: m.unlabelled("shad"), "unknown task 'shad'"),
        (lambda m: m.labelled("shad"), "unknown task 'shad'"),
        (lambda m: m.variant(tasks=["shad"]), "unknown task 'shad'"),
        (lambda m: m.pool.tower("shad"), "unknown expert 'shad': did you mean 'shade'?"),
        (lambda m: m.pool.experts_of("shad"), "unknown task 'shad'"),
        (lambda m: MetaMerger(m.pool, ["shade"]), "tasks must be Mapping, got list"),
        (lambda m: MetaMerger(m.pool, {"shade": []}), "tasks['shade'] must be Task, got list"),
        (lambda m: MetaMerger("pool", m.tasks), "pool must be ModelPool, got str"),
        (lambda m: MetaMerger(m.pool, m.tasks, config={"granularity": "task"}), "config must be MdftConfig, got dict"),
        (lambda m: MetaMerger(m.pool, m.tasks, seed="a"), "seed must be a whole number from 0 to 4294967295, got 'a'"),
        (lambda m: MetaMerger(m.pool, m.tasks, seed=-1), "seed must be a whole number from 0 to 4294967295, got -1"),
        (lambda m: ModelPool.from_pretrained(m.pool.base.folder, {"a": 3}), "expert of 'a' must be str or Path, got"),
        (lambda m: Task([], class_names="abc"), "Task: class_names must list at least two names"),
        (lambda m: Task([], class_names=[True, False]), "Task: class_names holds True; write names, yes and no in qu"),
        (lambda m: Task([], class_names=["cat", None]), "Task: class_names holds null"),
        (lambda m: Task([], class_names=["cat", " "]), "Task: class_names holds ' '"),
        (lambda m: Task([], image_column=3), "Task: image_column must be the name of a column, got 3"),
        (lambda m: Task([], on_bad_image="drop"), "Task: on_bad_image must be 'error' or 'skip', got 'drop'"),
        (lambda m: Recipe.load("nowhere.yaml"), "nowhere.yaml"),
    ],
)  # fmt: skip
def test_wrong_types_and_names(small, use, said):
    with pytest.raises(InputError) as error:
        use(small)
    assert said in str(error.value) and "\n" not in str(error.value)
