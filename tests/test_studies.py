"""Ablations, few images, tasks outside the pool, time to quality, and the gate's record."""

from __future__ import annotations

import itertools
import json
import math
import time

import pytest
import torch
import yaml
from conftest import TASKS, call, write_recipe
from transformers import TrainerState

from hf_mdft import InputError, MdftTrainingArguments, Recipe, SpecializeArguments
from hf_mdft.evaluation import average_p_value, mcnemar, paired_interval
from hf_mdft.recipes.options import read_options
from hf_mdft.studies.ablation import META_PARTS, SPECIALIST_PARTS, _slug
from hf_mdft.studies.changes import left, read_changes
from hf_mdft.studies.gate_record import as_text, gate_record
from hf_mdft.studies.outcome import average, meta_outcome, remembered
from hf_mdft.studies.time_to_quality import OURS, Look, Watch, as_lines, passed


QUICK = {"meta": {"max_steps": 2, "images_per_task": 4, "head_steps": 3, "use_cpu": True}}


@pytest.mark.parametrize("parts", [META_PARTS, SPECIALIST_PARTS])
def test_rows_of_the_ablation_change_options_that_exist(parts):
    for name, change in parts.items():
        assert all(read_options(part, options, name) == options for part, options in change.items())
    assert len({_slug(name) for name in parts}) == len(parts), "two rows would share a folder"


@pytest.mark.slow
def test_ablation_goes_on_and_compares_with_the_full_recipe(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, restore=True, meta={**QUICK["meta"], "prior_weight": 0.0})
    command = ["ablate", recipe, "--output-dir", tmp_path / "out"]
    code, out, _ = call(command, monkeypatch, capsys)
    assert code == 0
    facts = json.loads((tmp_path / "out" / "ablation.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in facts["meta"]]
    assert names[0] == "in full" and "without trained heads" in names
    assert "without the class prior" not in names, "it was off already"
    assert {"without the gate", "with L2-SP", "without restored images"} <= {
        row["name"] for row in facts["specialists"]
    }
    full, other = facts["meta"][0], facts["meta"][names.index("one coefficient per task")]
    assert full["difference"] is None and other["low"] <= other["difference"] <= other["high"]
    assert math.isclose(other["average"] - full["average"], other["difference"], abs_tol=1e-6)
    for row in facts["meta"]:
        assert math.isclose(sum(row["by_task"].values()) / len(TASKS), row["average"], abs_tol=1e-6)
    monkeypatch.setattr("hf_mdft.merger.MetaMerger.fit", lambda *_: pytest.fail("trained again"))
    assert call(command, monkeypatch, capsys)[1] == out


def test_rows_of_ones_own_are_read_from_text():
    text = "specialize.max_steps=600,specialize.ema_decay=0"
    meta, specialists = read_changes([text, "meta.filter=none,adapter.granularity=layer", text])
    assert specialists == {text: {"specialize": {"max_steps": 600, "ema_decay": 0}}}
    assert list(meta.values()) == [{"meta": {"filter": "none"}, "adapter": {"granularity": "layer"}}]
    for wrong, reason in {
        "max_steps=600": "'max_steps=600' is not PART.OPTION=VALUE",
        "specialize.max_step=600": "unknown key 'max_step': did you mean 'max_steps'?",
        "specialize.max_steps=many": "specialize.max_steps",
        "specialize.max_steps=[1": "no value of YAML",
        "meta.max_steps=1,specialize.max_steps=1": "a table each",
    }.items():
        with pytest.raises(InputError) as caught:
            read_changes([wrong])
        assert str(caught.value).startswith(f"--change {wrong}"), caught.value
        assert reason.replace("specialize.max_steps", "max_steps") in str(caught.value)


def test_rows_that_change_nothing_are_told(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, **QUICK, adapter={"transform": {"name": "identity"}})
    same = [
        "meta.max_steps=2", "meta.entropy_weight=" + str(MdftTrainingArguments.entropy_weight), "meta.terms={}",
        "adapter.transform=identity", "adapter.granularity=tensor", "specialize.max_steps=2,specialize.restore=false",
    ]  # fmt: skip
    idle = ["specialize.further_experts=false", "specialize.max_steps=2,specialize.outside_teachers=false"]
    monkeypatch.setattr("hf_mdft.merger.MetaMerger.fit", lambda *_: pytest.fail("trained for no row"))
    command = ["ablate", recipe, "--output-dir", tmp_path / "out", *(f"--change={text}" for text in (*same, *idle))]
    code, _, err = call(command, monkeypatch, capsys)
    assert code == 2 and "recipe.yaml: none of the changes changes anything" in err
    for text in same:
        assert f"{text}: the recipe has that already, left out" in err
    for text in idle:
        assert f"{text}: without effect on this pool, left out" in err
    assert not (tmp_path / "out" / "ablation.json").exists()
    of_other = ["ablate", recipe, "--output-dir", tmp_path / "out", "--phase=meta", "--change=specialize.max_steps=3"]
    code, _, err = call(of_other, monkeypatch, capsys)
    assert code == 2 and "recipe.yaml: none of the changes is of what --phase names" in err


def test_rows_that_change_something_stay(clip_paths, tmp_path):
    recipe, told = Recipe.load(write_recipe(tmp_path, clip_paths, **QUICK)), []
    meta, specialists = read_changes(
        ["meta.max_steps=2", "meta.max_steps=3", "adapter.transform=ties", "specialize.further_experts=false,"
         "specialize.max_steps=3", "specialize.teacher=[lda]"]
    )  # fmt: skip
    assert list(left(meta, recipe, told.append)) == ["meta.max_steps=3", "adapter.transform=ties"]
    assert left(specialists, recipe, told.append, {"further_experts"}) == specialists
    assert told == ["meta.max_steps=2: the recipe has that already, left out"]


def test_rows_of_many_options_have_folders_of_their_own(tmp_path):
    names = [",".join(f"specialize.option_{n}=0" for n in range(20)) + f",specialize.last={end}" for end in "ab"]
    slugs = {_slug(name) for name in names}
    assert len(slugs) == 2 and all(len(slug) < 100 for slug in slugs)
    for slug in slugs:
        (tmp_path / slug).mkdir()
    assert _slug("Without LDA") == "without-lda"


@pytest.mark.slow
def test_an_ablation_has_the_rows_that_are_asked_for(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    command = ["ablate", recipe, "--output-dir", tmp_path / "out", "--change", "meta.filter=none"]
    code, _, _ = call(command, monkeypatch, capsys)
    facts = json.loads((tmp_path / "out" / "ablation.json").read_text(encoding="utf-8"))
    assert code == 0 and list(facts) == ["meta"]
    assert [row["name"] for row in facts["meta"]] == ["in full", "meta.filter=none"]


@pytest.mark.slow
def test_gains_add_one_part_after_the_other(clip_paths, tmp_path, monkeypatch, capsys):
    from hf_mdft.merger import MetaMerger
    from hf_mdft.studies.gains import ADDED, BARE, BESIDE, VIEWS

    assert sorted(option for options in ADDED.values() for option in options) == sorted(BARE)
    seen, specialize = [], MetaMerger.specialize

    def noted(self, args, *rest):
        seen.append({name: getattr(args, name) for name in BARE})
        return specialize(self, args, *rest)

    monkeypatch.setattr(MetaMerger, "specialize", noted)
    recipe = write_recipe(tmp_path, clip_paths, restore=True, **QUICK)
    code, out, _ = call(["ablate", recipe, "--phase", "gains", "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0 and "+ restored images" in out
    full = {name: getattr(SpecializeArguments(), name) for name in BARE} | {"fewer_steps": False}  # as the recipe says
    idle = dict.fromkeys(("further_experts", "outside_teachers", "related_experts"), True)  # the pool has none of them
    bare = BARE | idle
    on = [name for name, options in ADDED.items() if not options or any(full[o] != bare[o] for o in options)]
    chain, beside = [*seen[:-3], seen[-1]], seen[-3:-1]
    assert chain[0] == bare and chain[-1] == full and len(chain) == len(on) > 5
    assert all(sum(a[name] != b[name] for name in BARE) == 1 for a, b in itertools.pairwise(chain))
    assert beside == [{**chain[-2], "ensemble_weight": 1.0}, {**chain[-2], "refreshes": 1}]
    rows = json.loads((tmp_path / "out" / "gains.json").read_text(encoding="utf-8"))["gains"]
    assert [row["name"] for row in rows[1:]] == [*VIEWS, *on[:-1], *BESIDE, on[-1]]
    ungated = rows[-4]
    for above, row in [*itertools.pairwise(rows[:-3]), *((ungated, row) for row in rows[-3:])]:
        if row["name"] not in (*VIEWS, "the expert, distilled"):
            assert math.isclose(row["average"] - above["average"], row["difference"], abs_tol=1e-6)


@pytest.mark.slow
def test_few_shot_uses_few_images_in_both_phases(clip_paths, tmp_path, monkeypatch, capsys):
    from hf_mdft.meta import MdftTrainer

    counts, init = [], MdftTrainer.__init__

    def counted(self, *args, **kwargs):
        counts.append({len(images) for images in kwargs["train_dataset"].values()})
        init(self, *args, **kwargs)

    monkeypatch.setattr(MdftTrainer, "__init__", counted)
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    options = ["--images", "5", "--images", "all", "--output-dir", tmp_path / "out"]
    code, out, _ = call(["study", "few-shot", recipe, *options], monkeypatch, capsys)
    assert code == 0 and counts == [{5}, {24}]
    facts = json.loads((tmp_path / "out" / "few-shot.json").read_text(encoding="utf-8"))
    assert [entry["images"] for entry in facts] == [5, None]
    assert all(entry["gate"][task]["images"] == (entry["images"] or 24) for entry in facts for task in TASKS)
    record = gate_record([tmp_path / "out" / "few-shot.json"])
    assert record.pairs == 2 * len(TASKS)
    ungated = [entry["specialist_ungated"]["difference"] for entry in facts]
    assert record.ungated == pytest.approx(100 * sum(ungated) / 2, abs=1e-4)
    code, _, err = call(["study", "few-shot", recipe, "--images", "some"], monkeypatch, capsys)
    assert code == 2 and "--images" in err


def test_leave_one_out_never_opens_the_expert_of_the_task(clip_paths, tmp_path, monkeypatch, capsys):
    from hf_mdft.pool import ModelPool

    used, tower = [], ModelPool.tower

    def watched(self, task=None):
        left_out = [name for name in self.tasks if name not in self.experts]
        used.append((task, left_out))
        return tower(self, task)

    monkeypatch.setattr(ModelPool, "tower", watched)
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    code, out, _ = call(["study", "leave-one-out", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0
    assert {left[0] for _, left in used if left} == set(TASKS)
    assert not [task for task, left in used if task in left]
    facts = json.loads((tmp_path / "out" / "leave-one-out.json").read_text(encoding="utf-8"))
    assert set(facts) == {"base", "weight_average", "best_expert", "meta", "specialist_ungated", "specialist"}
    assert "shade" in out and facts["meta"]["difference"] is None


def test_studies_need_evaluation_images(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for task in content["tasks"].values():
        task.pop("evaluation")
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    for command in (["ablate"], ["study", "few-shot"], ["study", "leave-one-out"], ["study", "time"]):
        code, _, err = call([*command, recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
        assert code == 2 and "evaluation" in err


def test_studies_refuse_what_they_cannot_do(clip_paths, vit_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path / "clip", clip_paths, **QUICK, specialize={"rounds": 0})
    for command in (["ablate", "--phase", "specialists"], ["study", "few-shot"], ["study", "leave-one-out"]):
        code, _, err = call([*command, recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
        assert code == 2 and "specialize.rounds is 0" in err
    for baseline in ("shot", "transclip"):
        command = ["study", "time", recipe, "--baseline", baseline, "--output-dir", tmp_path / "out"]
        code, _, err = call(command, monkeypatch, capsys)
        assert code == 2 and f"'{baseline}' makes no meta-model" in err
    command = ["ablate", recipe, "--output-dir", tmp_path / "out", "--change"]
    code, _, err = call([*command, "meta.filter=none", "--phase", "specialists"], monkeypatch, capsys)
    assert code == 2 and "--phase" in err
    code, _, err = call([*command, "specialize.ema_decay=0", "--phase", "gains"], monkeypatch, capsys)
    assert code == 2 and "--change" in err
    code, _, err = call([*command, "specialize.learning_rate=-1"], monkeypatch, capsys)
    assert code == 2 and "learning_rate" in err
    recipe = write_recipe(tmp_path / "vit", vit_paths)
    code, _, err = call(["study", "leave-one-out", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 2 and "its expert's classifier" in err


def test_the_clock_stands_still_while_the_model_is_measured(monkeypatch):
    clock = torch.tensor([100.0, 30.0])
    monkeypatch.setattr("hf_mdft.studies.time_to_quality.times", lambda: clock.clone())

    def measured():
        clock.add_(torch.tensor([50.0, 20.0]))
        return 0.5

    watch, state = Watch(torch.tensor([97.0, 29.0]), measured), TrainerState()
    watch.on_train_begin(None, state, None)
    for state.global_step in range(1, 101):
        clock.add_(torch.tensor([0.5, 0.25]))
        watch.on_step_end(None, state, None)
    clock.add_(4.0)
    watch.look(100)
    steps = [0, 10, 20, 30, 40, 50, 75, 100]
    assert watch.looks == [
        *(Look(step, 0.5, 3 + step / 2, 1 + step / 4) for step in steps),
        Look(100, 0.5, 57.0, 30.0),
    ]


def test_time_to_quality_is_that_of_the_first_look_that_is_as_accurate():
    def looks(*steps):
        return [Look(step, accuracy, clock, clock / 2) for step, accuracy, clock in steps]

    found = {
        OURS: looks((0, 0.40, 4.0), (10, 0.55, 5.0), (20, 0.50, 8.0), (20, 0.60, 10.0)),
        "weak": looks((0, 0.30, 2.0), (10, 0.40, 16.0)),
        "middle": looks((0, 0.30, 2.0), (10, 0.55, 20.0), (500, 0.55, 80.0)),
        "strong": looks((0, 0.50, 2.0), (500, 0.60, 90.0)),
        "best": looks((0, 0.61, 1.5)),
    }
    step_10 = found[OURS][1]
    assert passed(found) == {"weak": found[OURS][0], "middle": step_10, "strong": found[OURS][-1], "best": None}
    assert as_lines(found, "clock") == [
        [OURS, "60.0", "10.0", "4.0", "10.0", "", "", ""],
        ["weak", "40.0", "16.0", "2.0", "16.0", "before step 1", "4.0", "4.0"],
        ["middle", "55.0", "80.0", "2.0", "20.0", "at step 10", "5.0", "16.0"],
        ["strong", "60.0", "90.0", "2.0", "90.0", "at the end", "10.0", "9.0"],
        ["best", "61.0", "1.5", "1.5", "1.5", "never", "", ""],
    ]
    assert as_lines(found, "processor")[2] == ["middle", "55.0", "40.0", "1.0", "10.0", "at step 10", "2.5", "16.0"]


@pytest.mark.slow
def test_time_to_quality_charges_each_for_its_own_and_goes_on(clip_paths, tmp_path, monkeypatch, capsys):
    from hf_mdft.pool import manifest

    made, write = [], manifest.write_transformed

    def noted(phi, *rest):
        made.append(phi.name)
        write(phi, *rest)

    monkeypatch.setattr(manifest, "write_transformed", noted)
    file = write_recipe(tmp_path, clip_paths, meta={**QUICK["meta"], "max_steps": 12, "bf16": True})
    names = ["adamerging", "tsv_m"]
    command = ["study", "time", file, *(f"--baseline={name}" for name in names), "--output-dir", tmp_path / "out"]
    code, out, _ = call(command, monkeypatch, capsys)
    assert code == 0 and all(name in out for name in names)
    assert made == ["tsv", "identity", "tsv"], "each makes its own task vectors"
    looks = json.loads((tmp_path / "out" / "time.json").read_text(encoding="utf-8"))["looks"]
    assert [look["step"] for look in looks[OURS]] == [0, 10, 12]
    assert [look["step"] for look in looks["adamerging"]][-2:] == [500, 500] and len(looks["tsv_m"]) == 1
    for found in looks.values():
        for seconds in ([look[kind] for look in found] for kind in ("clock", "processor")):
            assert seconds[0] > 0 and seconds == sorted(seconds)
    recipe = Recipe.load(file)
    merger = recipe.merger()
    merger.fit(recipe.meta_arguments(tmp_path / "alone"))
    unwatched = average(meta_outcome(merger, list(TASKS)))
    assert looks[OURS][-1]["accuracy"] == pytest.approx(unwatched), "the looks changed it"
    assert not list((tmp_path / "out" / "work").glob("*/.mdft-*")), "caches and checkpoints are taken away"
    monkeypatch.setattr("hf_mdft.studies.time_to_quality.get_peft_model", lambda *_: pytest.fail("trained again"))
    assert call(command, monkeypatch, capsys)[1] == out


def test_paired_interval_covers_and_pairs():
    generator = torch.Generator().manual_seed(0)
    a = {"x": torch.rand(400, generator=generator) < 0.7, "y": torch.rand(300, generator=generator) < 0.6}
    assert paired_interval(a, a) == (0.0, 0.0, 0.0) and average_p_value(a, a) == 1.0
    b = {task: correct.clone() for task, correct in a.items()}
    b["x"][:160] = True
    difference, low, high = paired_interval(b, a)
    gained = (b["x"] & ~a["x"]).float().mean().item()
    assert math.isclose(difference, gained / 2, abs_tol=1e-6) and 0 < low < difference < high
    # The normal interval of the same paired differences, as a reference.
    error = (gained * (1 - gained) / 400) ** 0.5 / 2
    assert math.isclose(high - low, 2 * 1.96 * error, rel_tol=0.1)
    turned = [dict(reversed(found.items())) for found in (b, a)]
    assert paired_interval(*turned) == (difference, low, high), "whatever the order of tasks"
    assert average_p_value(b, a) == pytest.approx(mcnemar(b["x"], a["x"])), "all that tells them apart is of one task"


def test_p_values_of_many_sums_are_normal():
    a = {f"task {n}": torch.arange(1000 + n) < 150 for n in range(3)}
    b = {task: (torch.arange(len(own)) >= 150) & (torch.arange(len(own)) < 260) for task, own in a.items()}
    # Each that tells them apart falls either way by chance: their number alone is known.
    difference = sum(40 / len(own) for own in a.values()) / 3
    error = sum(260 / len(own) ** 2 for own in a.values()) ** 0.5 / 3
    assert average_p_value(a, b) == pytest.approx(math.erfc(difference / error / 2**0.5))


@pytest.mark.parametrize(("gained", "lost", "of"), [(20, 8, 60), (40, 20, 100), (300, 200, 2000)])
def test_p_values_of_one_task_are_those_of_mcnemar(gained, lost, of):
    a, b = torch.zeros(of, dtype=torch.bool), torch.zeros(of, dtype=torch.bool)
    a[:gained], b[gained : gained + lost] = True, True
    assert average_p_value({"x": a}, {"x": b}) == pytest.approx(mcnemar(a, b))


def test_tasks_of_nearly_one_size_are_told_apart():
    def outcomes(size, gained, lost):
        a, b = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        a[:gained], b[gained : gained + lost] = True, True
        return a, b

    (a, b), (c, d) = outcomes(10000, 3, 0), outcomes(10007, 0, 2)
    assert average_p_value({"x": a, "y": c}, {"x": b, "y": d}) == pytest.approx(0.4375)  # 14 of 32 signs


def test_p_values_of_many_tasks_take_no_time():
    """Of different sizes, with one image each that tells two models apart: 2^25 sums."""
    a = {f"task {n}": torch.arange(100 + n) == 0 for n in range(25)}
    b = {task: torch.zeros_like(correct) for task, correct in a.items()}
    alike = {f"task {n}": torch.arange(100) == 0 for n in range(18)}
    none = {task: torch.zeros_like(correct) for task, correct in alike.items()}
    assert average_p_value(alike, none) == pytest.approx(2 / 2**18), "exact where tasks are of one size"
    start = time.monotonic()
    assert average_p_value(a, b) < 1e-5 and time.monotonic() - start < 10


def test_few_images_that_tell_two_models_apart_are_counted_exactly():
    def outcomes(gained, lost, count=1000):
        a, b = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
        a[:gained], b[gained : gained + lost] = True, True
        return a, b

    for gained, lost in ((0, 0), (1, 0), (4, 0), (5, 0), (9, 3), (2, 2), (20, 5)):
        a, b = outcomes(gained, lost)
        assert average_p_value({"x": a}, {"x": b}) == pytest.approx(mcnemar(a, b)), (gained, lost)
        (a, b), (c, d) = outcomes(gained, lost), outcomes(1, 0, 100)
        by_hand, observed = 0.0, abs((gained - lost) / 1000 + 1 / 100)
        for k in range(gained + lost + 1):
            for sign in (-1, 1):
                chance = math.comb(gained + lost, k) / 2 ** (gained + lost) / 2
                by_hand += chance * (abs((2 * k - gained - lost) / 1000 + sign / 100) >= observed - 1e-9)
        if gained + lost < 25:
            assert average_p_value({"x": a, "y": c}, {"x": b, "y": d}) == pytest.approx(by_hand), (gained, lost)


def test_gate_record_counts(tmp_path):
    def write(name, pairs):
        report = {
            "gate": {task: {"chosen": chosen} for task, chosen, _ in pairs},
            "comparison": {task: {"difference": difference} for task, _, difference in pairs},
        }
        (tmp_path / name).write_text(json.dumps(report), encoding="utf-8")
        return tmp_path / name

    first = write("a.json", [("x", "specialist", 0.04), ("y", "specialist", -0.01)])
    second = write("b.json", [("x", "expert", -0.03), ("y", "expert", 0.02)])
    record = gate_record([first, second])
    assert (record.pairs, record.right, record.accepted) == (4, 2, 2)
    assert [round(x, 6) for x in (record.saved, record.cost, record.let_through, record.worst)] == [0.75, 0.5, 0.25, 1]
    assert math.isclose(record.ungated, 0.5) and math.isclose(record.gated, 0.75)
    assert "2 of 4 cases (50%)" in as_text(record)
    with pytest.raises(InputError, match=r"b2\.json"):
        gate_record([tmp_path / "b2.json"])


def test_finished_results_are_counted_once_and_as_they_are(tmp_path, monkeypatch, capsys):
    report = {"gate": {"x": {"chosen": "specialist"}}, "comparison": {"x": {"difference": 0.04}}}
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text(json.dumps(report), encoding="utf-8")
    code, out, _ = call(["study", "gate", *files], monkeypatch, capsys)
    assert code == 0 and "2 of 2 cases" in out
    for option in ("--task=x", "--images=all", "--setting=own", "--max-steps=3", "--output-dir=gate"):
        code, out, err = call(["study", "gate", *files, option], monkeypatch, capsys)
        name = option.split("=")[0]
        assert code == 2 and not out and err.startswith(f"Error: {name} is for recipes") and err.count("\n") == 1
    again = tmp_path / "." / "folder" / ".." / "a.json"
    (tmp_path / "folder").mkdir()
    code, _, err = call(["study", "gate", *files, again], monkeypatch, capsys)
    assert code == 2 and f"{again}: given twice" in err


def test_steps_of_students_need_students(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths)
    code, _, err = call(["study", "rank", recipe, "--max-steps", "1"], monkeypatch, capsys)
    assert code == 2 and "--max-steps is of the students: give --specialists too" in err and err.count("\n") == 1


@pytest.mark.parametrize("few_shot", [False, True])
def test_gate_record_of_weights_between(tmp_path, few_shot):
    """The whole specialist lost; what was kept of it gained."""
    report = {
        "gate": {"x": {"chosen": "specialist", "interpolation": 0.3}},
        "comparison": {"x": {"difference": -0.05}},
    }
    rows = {"expert": 0.80, "specialist": 0.82, "specialist_ungated": 0.75}
    if few_shot:
        report |= {name: {"by_task": {"x": value}} for name, value in rows.items()}
    else:
        report["accuracy"] = {name: {"x": value} for name, value in rows.items()}
    (tmp_path / "a.json").write_text(json.dumps(report), encoding="utf-8")
    record = gate_record([tmp_path / "a.json"])
    assert record.right == 1 and record.worst == 0 and math.isclose(record.gated, 2) and record.ungated == -5


def test_remembered_makes_again_what_has_changed(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"n": len(made)}

    assert [remembered(tmp_path / "x" / "o.json", key, make)["n"] for key in ("a", "a", "b")] == [1, 1, 2]


@pytest.mark.parametrize("content", [b"", b'{"key": "a", "fo', b"[]", b"5", b'{"found": {}}', b"\xff", b"[" * 100_000])
def test_a_damaged_outcome_is_made_anew(content, tmp_path, caplog):
    file = tmp_path / "o.json"
    file.write_bytes(content)
    assert remembered(file, "a", lambda: {"n": 1}) == {"n": 1}
    assert [record.getMessage() for record in caplog.records] == [f"{file} is damaged; it is made anew"]
    assert remembered(file, "a", lambda: pytest.fail("made again")) == {"n": 1} and len(caplog.records) == 1
