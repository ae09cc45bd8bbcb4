"""`hf-mdft study teacher`: what each value of the teacher's options and constants is worth."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import call, write_recipe

from hf_mdft import Recipe
from hf_mdft.evaluation import predict
from hf_mdft.experts import weights
from hf_mdft.studies.teacher import CHOICES
from hf_mdft.studies.teacher.choices import present, using
from hf_mdft.studies.teacher.comparison import chosen_elsewhere, compared


@pytest.mark.parametrize("choice", CHOICES)
def test_one_value_of_every_choice_is_the_present_one(choice):
    found = [value for value, setting in CHOICES[choice].items() if all(present(n) == v for n, v in setting.items())]
    assert len(found) == 1


def test_constants_come_back():
    with pytest.raises(ZeroDivisionError), using({"weights.SHARPNESS": 1.0, "weights.NOISE": 3.0}):
        assert (weights.SHARPNESS, weights.NOISE) == (1.0, 3.0)
        raise ZeroDivisionError
    assert (weights.SHARPNESS, weights.NOISE) == (8.0, 0.2)


def test_a_value_is_chosen_by_tasks_of_other_names():
    right, wrong = torch.tensor([True, True]), torch.tensor([False, False])
    found = {
        "low": {"A/digits": right, "B/digits": right, "A/signs": wrong, "A/shirts": right},
        "high": {"A/digits": wrong, "B/digits": wrong, "A/signs": right, "A/shirts": wrong},
    }
    kept = chosen_elsewhere(found)
    # Digits: on signs and shirts the two are level, so the first; on signs "low" is ahead by the digits and shirts.
    assert kept["A/digits"] is found["low"]["A/digits"] and kept["A/signs"] is found["low"]["A/signs"]
    assert chosen_elsewhere(found, "high")["A/digits"] is found["high"]["A/digits"], "level: the present value stays"
    found["low"]["A/shirts"], found["high"]["A/shirts"] = wrong, right
    kept = chosen_elsewhere(found)
    assert kept["A/digits"] is kept["B/digits"] is found["high"]["A/digits"], "its own labels say 'low'"
    assert kept["A/signs"] is found["low"]["A/signs"]


def test_images_that_are_there_twice_count_once():
    torch.manual_seed(0)
    a, b = torch.rand(200) < 0.7, torch.rand(200) < 0.6
    once, twice = compared({"A/digits": a}, {"A/digits": b}), {"A/digits": a, "B/digits": a}
    assert compared(twice, {"A/digits": b, "B/digits": b}) == pytest.approx(once)
    apart = compared({"A/digits": a, "A/signs": a}, {"A/digits": b, "A/signs": b})
    assert apart[0] == pytest.approx(once[0]) and apart[2] - apart[1] == pytest.approx((once[2] - once[1]) / 2**0.5)
    difference = a.double() - b.double()
    mean, error = difference.mean().item(), difference.std(correction=0).item() / 200**0.5
    assert once[:3] == pytest.approx([mean, mean - 1.96 * error, mean + 1.96 * error])
    assert compared({"A/digits": a}, {"A/digits": a}) == (0, 0, 0, 1)


def test_the_study_measures_and_goes_on(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, specialize={"teacher": []})
    command = ["study", "teacher", recipe, "--task", "shade", "--task", "colour", "--output-dir", tmp_path / "out"]
    command += ["--choice", "views", "--choice", "sharpness"]
    code, out, err = call(command, monkeypatch, capsys)
    assert code == 0 and "chosen on the other tasks" in out and "**21**" in out
    assert "sharpness" not in out and "It changes nothing of these" in err
    rows = json.loads((tmp_path / "out" / "teacher.json").read_text(encoding="utf-8"))
    assert [row["value"] for row in rows] == [*CHOICES["views"], None]
    merger, (one, *_) = Recipe.load(recipe).merger(), rows
    assert {key.split("/")[1] for key in one["by_task"]} == {"shade", "colour"}
    for key, accuracy in one["by_task"].items():
        task, data = key.split("/")[1], merger.labelled(key.split("/")[1])
        plain = predict(merger.pool.tower(task), merger.pool.architecture, merger.head(task), data.images)
        assert accuracy == pytest.approx((plain == data.labels).double().mean().item())
    monkeypatch.setattr("hf_mdft.studies.teacher.bench.build_teacher", lambda *_: pytest.fail("made again"))
    assert call(command, monkeypatch, capsys)[:2] == (0, out)
    with using({"weights.NOISE": 0.5}), pytest.raises(pytest.fail.Exception, match="made again"):
        call(command, monkeypatch, capsys)  # nothing that was measured with other constants is used
    for wrong, said in (
        (["--choice", "vews"], "unknown choice 'vews': did you mean 'views'?"),
        (["--task", "x"], "unknown task 'x'"),
    ):
        code, _, err = call(["study", "teacher", recipe, *wrong], monkeypatch, capsys)
        assert code == 2 and said in err
    code, _, err = call(["study", "teacher", recipe, recipe], monkeypatch, capsys)
    assert code == 2 and "is called" in err


def test_the_values_are_listed(monkeypatch, capsys):
    code, out, _ = call(["study", "teacher", "--list"], monkeypatch, capsys)
    assert code == 0 and len(out.splitlines()) == len(CHOICES)
    (line,) = (line for line in out.splitlines() if line.startswith("sharpness"))
    assert line.split() == ["sharpness", "0,", "2,", "4,", "8,", "16,", "32", "default", "8"]
