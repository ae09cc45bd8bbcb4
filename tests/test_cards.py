"""Model cards: they parse, say what is true, and equal the golden ones in `model_cards/`.

After a wanted change: `UPDATE_CARDS=1 pytest tests/test_cards.py`, and read the difference.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from jinja2 import UndefinedError

from hf_mdft.cards import (
    Decision,
    Difference,
    Measured,
    MetaFacts,
    PoolFacts,
    SpecialistFacts,
    eval_results_file,
    meta_card,
    pool_card,
    specialist_card,
)
from hf_mdft.cards.facts import Trust, check_facts
from hf_mdft.cards.licenses import ORDER, CombinedLicense, combined_license
from hf_mdft.cards.markdown import recipe_text, render, without_html
from hf_mdft.core.data_reference import DataReference
from hf_mdft.core.reference import ModelReference, PoolReference


PIPELINES = ("zero-shot-image-classification", "image-classification", "image-feature-extraction")
GOLDEN = Path(__file__).parents[1] / "model_cards"
MNIST = ModelReference("tanganke/clip-vit-base-patch32_mnist", "b" * 40)
BASE = ModelReference("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268")
OWN_FOLDER = ModelReference("/home/someone/models/own", "sha256:" + "c" * 64)
REFERENCE = PoolReference(BASE, {"mnist": MNIST, "own": OWN_FOLDER, "none": None})
PROBLEM = "no license stated, ask the owner before you publish what is made from it: tanganke/x"
GATE = Decision(
    "specialist", 0.05, 0.001, 0.0172, 0.0026, 0.089, 4000, "8.9 % of predictions changed, consistency +5.0"
)
KEPT = replace(GATE, chosen="expert", reason="no improvement shown: agreement 0.02 +- 0.26 points")
RECIPE = {
    "pool": {"base": BASE.spec, "experts": {"mnist": MNIST.spec, "own": "own", "none": None}},
    "tasks": {"mnist": {"unlabelled": {"path": "ylecun/mnist", "split": "train[:4000]"}}},
    "meta": {"max_steps": 300, "learning_rate": 0.01},
    "seed": 0,
}
DIGITS = tuple(f"digit {i}" for i in range(10))
TEST_SPLIT = DataReference("ylecun/mnist", split="test")
META = MetaFacts(
    pool=PoolFacts(REFERENCE, CombinedLicense("mit", ())),
    granularity="tensor",
    transform={"name": "identity"},
    pipeline_tag="zero-shot-image-classification",
    loader="CLIPModel",
    tasks=("mnist", "own"),
    unlabelled={"mnist": DataReference("ylecun/mnist", split="train[:4000]"), "own": None},
    history=({"loss": 1.0, "step": 10},),
    kept={"mnist": {"distillation": 0.9, "entropy": 0.4}, "own": {"entropy": 0.5}},
    recipe=RECIPE,
    versions={"python": "3.11", "hf-mdft": "0.1.0"},
)
MEASURED = {
    "mnist": Measured(
        {"base": 0.48, "expert": 0.9, "expert_views": 0.91, "meta": 0.7, "specialist_ungated": 0.9, "specialist": 0.9},
        1000,
        TEST_SPLIT,
        0.0,
    ),
    "own": Measured({"base": 0.5, "meta": 0.6}, 200, DataReference(count=200), 1.0),
}
AVERAGE = {"base": 0.49, "meta": 0.65}
TRAINED_ON = replace(META, pool=PoolFacts(REFERENCE, CombinedLicense("mit", (PROBLEM,))))
SPECIALIST = SpecialistFacts("mnist", TRAINED_ON, GATE, DIGITS, "pooler_output", 'a photo of the number: "{}".')
OF_MNIST = Measured(
    {
        "base": 0.482, "expert": 0.731, "expert_views": 0.772, "meta": 0.616, "specialist_ungated": 0.785,
        "specialist": 0.785, "specialist_views": 0.79,
    },
    1000,
    TEST_SPLIT,
    0.0,
    0.054,
    1.1e-9,
    Difference(0.013, 0.001, 0.025, 0.04),
)  # fmt: skip
FIGURES = {"Merging coefficients of the meta-model": "figures/coefficients.png"}
OWN = SpecialistFacts(
    "own",
    replace(
        META,
        pool=PoolFacts(REFERENCE),
        pipeline_tag="image-classification",
        unlabelled={"own": DataReference.of({"path": "parquet", "data_files": "/home/someone/secret/own.parquet"})},
        recipe=None,
    ),
    KEPT,
    ("a", "b"),
    "last_hidden_state[:, 0]",
)
POOL_TASKS = {
    "mnist": {"class_names": list(DIGITS), "templates": "mnist", "unlabelled": {"path": "ylecun/mnist"}},
    "own": {},
}
PUBLIC = PoolReference(BASE, {"mnist": MNIST, "none": None})

CARDS = {
    "specialist": lambda: specialist_card(SPECIALIST, OF_MNIST, figures=FIGURES),
    "specialist_vision_only": lambda: specialist_card(SPECIALIST, OF_MNIST, figures=FIGURES, vision_only=True),
    "expert_kept": lambda: specialist_card(OWN),
    "meta_model": lambda: meta_card(META, MEASURED, AVERAGE),
    "meta_model_folded": lambda: meta_card(META, MEASURED, AVERAGE, folded=True),
    "pool": lambda: pool_card(PoolFacts(PUBLIC, CombinedLicense("mit", ("no license stated: a/b",))), POOL_TASKS),
}


@pytest.mark.parametrize("name", CARDS)
def test_golden_cards(name):
    text, file = str(CARDS[name]()), GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_CARDS"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
    assert "\n\n\n" not in text.split("---", 2)[2].strip()


def test_cards_tell_what_was_done():
    """Static merges, and phase 2 with other options than the defaults."""
    options = {**RECIPE, "meta": {"max_steps": 0}}
    static = " ".join(str(meta_card(replace(META, history=(), kept={}, recipe=options))).split())
    assert "static combination" in static and "learned" not in static and "saw no image and no label" in static

    def card(facts=SPECIALIST, **options):
        meta = replace(facts.meta, recipe={**RECIPE, "specialize": options})
        return " ".join(str(specialist_card(replace(facts, meta=meta))).split())

    assert "student that started at the expert was" in card() and "moving average" in card()
    assert "the expert moved by 0.5 of the way" in card(start=0.5) and "at the meta-model was" in card(start=1.0)
    alone = card(teacher_views=False, ensemble_weight=0.0, ema_decay=0.0, gate=False)
    assert "soft targets of the expert. 3. The label-free gate was off" in alone and "can be wrong" not in alone
    assert "soft targets" not in card(distillation_weight=0.0) and "more consistent" not in card(teacher=["lda"])


@pytest.mark.parametrize(
    ("recipe", "history", "trained"),
    [
        ({"meta": {"max_steps": 4}}, (), True),
        ({"meta": {"max_steps": -1}}, (), True),
        ({"meta": {"max_steps": 0}}, (), False),
        ({}, META.history, True),
        ({}, (), False),
        (None, (), False),
        ({"meta": None}, (), False),
    ],
)
def test_a_training_without_a_log_line_is_no_static_merge(recipe, history, trained):
    """A finished training that is read from its checkpoint has no log line where it had few steps."""
    meta = replace(META, recipe=recipe, history=history, kept={})
    of_meta, of_task = str(meta_card(meta)), str(specialist_card(replace(SPECIALIST, meta=meta)))
    assert ("were learned **without one" in of_meta) == ("were trained on unlabelled images" in of_meta) == trained
    assert ("static" in of_meta) != trained
    assert ("lambda were trained on" in of_task) == trained and ("fixed coefficients" in of_task) != trained


@pytest.mark.parametrize("allowed", [True, False, None])
def test_limitations_name_experts_that_were_not_compared_with_the_base(allowed):
    pool = RECIPE["pool"] | ({} if allowed is None else {"allow_base_mismatch": allowed})
    meta = replace(META, recipe={**RECIPE, "pool": pool})
    for card in (meta_card(meta), meta_card(meta, folded=True), specialist_card(replace(SPECIALIST, meta=meta))):
        limitations = str(card).partition("## Limitations")[2]
        assert ("without a check that they come from its base (`allow_base_mismatch`)" in limitations) is bool(allowed)
        assert re.search(r"\n\n## Versions", limitations) and "\n\n\n" not in limitations
    of_others = replace(META, recipe={"pool": "lab/pool", "meta": 5})
    assert "allow_base_mismatch" not in str(meta_card(of_others))


@pytest.mark.parametrize(
    ("task", "weights", "whose"),
    [
        ("mnist", {}, "the expert"),
        ("mnist", {"mnist": 1.0}, "the expert"),
        ("mnist", {"mnist": 0.25, "teacher res_net": 0.75}, "the expert and of teachers from outside the pool"),
        ("mnist", {"mnist": 0.0, "teacher res_net": 1.0}, "teachers from outside the pool"),
        (
            "two",
            {"two/1": 0.25, "two/2": 0.25, "teacher res_net": 0.5},
            "the experts and of teachers from outside the",
        ),
        ("two", {"two/1": 0.5, "two/2": 0.0, "related mnist": 0.5}, "the experts and of experts of related tasks"),
        ("none", {"teacher res_net": 1.0}, "teachers from outside the pool"),
        ("none", {}, "the meta-model"),
    ],
)
def test_a_card_tells_whom_the_student_learned_from(task, weights, whose):
    pool = PoolFacts(PoolReference(BASE, {"mnist": MNIST, "two": (MNIST, OWN_FOLDER), "none": None}))
    recipe = {"specialize": {"ensemble_weight": 1.0}}
    trust = Trust({"mnist": "mnist", "two": "two/1"}.get(task), weights=weights)
    facts = replace(SPECIALIST, task=task, meta=replace(META, pool=pool, recipe=recipe), trust=trust)
    text = str(specialist_card(facts))
    assert f"on soft targets of {whose}" in text
    base = "the meta-model and base" if whose != "the meta-model" else "the base"
    assert f"of {base}, each averaged" in text
    shares = next((line for line in text.splitlines() if "lets each be trusted" in line), "")
    others = {name: share for name, share in weights.items() if " " in name}
    assert bool(shares) == (task == "two" or bool(others))
    assert all(f"{name}, trusted {share:.0%}".replace("_", "\\_") in shares for name, share in others.items())
    assert shares.count(", trusted ") == (len(weights) if shares else 0)
    assert shares.startswith(
        "- Models that may teach the task" if others else "- Experts of the task" if shares else ""
    )


def test_metadata_of_a_specialist():
    data = ModelCard(str(CARDS["specialist"]())).data
    assert data.base_model == ["openai/clip-vit-base-patch32", "tanganke/clip-vit-base-patch32_mnist"]
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.license == "mit" and data.library_name == "transformers" and data.datasets == ["ylecun/mnist"]
    assert data.pipeline_tag == "zero-shot-image-classification"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.785)
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert "| **this model** | 78.5 % | 1 |" in str(CARDS["specialist"]()) and "refused" not in str(
        CARDS["specialist"]()
    )


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_what_the_hub_takes(name):
    card = ModelCard(str(CARDS[name]()))
    data = card.data.to_dict()
    assert data["license"] in ORDER if "license" in data else name == "expert_kept"
    assert data["library_name"] in ("transformers", "peft", "hf_mdft") and "mdft" in data["tags"]
    assert data.get("base_model_relation") in (None, "finetune", "adapter", "merge")
    assert data.get("pipeline_tag", "image-classification") in PIPELINES
    assert len(re.findall(r"^```", card.text, re.MULTILINE)) % 2 == 0, "code blocks are closed"
    assert not re.search(r"Undefined|\bNone\b|\{\{|\{%", card.text)
    for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        compile(block, name, "exec")
    for block in re.findall(r"```yaml\n(.*?)```", card.text, re.DOTALL):
        assert "pool" in yaml.safe_load(block)


def test_a_meta_models_results_and_relations():
    adapter, folded = (ModelCard(str(CARDS[name]())).data for name in ("meta_model", "meta_model_folded"))
    assert adapter.to_dict()["base_model_relation"] == "adapter" and folded.to_dict()["base_model_relation"] == "merge"
    assert adapter.base_model[0] == "openai/clip-vit-base-patch32" and len(adapter.base_model) == 2
    assert {result.dataset_name: result.metric_value for result in adapter.eval_results} == {"mnist": 0.7, "own": 0.6}
    assert folded.pipeline_tag == "zero-shot-image-classification" and adapter.pipeline_tag is None


def test_a_task_without_an_expert_is_made_of_all():
    card = specialist_card(replace(SPECIALIST, task="none", class_names=("a", "b")))
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert card.data.base_model == ["openai/clip-vit-base-patch32", "tanganke/clip-vit-base-patch32_mnist"]


def test_nothing_of_this_machine_is_told():
    for make in CARDS.values():
        assert "someone" not in str(make()) and "secret" not in str(make())
    assert CARDS["expert_kept"]().data.base_model == ["openai/clip-vit-base-patch32"]


def test_a_kept_expert_is_not_called_better():
    text = str(CARDS["expert_kept"]())
    assert "unchanged" in text and "fine-tuned further" not in text and "nothing was measured" in text
    assert "No labels were used" in text
    refused = replace(OF_MNIST, accuracy={**OF_MNIST.accuracy, "specialist": 0.731})
    text = str(specialist_card(replace(SPECIALIST, gate=KEPT), refused))
    assert "| candidate that the gate refused | 78.5 % | 1 |" in text and "| **this model** | 73.1 % | 1 |" in text
    assert "Refused candidate against expert" in text


def test_an_expert_that_nothing_was_trained_from_has_no_candidate():
    gate = replace(KEPT, reason="nothing trained: too few images", trained=False)
    text = str(specialist_card(replace(SPECIALIST, gate=gate), OF_MNIST))
    assert f"asked to improve it without labels: {gate.reason}." in text and "2. There is no student of " in text
    assert "candidate that" not in text and "andidate against" not in text and "tried to" not in text


BETTER = "**The expert with test-time augmentation is better than this model**"


@pytest.mark.parametrize(
    ("difference", "p_value", "said", "not_said"),
    [
        (-0.02, 0.001, f"{BETTER}.", "may be chance"),
        (-0.02, 0.2, f"{BETTER}, which may be chance.", "This model is better"),
        (0.02, 0.001, "This model is better.", BETTER),
        (0.02, 0.2, "This model is better, which may be chance.", BETTER),
        (0.0, 1.0, "Both are equally accurate.", BETTER),
    ],
)
def test_a_card_tells_how_the_model_compares_with_test_time_augmentation(difference, p_value, said, not_said):
    beside = Difference(difference, difference - 0.01, difference + 0.01, p_value)
    text = " ".join(str(specialist_card(SPECIALIST, replace(OF_MNIST, beside_views=beside))).split())
    assert said in text and not_said not in text
    numbers = f"{100 * difference:+.1f} points (95 % interval {100 * beside.low:+.1f} to {100 * beside.high:+.1f}, "
    assert f"with test-time augmentation (9 passes, no training): {numbers}McNemar's exact test p" in text


def test_cards_state_what_a_row_costs():
    text = str(CARDS["specialist"]())
    rows = [line.split(" | ")[0].strip("| *") for line in text.splitlines() if re.match(r"\| .* % \| \d+ \|$", line)]
    assert rows == [
        "base model", "expert", "expert, 9 views", "meta-model", "this model", "this model**, 9 views"
    ]  # fmt: skip
    assert "| expert, 9 views | 77.2 % | 9 |" in text and "| **this model**, 9 views | 79.0 % | 9 |" in text
    meta = str(CARDS["meta_model"]())
    assert "| expert, 9 views | 91.0 | - | - | 9 |" in meta and "| expert | 90.0 | - | - | 1 |" in meta
    without = str(specialist_card(SPECIALIST, replace(OF_MNIST, beside_views=None)))
    assert "with test-time augmentation (" not in without


def test_user_text_is_escaped():
    bad = "x](http://evil) <script>alert(1)</script> | y\n# heading ```"
    pool = PoolFacts(PoolReference(BASE, {bad: None}), CombinedLicense("mit", (bad,)))
    meta = replace(
        META, pool=pool, tasks=(bad,), unlabelled={bad: DataReference(bad)}, trained_heads=(bad,),
        kept={bad: {"entropy": 0.5}}, recipe={"tasks": {bad: {"class_names": [bad]}}},
    )  # fmt: skip
    facts = SpecialistFacts(bad, meta, GATE, (bad, "b"), "pooler_output", bad + "{}")
    measured = Measured({"specialist": 0.5, "meta": 0.5}, 3, DataReference(bad), 0.0)
    for text in (
        str(specialist_card(facts, measured)),
        str(meta_card(meta, {bad: measured}, {})),
        str(pool_card(pool, {bad: {"class_names": [bad], "templates": [bad]}})),
    ):
        body = re.sub(r"^```(python|yaml)\n.*?^```$", "", text.split("---", 2)[2], flags=re.DOTALL | re.MULTILINE)
        assert "\\<script\\>" in body and "\n# heading" not in body
        assert not re.search(r"(?<!\\)(<script|\]\(http://evil)", body)
        assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0
        assert ModelCard(text).data.tags


def test_a_task_with_brackets_is_no_markup():
    trust = Trust("shade [v2]/2", "expert shade [v2]/2", {})
    facts = SpecialistFacts("shade [v2]", META, GATE, ("a", "b"), "pooler_output", trust=trust)
    check_facts(facts, "x")


def test_backslashes_open_no_element():
    assert without_html(r"\<b> \\<b> <b>") == r"\<b> \\&lt;b> &lt;b>"
    assert "\u202e" not in recipe_text({"tasks": {"a\u202eb": 1}}) and "é" in recipe_text({"tasks": {"é": 1}})


def test_results_in_the_hubs_own_format():
    text = eval_results_file({"mnist": (0.78549, TEST_SPLIT), "own": (0.5, None)}, "how")
    assert yaml.safe_load(text) == [
        {"dataset": {"id": "ylecun/mnist", "task_id": "default"}, "value": 0.7855, "notes": "how"}
    ]
    local = DataReference.of({"path": "parquet", "data_files": "x"})
    assert eval_results_file({"own": (0.5, local)}, "how") is None


def test_a_word_that_a_template_needs_is_an_error():
    with pytest.raises(UndefinedError):
        render("pool.md", card_data="", pool={}, base="b", placeholder="p", problems=[])


@pytest.mark.parametrize(
    ("stated", "license", "problem"),
    [
        ({"a": "mit", "b": "mit"}, "mit", None),
        ({"a": "mit", "b": "apache-2.0"}, "apache-2.0", None),
        ({"a": "mit", "b": "cc-by-nc-4.0"}, "cc-by-nc-4.0", None),
        ({"a": "gpl-3.0", "b": "apache-2.0"}, "gpl-3.0", None),
        ({"a": "cc-by-nc-sa-4.0", "b": "cc-by-nc-4.0"}, "cc-by-nc-sa-4.0", None),
        ({"a": "gpl-3.0", "b": "cc-by-nc-4.0"}, "cc-by-nc-4.0", "a (gpl-3.0) and b (cc-by-nc-4.0) set terms"),
        ({"a": "cc-by-sa-4.0", "b": "gpl-3.0"}, "gpl-3.0", "set terms that exclude each other"),
        ({"a": "mit", "b": "cc-by-nc-nd-4.0"}, "cc-by-nc-nd-4.0", "b (cc-by-nc-nd-4.0) forbids sharing derivatives"),
        ({"a": "mit", "b": "llama3"}, "other", "license 'llama3' cannot be compared, read its terms: b"),
        ({"a": "mit", "b": None}, None, "before you publish what is made from it: b"),
        ({"a": None}, None, "before you publish what is made from it: a"),
    ],
)
def test_licenses(stated, license, problem):
    found = combined_license(list(stated.items()))
    assert found.name == license
    assert any(problem in line for line in found.problems) if problem else not found.problems


def test_models_of_one_name_are_two():
    assert combined_license([("checkpoint", "gpl-3.0"), ("checkpoint", "mit")]).name == "gpl-3.0"
