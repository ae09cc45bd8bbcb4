"""Test-time augmentation as rows of every comparison: right figures, no pass too many, tests that are told."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import TASKS, both_architectures, fit_arguments, specialize_arguments

from hf_mdft import MetaMerger, ModelPool
from hf_mdft.artifacts.report_page import write_report
from hf_mdft.cards import Difference, compared, in_order
from hf_mdft.cards.roster import ROSTER, VIEWS
from hf_mdft.embedding import embed_views
from hf_mdft.embedding.views import TEST_VIEWS
from hf_mdft.evaluation import Report, mcnemar, outputs, paired_interval, predict
from hf_mdft.evaluation.outputs import look
from hf_mdft.objectives import mean_log_probs


def with_decisions(merger, **chosen):
    """The merger with other decisions of the gate."""
    merger.specialists = {
        task: replace(made, decision=replace(made.decision, chosen=chosen[task]))
        for task, made in merger.specialists.items()
    }
    return merger


@pytest.fixture
def passes(monkeypatch):
    """How often each model was sent through its images, by the title of the progress bar."""
    counted, embed = Counter(), outputs.embed_images

    def count(*args, desc, **options):
        counted[desc.split(",")[0]] += 1
        return embed(*args, desc=desc, **options)

    monkeypatch.setattr(outputs, "embed_images", count)
    return counted


def over_views(merger, tower, head, images):
    """Log-probabilities over nine views, by the slow way."""
    return mean_log_probs(head(torch.stack(list(embed_views(tower, merger.pool.architecture, images, TEST_VIEWS)))))


def correct(merger, task, classes):
    return (classes == merger.labelled(task).labels).float().mean().item()


@both_architectures
def test_outputs_of_a_model_are_those_of_its_views(pool, merger):
    images, head = merger.labelled("colour").images, merger.head("colour")
    found = look(pool.tower("colour"), pool.architecture, head, images, views=TEST_VIEWS, desc="x")
    expected = over_views(merger, pool.tower("colour"), head, images)
    torch.testing.assert_close(found.log_probs.log_softmax(-1), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.classes_over_views, expected.argmax(-1))
    assert torch.equal(found.classes, predict(pool.tower("colour"), pool.architecture, head, images))
    plain = look(pool.tower("colour"), pool.architecture, head, images, desc="x")
    assert torch.equal(plain.logits, found.logits) and torch.equal(plain.features, found.features)
    torch.testing.assert_close(plain.log_probs, plain.logits.log_softmax(-1))
    assert not torch.equal(found.log_probs, plain.log_probs), "views differ"


def test_rows_are_the_expert_and_the_kept_specialist_over_nine_views(done, passes):
    with_decisions(done, shade="specialist", colour="expert", stripes="specialist")
    report = done.evaluate()
    for task in TASKS:
        images, head = done.labelled(task).images, done.head(task)
        expert = over_views(done, done.pool.tower(task), head, images).argmax(-1)
        kept = over_views(done, done.specialists[task].tower(), head, images).argmax(-1)
        assert report.accuracy["expert_views"][task] == pytest.approx(correct(done, task, expert))
        assert report.accuracy["specialist_views"][task] == pytest.approx(correct(done, task, kept))
    assert report.accuracy["specialist_views"]["colour"] == report.accuracy["expert_views"]["colour"]
    assert {task: passes[f"expert {task}"] for task in TASKS} == dict.fromkeys(TASKS, 9), "the first view is the image"
    once = {task: passes[f"specialist_ungated {task}"] for task in TASKS}
    assert once == {"shade": 9, "colour": 1, "stripes": 9}, "a refused candidate needs no views"
    others = {name: count for name, count in passes.items() if not re.match("expert|specialist", name)}
    assert set(others.values()) == {1} and len(others) == 4 * len(TASKS)
    assert not any(name in report.accuracy for name in ("specialist_ungated_views", "meta_views"))


def test_without_specialists_there_is_the_experts_row(pool, tasks):
    report = MetaMerger(pool, tasks).evaluate()
    assert "expert_views" in report.accuracy and "specialist_views" not in report.accuracy
    assert report.overall_views is None and report.overall_both_views is None and report.comparison_views == {}
    assert len(report.tests()) == 0 and "experts, 9 views" in str(report)


def test_a_task_without_an_expert_has_the_meta_models_views(clip_paths, tasks, tmp_path, passes):
    experts = {"shade": clip_paths["shade"], "stripes": clip_paths["stripes"], "colour": None}
    merger = MetaMerger(ModelPool.from_pretrained(clip_paths["base"], experts), tasks)
    merger.fit(fit_arguments(tmp_path))
    merger.specialize(specialize_arguments(tmp_path))
    with_decisions(merger, shade="expert", colour="expert", stripes="expert")
    report = merger.evaluate()
    meta = over_views(merger, merger.meta_tower(), merger.meta_head("colour"), merger.labelled("colour").images)
    assert report.accuracy["specialist_views"]["colour"] == pytest.approx(correct(merger, "colour", meta.argmax(-1)))
    assert [passes[f"meta {task}"] for task in ("shade", "colour", "stripes")] == [1, 9, 1]
    assert "colour" not in report.accuracy["expert_views"] and "expert_views" not in report.average
    assert set(report.comparison_views) == {"shade", "stripes"} and report.overall_views is not None


def test_paired_tests_are_those_of_the_rows(done, tmp_path):
    with_decisions(done, shade="specialist", colour="expert", stripes="specialist")
    report = done.evaluate()
    right = {"specialist": {}, "expert_views": {}, "specialist_views": {}}
    for task in TASKS:
        data, head = done.labelled(task), done.head(task)
        kept, expert = done.specialists[task].tower(), done.pool.tower(task)
        right["specialist"][task] = predict(kept, done.pool.architecture, head, data.images) == data.labels
        for name, tower in (("expert_views", expert), ("specialist_views", kept)):
            right[name][task] = over_views(done, tower, head, data.images).argmax(-1) == data.labels
        ours, theirs = right["specialist"][task], right["expert_views"][task]
        difference, low, high = paired_interval({task: ours}, {task: theirs})
        assert report.comparison_views[task] == Difference(difference, low, high, mcnemar(ours, theirs))
        assert done.record.measured[task].beside_views == report.comparison_views[task]
    for found, model in ((report.overall_views, "specialist"), (report.overall_both_views, "specialist_views")):
        assert (found.difference, found.low, found.high) == paired_interval(right[model], right["expert_views"])
        assert found.difference == pytest.approx(report.average[model] - report.average["expert_views"], abs=1e-6)
    content = json.loads(json.dumps(report.to_dict()))
    assert content["schema"] == 2 and set(content["passes"]) == set(content["accuracy"])
    assert {name: count for name, count in content["passes"].items() if count != 1} == {
        "expert_views": 9, "specialist_views": 9,
    }  # fmt: skip
    assert set(content["comparison_views"]["shade"]) == {"difference", "low", "high", "p_value"}
    done.specialists["shade"].save_pretrained(tmp_path / "shade")
    card = (tmp_path / "shade" / "README.md").read_text(encoding="utf-8")
    points = f"{100 * report.comparison_views['shade'].difference:+.1f} points"
    assert "| expert, 9 views |" in card and f"augmentation (9 passes, no training): {points}" in card


def test_the_roster_has_views_beside_plain_rows():
    assert VIEWS == len(TEST_VIEWS) and TEST_VIEWS[0] == (0, 0)
    names = [model.name for model in ROSTER]
    for name in ("expert", "specialist"):
        assert names[names.index(name) + 1] == f"{name}_views"
        assert compared(f"{name}_views").passes == VIEWS and f"{VIEWS} views" in compared(f"{name}_views").label
    assert in_order(["mine", "expert_views", "base", "expert"]) == ["base", "expert", "expert_views", "mine"]
    assert compared("mine").passes == 1 and compared("specialist_round_1").passes == 1


def test_tables_state_what_a_row_costs(tmp_path):
    models = ("base", "expert", "expert_views", "meta", "specialist", "specialist_views", "mine")
    report = Report(
        tasks=("a", "b"),
        accuracy={name: {"a": 0.5, "b": 0.6} for name in models},
        overall=Difference(0.01, -0.01, 0.02, 0.5),
        overall_views=Difference(-0.0123, -0.02, -0.01, 0.001),
        comparison_views={"a": Difference(-0.02, -0.03, -0.01, 0.004)},
        timing_s={"prepare": 7.0, "meta": 1.0, "specialist a": 10.0, "specialist b": 100.0, "baseline mine": 5.0},
        pool={"base": {"id": "x", "revision": "y"}, "experts": {}},
    )
    lines = str(report).splitlines()
    assert lines[0].endswith("average  passes")
    costs = {line[:22].strip(): line.split()[-1] for line in lines[1 : len(models) + 1]}
    assert costs == {compared(name).label: "9" if "views" in name else "1" for name in models}
    assert lines[-1] == (
        "Specialists over experts with 9 views: -1.23 points on average, 95 % interval -2.00 to -1.00, p = 0.001 "
        "(paired by image)"
    )
    write_report(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    cells = {row[0]: row[1:] for row in (re.findall(r"<td>(.*?)</td>", line) for line in page.splitlines()) if row}
    assert cells["experts"][-2:] == ["1", "-"] and cells["experts, 9 views"][-2:] == ["9", "-"]
    assert cells["meta-model"][-2:] == ["1", "1.0 s"] and cells["specialists, 9 views"][-2:] == ["9", "111.0 s"]
    assert cells["specialists"][-2:] == ["1", "111.0 s"] and cells["mine"][-2:] == ["1", "5.0 s"]
    assert cells["a"] == ["-2.0", "-3.0 to -1.0", "0.004"] and lines[-1] in page
