"""The gate: rules, answers between yes and no, and weights that are written accordingly."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import specialize_arguments

from hf_mdft import InputError
from hf_mdft.evaluation import accuracy, predict
from hf_mdft.objectives import estimate_prior
from hf_mdft.specialize import Source, decide, specialize_task
from hf_mdft.specialize.gate import (
    RULE,
    SHARES,
    Above,
    Familiarity,
    Furthest,
    Thresholds,
    Verdict,
    without_information,
)
from hf_mdft.specialize.teacher.ensemble import reliability


def source(seed, count=80, classes=4, scale=2.0, shift=None):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    if shift is not None:
        logits = torch.lerp(shift.logits, logits, 0.3)
    held_out = torch.randint(0, classes, (4, count), generator=generator)
    consistency = 0.7 + 0.3 * torch.rand((), generator=generator).item()
    return Source(logits, logits.log_softmax(-1), torch.zeros(count, 2), held_out, consistency)


def by_the_book(specialist, expert, others):
    """The rule as the documentation states it, written out."""
    gain = specialist.consistency - expert.consistency
    prior = estimate_prior(expert.logits.softmax(-1))
    q, p = (s.logits.softmax(-1).mean(0) for s in (specialist, expert))

    def kl(a, b):
        return (a * (a.clamp(min=1e-8) / b.clamp(min=1e-8)).log()).sum().item()

    drift = max(kl(prior, q), kl(q, p)) - kl(prior, p)
    told = [(1 / len(expert.held_out), view) for view in expert.held_out]
    told += [(reliability(s, expert), s.log_probs.argmax(-1)) for s in others.values()]
    total = torch.zeros(len(expert.logits))
    for weight, view in told:
        total += weight * ((specialist.predictions == view).float() - (expert.predictions == view).float())
    by_image = total / sum(weight for weight, _ in told)
    changed = (specialist.predictions != expert.predictions).float().mean().item()
    lead = by_image.mean().item()
    error = (by_image.std() / len(by_image) ** 0.5).item()
    yes = lead > max(0, 2 * error) or (gain >= 0.03 and drift <= 0.02 and lead >= -0.25 * changed)
    return ("specialist" if yes else "expert"), gain, drift, lead, error, changed, len(by_image)


def test_the_default_rule_decides_as_documented_to_the_last_bit():
    seen = set()
    for seed in range(60):
        expert = source(seed)
        specialist = source(1000 + seed, shift=expert)
        others = {"meta": source(2000 + seed, shift=expert), "base": source(3000 + seed)}
        decision = decide(specialist, expert, others)
        assert dataclasses.astuple(decision)[:7] == by_the_book(specialist, expert, others)
        assert decision.interpolation is None and decision.share == float(decision.improved)
        seen.add((decision.chosen, decision.reason.split(":")[0][:9]))
    assert {chosen for chosen, _ in seen} == {"specialist", "expert"}


def test_the_default_rule_looks_at_nothing_between():
    expert = source(0)
    decide(source(1, shift=expert), expert, {}, lambda share: pytest.fail(f"asked for {share}"))


def test_a_rule_may_choose_weights_between():
    """The share with the best score; figures are of these weights."""
    expert, specialist = source(0), source(1)
    half = dataclasses.replace(expert, consistency=expert.consistency + 0.2)
    between = {0.25: source(4), 0.5: half, 0.75: source(5)}
    for name in (0.25, 0.75):
        between[name] = dataclasses.replace(between[name], consistency=0.1)
    specialist = dataclasses.replace(specialist, consistency=expert.consistency + 0.1)
    decision = decide(specialist, expert, {}, between.__getitem__, Furthest("consistency"))
    assert (decision.chosen, decision.share, decision.interpolation) == ("specialist", 0.5, 0.5)
    assert decision.changed == 0 and decision.consistency_gain == pytest.approx(0.2)
    assert decision.reason == (
        "best at 50% of the way from expert to candidate: predictions that survive small translations +20.0 points"
    )
    refused = decide(specialist, expert, {}, between.__getitem__, Furthest("consistency", 0.3))
    assert (refused.chosen, refused.share) == ("expert", 0.0) and "needed more than +0.3" in refused.reason
    whole = decide(specialist, expert, {}, None, Furthest("consistency"))
    assert (whole.share, whole.interpolation) == (1.0, None), "without weights between there is the specialist alone"


def test_of_uneven_classes_weights_a_part_of_the_way_are_compared_and_kept():
    expert, asked = source(0), []
    half = dataclasses.replace(source(1, shift=expert), consistency=expert.consistency + 0.2)
    whole = dataclasses.replace(half, consistency=expert.consistency + 0.4)

    def between(share):
        asked.append(share)
        return half

    def decided(given, rule):
        asked.clear()
        return decide(whole, expert, {}, between, rule, given=given)

    uneven, even = Familiarity(100, evenness=0.89), Familiarity(100, evenness=0.9)
    found = decided(uneven, Above("consistency"))
    assert asked == [0.3] and (found.chosen, found.interpolation, found.share) == ("specialist", 0.3, 0.3)
    assert found.consistency_gain == pytest.approx(0.2), "figures are of these weights"
    assert found.reason.endswith("; classes of the images are uneven, as if of 89% of them")
    found = decided(uneven, Above("consistency", 0.3))
    assert (found.chosen, found.interpolation, found.share) == ("expert", None, 0.0)
    found = decided(even, Above("consistency", 0.3))
    assert (found.share, found.interpolation, asked) == (1.0, None, [])
    found = decided(uneven, Furthest("consistency"))
    assert asked == pytest.approx([0.3, 0.075, 0.15, 0.225]) and found.interpolation in asked
    assert not decided(dataclasses.replace(uneven, different=5), RULE).improved and not asked


def test_a_rule_may_be_one_score_above_a_threshold():
    expert = source(0)
    better = dataclasses.replace(expert, consistency=expert.consistency + 0.05)
    assert decide(better, expert, {}, rule=Above("consistency", 0.04)).chosen == "specialist"
    assert decide(better, expert, {}, rule=Above("consistency", 0.06)).chosen == "expert"
    with pytest.raises(InputError, match="unknown score 'consistensy': did you mean 'consistency'"):
        decide(better, expert, {}, rule=Above("consistensy"))


@pytest.fixture
def setting(merger):
    return merger.pool, merger.pool.tower("colour"), merger.head("shade"), merger.unlabelled("shade")


@dataclasses.dataclass(frozen=True)
class Half:
    def __call__(self, found):
        assert found.shares == SHARES
        return Verdict(0.5, "half of it")


def test_weights_between_are_written_and_kept(setting, tmp_path, monkeypatch):
    pool, meta, head, images = setting
    args = specialize_arguments(tmp_path, learning_rate=1e-2)
    first = specialize_task("shade", pool, meta, head, images, args)
    assert first.interpolated is None and first.chosen == first.candidate
    # Random models know little.
    monkeypatch.setattr("hf_mdft.specialize.one_task.familiarity", lambda *_: Familiarity(99))
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", Half())
    made = specialize_task("shade", pool, meta, head, images, args)
    assert made.decision.reason == "half of it", "a decision by another rule is not used again"
    assert made.decision.share == 0.5 and made.improved and "50% of the way from expert" in made.kept
    start, end, kept = (t.state_dict() for t in (pool.tower("shade"), made.tower(gated=False), made.tower()))
    assert any(not torch.equal(start[name], end[name]) for name in start)
    for name in kept:
        torch.testing.assert_close(kept[name], (start[name] + end[name]) / 2)
    made.save_pretrained(tmp_path / "saved")
    shown = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "Its weights lie 50 % of the way" in shown and "lies 50 % of the way to the candidate" in shown
    again = specialize_task("shade", pool, meta, head, images, args)
    assert again.decision == made.decision and again.interpolated == made.interpolated
    whole = specialize_task("shade", pool, meta, head, images, dataclasses.replace(args, gate=False))
    assert whole.decision.share == 1 and whole.decision.reason == "gate off (half of it)"
    assert whole.interpolated is None and "50 %" not in str(whole)


def test_a_task_without_an_expert_goes_half_way_from_the_meta_model(merger, tmp_path, monkeypatch):
    from hf_mdft.pool import ModelPool

    experts = {t: None if t == "shade" else s.folder for t, s in merger.pool.experts.items()}
    pool = ModelPool.from_pretrained(merger.pool.base.folder, experts)
    meta, head, images = pool.tower("colour"), merger.head("shade"), merger.unlabelled("shade")
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", Half())
    args = specialize_arguments(tmp_path, learning_rate=1e-2)
    made = specialize_task("shade", pool, meta, head, images, args)
    assert "from meta-model" in made.kept
    start, end, kept = (t.state_dict() for t in (meta, made.tower(gated=False), made.tower()))
    for name in kept:
        torch.testing.assert_close(kept[name], (start[name] + end[name]) / 2)


def test_results_are_of_the_weights_between(done, tmp_path, monkeypatch):
    """In the report, in later rounds, and in what is written of the report."""
    assert all("interpolation" not in gate for gate in done.evaluate().to_dict()["gate"].values())
    # Random models know little.
    monkeypatch.setattr("hf_mdft.specialize.one_task.familiarity", lambda *_: Familiarity(99))
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", Half())
    specialists = done.specialize(specialize_arguments(tmp_path, rounds=2, learning_rate=1e-2), ["shade"])
    source = specialists["shade"].pool.experts["shade"]
    assert source.folder.name == "interpolated" and "round-1" in str(source.folder)
    report = done.evaluate()
    data, head = done.labelled("shade"), done.head("shade")
    for model, gated in (("specialist", True), ("specialist_ungated", False)):
        found = predict(specialists["shade"].tower(gated), done.pool.architecture, head, data.images)
        assert report.accuracy[model]["shade"] == accuracy(found, data.labels)
    report.save(tmp_path / "results.json")
    shown = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["gate"]
    assert shown["shade"]["interpolation"] == 0.5 and "interpolation" not in shown["stripes"]


def test_the_rule_that_is_used_is_the_documented_one():
    assert RULE == Thresholds(0.03, 0.02, 0.25, 2.0, 0.95, 16, 0.02)


def test_agreement_with_the_specialist_beyond_chance_outweighs_the_rest():
    """As under a shift: less consistent, and other class frequencies, but what held-out views say."""
    truth = torch.arange(120) % 3
    nearly_one = truth.clone()
    nearly_one[12:] = 0
    made = {}
    for name, classes in {"expert": nearly_one, "specialist": truth}.items():
        z = 5 * torch.nn.functional.one_hot(classes, 3).float()
        made[name] = Source(z, z.log_softmax(-1), torch.zeros(120, 1), truth.expand(4, -1), 0.9)
    decision = decide(dataclasses.replace(made["specialist"], consistency=0.8), made["expert"], {})
    assert decision.chosen == "specialist" and "agree 60.0" in decision.reason and decision.consistency_gain < 0
    back = decide(made["expert"], made["specialist"], {})
    assert back.chosen == "expert"


@pytest.mark.parametrize(
    ("count", "classes", "reason"), [(15, 3, "15 different images are too few"), (120, 1, "takes 100% for one class")]
)
def test_images_that_are_no_evidence_keep_the_expert(count, classes, reason):
    """However much more consistent the specialist is."""
    predictions = torch.arange(count) % classes
    logits = 5 * torch.nn.functional.one_hot(predictions, 3).float()
    expert = Source(logits, logits.log_softmax(-1), torch.zeros(count, 1), predictions.expand(4, -1), 0.5)
    decision = decide(dataclasses.replace(expert, consistency=0.9), expert, {})
    assert decision.chosen == "expert" and reason in decision.reason


@pytest.mark.parametrize(("loss", "chosen"), [("distillation", "specialist"), ("information", "expert")])
def test_mutual_information_is_evidence_where_the_loss_does_not_train_it(loss, chosen):
    """The specialist is surer, and no other evidence is for it."""
    predictions = torch.arange(120) % 3
    logits = torch.nn.functional.one_hot(predictions, 3).float()
    expert = Source(logits, logits.log_softmax(-1), torch.zeros(120, 1), predictions.expand(4, -1), 0.9)
    rule = RULE if loss == "distillation" else without_information(RULE)
    decision = decide(dataclasses.replace(expert, logits=3 * logits), expert, {}, rule=rule)
    assert decision.chosen == chosen and ("mutual information" in decision.reason) == (chosen == "specialist")


def test_outputs_that_are_no_numbers_are_refused():
    expert = source(0)
    nothing = torch.full_like(expert.logits, torch.nan)
    broken = dataclasses.replace(source(1), logits=nothing, log_probs=nothing, consistency=1.0)
    decision = decide(broken, expert, {})
    assert decision.chosen == "expert" and "no finite numbers" in decision.reason
