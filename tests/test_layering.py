"""A module imports only from its own stage and from stages below it."""

from __future__ import annotations

import ast
from pathlib import Path

import hf_mdft


ROOMS = (
    "peft_hook core hub cards architectures transforms objectives tasks restorations shifts pool convert heads "
    "adapter embedding teachers experts task_data evaluation artifacts trainers meta specialize reporting merger "
    "recipes studies bench demo cli __main__ __init__"
).split()
"""Lowest first: a module imports from its own room and from rooms before it."""

ALLOWED_TO_USE_THE_NETWORK = {"hub"}


def stages():
    root = Path(hf_mdft.__file__).parent
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        yield relative.parts[0].removesuffix(".py"), relative, ast.parse(path.read_text())


def imported_stages(relative, tree):
    package = list(relative.parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parent = package[: len(package) - (node.level - 1)]
            target = parent + (node.module.split(".") if node.module else [])
            yield from [target[0]] if target else [alias.name for alias in node.names]


def test_imports_go_down():
    rank = {name: number for number, name in enumerate(ROOMS)}
    wrong = []
    for stage, relative, tree in stages():
        for other in imported_stages(relative, tree):
            if other != stage and rank[other] >= rank[stage]:
                wrong.append(f"{relative} imports {other}")
    assert not wrong, wrong


def test_every_room_has_a_rank():
    assert {stage for stage, _, _ in stages()} <= set(ROOMS)


def test_only_some_stages_know_the_network():
    users = {
        stage
        for stage, _, tree in stages()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "huggingface_hub" and stage != "cache"
        for alias in node.names
        if alias.name in {"HfApi", "snapshot_download", "hf_hub_download"}
    }
    assert users <= ALLOWED_TO_USE_THE_NETWORK


def test_objectives_know_tensors_only():
    for stage, relative, tree in stages():
        if stage == "objectives":
            modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
            modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            typed = {"__future__", "collections", "dataclasses", "typing"}
            outside = {module.split(".")[0] for module in modules} - {"math", "torch", *typed}
            assert not outside, f"{relative} imports {outside}"


RESULT_FILES = {
    "mdft.json", "results.json", "report.html", "head.safetensors", "own_heads", "figures",
    "adapter_config.json", "adapter_model.safetensors", ".eval_results/mdft.yaml",
}  # fmt: skip


def test_only_artifacts_name_result_files():
    """The layout of result folders stands once; words of docstrings and messages are free."""
    wrong = []
    for room, relative, tree in stages():
        if room in ("artifacts", "hub"):  # the hub's card of a repo is no result of ours
            continue
        wrong += [
            f"{relative}:{node.lineno} names '{node.value}'"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip("/") in RESULT_FILES
        ]
    assert not wrong, wrong
