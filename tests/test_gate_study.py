"""`hf-mdft study gate`: what rules keep of candidates, and how candidates are made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import call, write_recipe

from hf_mdft.objectives.scores import SCORES
from hf_mdft.specialize.gate import SHARES
from hf_mdft.studies.gate.policies import (
    RULES,
    Candidate,
    above,
    applied,
    choose_threshold,
    halves,
    result,
    spearman,
    within_tasks,
)
from hf_mdft.studies.gate.settings import SETTINGS, Given
from hf_mdft.studies.gate.study import tables


def candidate(gain, value, task="x", half=None, by_share=None, kept=0.0, accepted=()):
    gains = {0.0: 0.0, 0.25: gain / 4, 0.5: gain / 2 if half is None else half, 0.75: 3 * gain / 4, 1.0: gain}
    scores = {name: dict(by_share or {s: s * value for s in SHARES}) for name in SCORES.names()}
    score = dict.fromkeys(SCORES.names(), value)
    return Candidate("r", task, "own", 64, gains, score, scores, {s: s in accepted for s in SHARES}, kept)


def of_candidate(c):
    return 1.0, c.score["transport"]


def test_results_of_rules():
    found = [candidate(4.0, 1.0), candidate(-3.0, -1.0), candidate(2.0, -2.0), candidate(0.0, 0.5)]
    always = applied(RULES["always the candidate"], found)
    assert (always.cases, always.right, always.worst, always.gain) == (4, 0.75, 3.0, 0.75)
    assert always.kept == pytest.approx(3 / 6)
    oracle = applied(RULES["best of the two (oracle)"], found)
    assert (oracle.right, oracle.worst, oracle.kept) == (1.0, 0.0, 1.0)
    never = applied(RULES["always the expert"], found)
    assert (never.right, never.worst, never.gain, never.kept) == (0.5, 0.0, 0.0, 0.0)
    half = applied(RULES["always 50% of the way"], found)
    assert (half.right, half.worst, half.gain) == (0.25, 1.5, 0.375), "half of a gain is not as good as all of it"
    assert applied(RULES["always the expert"], []) is None and result([1.0], found[1:2]).kept is None


def test_oracle_and_rules_between():
    found = candidate(-2.0, 0.0, half=3.0, by_share={0.25: 1.0, 0.5: 2.0, 0.75: 2.0, 1.0: -1.0}, accepted=(0.25, 0.75))
    assert RULES["best share (oracle)"](found) == 0.5
    assert RULES["the largest share that it accepts"](found) == 0.75
    assert RULES["the rule that is used"](found) == 0.0
    assert found.best("snd") == (0.5, 2.0), "of equals the one nearest to the expert"
    assert result([0.5], [found]).right == 1.0 and result([0.5], [found]).gain == 3.0


def test_thresholds_are_the_best_and_the_careful():
    found = [candidate(4.0, 4.0), candidate(-0.5, 3.0), candidate(5.0, 2.0), candidate(-3.0, 1.0), candidate(1.0, 0.0)]
    best = choose_threshold(of_candidate, found)
    assert best == 1.5 and applied(above(of_candidate, best), found).gain == pytest.approx(8.5 / 5)
    assert choose_threshold(of_candidate, found, most_loss=1.0) == 1.5
    assert choose_threshold(of_candidate, found, most_loss=0.0) == 3.5
    hopeless = [candidate(-1.0, 1.0), candidate(-2.0, 2.0)]
    for most_loss in (None, 1.0):
        assert applied(above(of_candidate, choose_threshold(of_candidate, hopeless, most_loss)), hopeless).gain == 0
    good = [candidate(1.0, 1.0), candidate(2.0, 1.0)]
    assert applied(above(of_candidate, choose_threshold(of_candidate, good)), good).kept == 1.0


def test_thresholds_are_reported_on_tasks_that_they_were_not_chosen_on():
    found = [candidate(g, v, task) for task in "cab" for g, v in ((4.0, 2.0), (-4.0, 1.0))]
    found += [candidate(4.0, -3.0, "b")]
    assert halves(found) == (["a", "c"], ["b"])
    study = tables(found)
    (row,) = (row for row in study.yes_or_no if row.score == "transport")
    assert row.threshold == 1.5 and (row.chosen.cases, row.chosen.kept) == (4, 1.0)
    assert (row.reported.cases, row.reported.kept, row.reported.right) == (3, 0.5, pytest.approx(2 / 3))
    (row,) = (row for row in study.scores if row.score == "transport")
    assert row.sign == pytest.approx(3 / 7)
    assert tables(found[:2]).yes_or_no[0].reported is None


def test_rank_correlation():
    a, b = [1.0, 2.0, 2.0, 5.0, 0.0], [10.0, 9.0, 9.0, 30.0, -1.0]
    ranks = [np.array([1, 2.5, 2.5, 4, 0]), np.array([3, 1.5, 1.5, 4, 0])]
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman(a, a) == pytest.approx(1) and spearman(a, [1.0] * 5) is None
    found = [candidate(g, v, task) for task, sign in (("a", 1), ("b", -1)) for g, v in ((1, sign), (2, 2 * sign))]
    assert within_tasks(found, lambda c: c.score["snd"]) == pytest.approx(0)


def test_settings_choose_images_without_labels(merger):
    images = merger.unlabelled("shade")
    predictions = torch.tensor([1] * 10 + [2] * 14)
    given = Given(images, predictions, 6, 0)
    one = SETTINGS["one-class"].images(given)
    late = images.subset(range(10, 24))
    assert len(one) == 6 and one.digests() <= late.digests()
    few = SETTINGS["duplicates"].images(Given(images, predictions, None, 0))
    assert len(few) == len(images) == 24 and len(few.digests()) == 8
    assert len(SETTINGS["own"].images(given)) == 6
    assert len(SETTINGS["one-class"].images(Given(images, predictions, None, 0))) == 14


QUICK = {"meta": {"max_steps": 3, "images_per_task": 4, "head_steps": 3, "use_cpu": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gate-study")


def command(recipe, folder, *options):
    return ["study", "gate", recipe, "--output-dir", folder / "out", "--task", "shade", "--task", "stripes", *options]


@pytest.mark.slow
def test_the_study_from_recipe_to_tables(clip_paths, folder, monkeypatch, capsys):
    from hf_mdft.merger import MetaMerger
    from hf_mdft.specialize import StudentTrainer

    recipe = write_recipe(folder, clip_paths, **QUICK)
    seen, train = [], StudentTrainer.train

    def watched(self, **kwargs):
        args = self.args
        seen.append((args.learning_rate, args.max_steps, args.num_train_epochs, len(self.train_dataset)))
        return train(self, **kwargs)

    monkeypatch.setattr(StudentTrainer, "train", watched)
    options = ["--images", "8", "--images", "all", "--images", "64"]
    options += [f"--setting={name}" for name in ("own", "rate", "epochs", "duplicates")]
    code, out, err = call(command(recipe, folder, *options), monkeypatch, capsys)
    assert code == 0, err
    assert [one[1:] for one in seen[:5]] == [(2, 3.0, 8), (2, 3.0, 24), (2, 3.0, 8), (2, 3.0, 24), (-1, 30, 24)]
    assert seen[2][0] == pytest.approx(5 * seen[0][0]), "64 of 24 images are all of them: made once"
    found = json.loads((folder / "out" / "gate.json").read_text(encoding="utf-8"))
    assert len(found["candidates"]) == len(seen) == 14
    assert found["chosen_on"] == ["shade"] and found["reported_on"] == ["stripes"]
    assert set(found["candidates"][0]["score"]) == set(SCORES.names())
    for title in ("14 candidates", "Scores against the true gain", "| always the candidate |", "| transport |"):
        assert title in out
    for left in ("work/*/*/*/work", "**/model.safetensors"):  # weights and checkpoints of candidates are many
        assert not list((folder / "out").glob(left))
    # Again: nothing is trained, and a score's new version needs no training either.
    monkeypatch.setattr(StudentTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(MetaMerger, "fit", lambda *_, **__: pytest.fail("fitted again"))
    assert call(command(recipe, folder, *options), monkeypatch, capsys)[:2] == (0, out)
    monkeypatch.setattr("hf_mdft.studies.gate.candidates.SCORES_VERSION", 0)
    assert call(command(recipe, folder, *options), monkeypatch, capsys)[:2] == (0, out)


@pytest.mark.slow
def test_what_is_stored_of_a_candidate_is_true(clip_paths, folder, monkeypatch, capsys):
    """Against the same candidate made by hand."""
    from safetensors.torch import load_file

    from hf_mdft.recipes.schema import Recipe
    from hf_mdft.studies.outcome import outcome, pack

    recipe = write_recipe(folder, clip_paths, **QUICK)
    assert call(command(recipe, folder, "--images=24", "--setting=rate"), monkeypatch, capsys)[0] == 0
    stored = folder / "out" / "work" / folder.name / "shade" / "rate-24"
    found = json.loads((stored / "outcome.json").read_text(encoding="utf-8"))["found"]
    loaded = Recipe.load(write_recipe(folder, clip_paths, **QUICK))
    merger = loaded.merger()
    merger.fit(loaded.meta_arguments(folder / "by-hand"))
    from hf_mdft.specialize.learning_rate import gentle_learning_rate

    rate = 5 * gentle_learning_rate(merger.pool, "shade")
    args = loaded.specialize_arguments(folder / "by-hand", images=24, learning_rate=rate, gate=False)
    made = merger.specialize(args, ["shade"])["shade"]
    assert found["decision"]["consistency_gain"] == made.decision.consistency_gain
    assert found["decision"]["reason"] == made.decision.reason
    for share, tower in (("0", merger.pool.tower("shade")), ("1", made.tower(gated=False))):
        assert found["correct"][share] == pack(outcome(merger, ["shade"], lambda _, t=tower: t))["shade"]
    assert set(found["correct"]) == {"0", "0.25", "0.5", "0.75", "1"} and len(found["correct"]["0"]) == 12
    scores = json.loads((stored / "scores.json").read_text(encoding="utf-8"))["found"]
    assert scores["score"]["consistency"] == pytest.approx(made.decision.consistency_gain)
    assert scores["score"]["class_drift"] == pytest.approx(-made.decision.drift, abs=1e-6)
    assert scores["score"]["agreement"] == pytest.approx(made.decision.agreement_gain)
    assert (scores["kept_share"] < 1) == ("gate off" in made.decision.reason) == (not scores["accepted"]["1"])
    assert scores["scores"]["consistency"]["1"] == scores["score"]["consistency"]
    outputs = load_file(stored / "outputs.safetensors")
    assert outputs["0/logits"].shape == outputs["0.5/logits"].shape == (24, 3)
    assert set(scores["scores"]) == set(SCORES.names())
    assert set(scores["scores"]["snd"]) == {"0.25", "0.5", "0.75", "1"}


@pytest.mark.slow
def test_steps_are_limited_in_both_phases(clip_paths, tmp_path, monkeypatch, capsys):
    from hf_mdft.meta import MdftTrainer
    from hf_mdft.specialize import StudentTrainer

    steps = []
    for kind in (MdftTrainer, StudentTrainer):

        def train(self, *, real=kind.train, **kwargs):
            steps.append(self.args.max_steps)
            return real(self, **kwargs)

        monkeypatch.setattr(kind, "train", train)
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    options = ["--images=all", "--setting=own", "--setting=epochs", "--max-steps=1"]
    assert call([*command(recipe, tmp_path, *options)], monkeypatch, capsys)[0] == 0
    assert steps == [1] * 5


def test_recipes_and_results_are_told_apart(clip_paths, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"gate": {"x": {"chosen": "expert"}}, "comparison": {"x": {"difference": -0.1}}}))
    code, out, _ = call(["study", "gate", results], monkeypatch, capsys)
    assert code == 0 and "right in 1 of 1 cases" in out
    for wrong, message in (
        ([recipe, results], "not both"),
        ([recipe, "--setting", "one-clas"], "unknown setting 'one-clas': did you mean 'one-class'"),
        ([recipe, "--task", "shad"], "unknown task 'shad': did you mean 'shade'"),
        ([recipe, recipe], "rename one of the files"),
        ([recipe, "--images", "1"], "--images"),
    ):
        code, _, err = call(["study", "gate", *wrong, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
        assert code == 2 and message in err, err
