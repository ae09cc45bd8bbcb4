"""Examples in docstrings are run, on the tiny pool in place of the Hub's."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
from conftest import TASKS, fit_arguments, specialize_arguments
from transformers import CLIPVisionModel

import hf_mdft
from hf_mdft import MdftConfig, MdftTrainer, MetaMerger, ModelPool, Task
from hf_mdft.core.reference import ModelReference
from hf_mdft.transforms import TRANSFORMS


class RunsAtLeast(doctest.OutputChecker):
    """An example without a printed result has to run; one with a result has to print it."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def examples():
    found = []
    for module in pkgutil.walk_packages(hf_mdft.__path__, "hf_mdft."):
        if not module.name.endswith(("__main__", "adapter.kernels")):  # the latter imports Triton
            finder = doctest.DocTestFinder(exclude_empty=True)
            found += [test for test in finder.find(importlib.import_module(module.name)) if test.examples]
    return {test.name: test for test in found}


EXAMPLES = examples()


def test_there_are_examples():
    assert {"hf_mdft.merger.MetaMerger", "hf_mdft.pool.manifest.ModelPool"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, clip_pool, clip_paths, unlabelled_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heads = MetaMerger(clip_pool, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])}).heads()
    names = {
        "pool": ModelPool.from_pretrained(clip_paths["base"], {"mnist": clip_paths["shade"]}),
        "images": {"shade": unlabelled_data["shade"]} if "Trainer" in name else unlabelled_data["shade"],
        "heads": heads,
        "base_vision_model": CLIPVisionModel.from_pretrained(clip_paths["base"]),
        "fit_args": fit_arguments(tmp_path),
        "specialize_args": specialize_arguments(tmp_path),
        **{part.__name__: part for part in (MdftConfig, MdftTrainer, MetaMerger, ModelPool, ModelReference, Task)},
        "TRANSFORMS": TRANSFORMS,
        "get_peft_model": __import__("peft").get_peft_model,
    }
    replaced = {
        "openai/clip-vit-base-patch32": str(clip_paths["base"]),
        "tanganke/clip-vit-base-patch32_mnist@main": str(clip_paths["shade"]),
        ".fit()": ".fit(fit_args)",
        ".specialize()": ".specialize(specialize_args)",
        "MdftTrainingArguments()": "fit_args",
    }
    if "Trainer" in name:
        names["pool"] = clip_pool
    test = EXAMPLES[name]
    kept = []
    for example in test.examples:
        for old, new in replaced.items():
            example.source = example.source.replace(old, new)
        if "me/my-pool" not in example.source:  # needs a Hub; tests/test_hub.py does it
            kept.append(example)
    test.examples, test.globs = kept, {**test.globs, **names}
    report: list[str] = []
    failed, tried = doctest.DocTestRunner(RunsAtLeast(), verbose=False).run(test, out=report.append)
    assert tried and not failed, "".join(report)
