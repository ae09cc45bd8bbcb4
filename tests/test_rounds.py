"""Rounds of phase 2, without a merger around them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TASKS

from hf_mdft import SpecializeArguments
from hf_mdft.core.hashing import fingerprint
from hf_mdft.core.timing import LATER_META
from hf_mdft.specialize import MetaTower, specialize_in_rounds, specialize_task
from hf_mdft.specialize.gate import Verdict
from hf_mdft.trainers.diverged import Diverged


@pytest.fixture
def run(merger, tmp_path):
    """Rounds on the tiny pool, and what was seen of them: pools of later rounds, folders, stages."""

    def make(folder="work", tasks=("shade", "stripes"), **options):
        seen = {"pools": [], "folders": [], "stages": []}

        def next_meta(pool, heads, folder):
            seen["pools"].append(pool)
            seen["folders"].append(folder)
            return MetaTower(pool.tower("colour"), merger.head)

        defaults = dict(
            max_steps=2,
            per_device_train_batch_size=8,
            fewer_steps=False,
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=1e-3,
        )
        given = options.pop("next_meta", next_meta)
        rounds = specialize_in_rounds(
            merger,
            MetaTower(merger.pool.tower("colour"), merger.head),
            SpecializeArguments(output_dir=str(tmp_path / folder), **{**defaults, **options}),
            tasks,
            next_meta=given,
            took=lambda stage, seconds: seen["stages"].append(stage),
        )
        return rounds, seen

    return make


@pytest.mark.slow
def test_specialists_become_the_experts_of_the_next_round(run, merger, tmp_path):
    rounds, seen = run(rounds=2, gate=False)
    assert len(rounds) == 2 and all(set(held) == {"shade", "stripes"} for held in rounds)
    assert seen["folders"] == [tmp_path / "work" / "round-1-next-meta"]
    made = ["specialist shade", "specialist stripes"]
    assert seen["stages"] == [*made, LATER_META, *made]
    (pool,) = seen["pools"]
    for task in TASKS:
        wanted = merger.pool.tower(task) if task == "colour" else rounds[0][task].tower()
        now = pool.tower(task).state_dict()
        assert all(torch.equal(now[name], tensor) for name, tensor in wanted.state_dict().items()), task
    for task in ("shade", "stripes"):
        one, two = rounds[0][task], rounds[1][task]
        assert one.candidate.parent.parent == tmp_path / "work" / "round-1" / task and one.pool is merger.pool
        assert two.candidate.parent.parent == tmp_path / "work" / "round-2" / task and two.pool is pool
        a, b = one.tower().state_dict(), two.tower().state_dict()
        assert any(not torch.equal(a[name], b[name]) for name in a), "the second round trains on"


def test_only_tasks_that_the_gate_chose_go_on(run, merger, monkeypatch):
    """Five rounds are allowed; in the second one the gate finds nothing."""
    chosen = iter(["specialist", "expert", "expert"])

    def specialize(*args, **options):
        made = specialize_task(*args, **options)
        return dataclasses.replace(made, decision=dataclasses.replace(made.decision, chosen=next(chosen)))

    monkeypatch.setattr("hf_mdft.specialize.rounds.specialize_task", specialize)
    rounds, seen = run(rounds=5)
    assert seen["stages"] == ["specialist shade", "specialist stripes", LATER_META, "specialist shade"]
    first, second = rounds
    assert first["shade"].improved and not first["stripes"].improved
    assert second["shade"] is first["shade"], "what was accepted stays where the next round found nothing better"
    assert second["stripes"] is first["stripes"]
    (pool,) = seen["pools"]
    changed = {task for task in TASKS if pool.reference()["experts"][task] != merger.pool.reference()["experts"][task]}
    assert changed == {"shade"}


def test_a_later_meta_model_that_diverges_ends_the_rounds(run, merger, monkeypatch, caplog):
    """What was made before it is none the worse."""

    def next_meta(*_):
        raise Diverged

    rounds, seen = run(rounds=3, gate=False, next_meta=next_meta)
    assert len(rounds) == 1 and all(made.improved for made in rounds[0].values())
    assert "no further round: the next meta-model's training diverged" in caplog.text


def test_rounds_without_a_gain_end_after_the_first(run, monkeypatch):
    monkeypatch.setattr("hf_mdft.specialize.one_task.RULE", lambda found: Verdict(0.0, "no"))
    rounds, seen = run(rounds=3)
    assert len(rounds) == 1 and not seen["pools"]
    assert not any(made.improved for made in rounds[0].values())
    assert run("none", rounds=0) == ([], {"pools": [], "folders": [], "stages": []})


def test_a_task_does_not_depend_on_those_before_it(run):
    """The seed is set for each."""
    together = run("together", ("shade", "stripes"))[0][0]["stripes"]
    alone = run("alone", ("stripes",))[0][0]["stripes"]
    a, b = together.tower(gated=False).state_dict(), alone.tower(gated=False).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a) and together.decision == alone.decision


def test_fingerprint_changes_with_everything_but_the_order():
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)}
    found = fingerprint(state)
    assert fingerprint(dict(reversed(state.items()))) == found and len(found) == 64
    assert fingerprint({"a": state["a"].clone().t().contiguous().t(), "b": state["b"]}) == found, "strides are nothing"
    others = [
        {"c": state["a"], "b": state["b"]},
        {"a": state["a"].view(3, 2), "b": state["b"]},
        {"a": state["a"].flip(0), "b": state["b"]},
        {"a": state["a"], "b": state["b"].half()},
        {"a": state["a"], "b": -state["b"]},
        {"a": state["a"]},
    ]
    assert len({found, *map(fingerprint, others)}) == 7
