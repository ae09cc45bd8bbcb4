"""README and docs: snippets are run or checked, links lead somewhere, generated tables follow the code."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import datasets
import pytest
import torch
import yaml
from conftest import TASKS, call, make_dataset, perturbed, write_recipe
from typer.main import get_command

from hf_mdft import MetaMerger, Recipe
from hf_mdft.recipes.presets import TRAINING_FREE


ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
STEPS = {
    "max_steps=300": "max_steps=2, head_steps=2",
    "max_steps=200": "max_steps=2",
    "max_steps: 300": "max_steps: 2, head_steps: 2",
    "max_steps: 200": "max_steps: 2",
}
"""Lengths of training in snippets, and here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, language: str | None = None) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    every = [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in found]
    return [block for block in every if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every(language: str, pages: list[Path] = PAGES) -> Any:
    return pytest.mark.parametrize("block", [b for page in pages for b in blocks(page, language)], ids=str)


# Text


def test_every_block_has_a_language_that_is_checked():
    assert {block.language for page in PAGES for block in blocks(page)} <= {"python", "bash", "yaml", "json", "text"}


def test_readme_has_two_screens():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100] == []


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_every_page_is_linked_from_the_readme_or_its_pages():
    linked = {Path(t.partition("#")[0]).name for p in PAGES for t in re.findall(r"\]\(([^)\s]+)\)", prose(p))}
    assert {page.name for page in DOCS} <= linked


def test_generated_tables_are_what_the_code_says():
    generate = load_script("generate")
    texts = [page.read_text(encoding="utf-8") for page in generate.PAGES]
    assert {found[2] for text in texts for found in generate.BLOCK.finditer(text)} == set(generate.BLOCKS)
    assert all(generate.generate(text) == text for text in texts), "run 'make docs'"


def test_figure_shows_the_table():
    figures = load_script("figures")
    accuracy = figures.read_table(figures.PAGE.read_text(encoding="utf-8"))
    drawn = re.findall(r">(\d+\.\d)<", figures.FIGURE.read_text(encoding="utf-8"))
    assert len(accuracy) == 3
    assert drawn == [f"{row[model]:.1f}" for model in figures.MODELS for row in accuracy.values()], "run 'make docs'"


def test_readme_has_the_figures_of_the_results_page():
    found = load_script("figures").read_table((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for pool, row in found.items():
        cells = " | ".join(f"{row[model]:.1f}" for model in ("base", "experts", "meta-model", "specialists"))
        assert re.search(rf"^\| {pool}: [^|]+ \| {re.escape(cells)} \|", readme, re.M), pool


# Commands


def commands() -> list[tuple[str, list[str]]]:
    """Where a command stands, and its words. A command without arguments in the text only names it."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
            found += [(str(block), words) for words in lines if words]
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            if code.startswith("hf-mdft "):
                words = shlex.split(code)
                found.append((page.name, words if re.search(r"[^a-z -]|--", code) else [*words, "--help"]))
            elif page.name == "cost.md" and code.startswith("--"):
                found.append((page.name, ["hf-mdft", "bench", *shlex.split(code)]))
    return found


def check_hf_mdft(words: list[str], capsys: pytest.CaptureFixture) -> str:
    """What is wrong with a command line, if anything is; it is parsed, not run."""

    def disarm(command: click.Command) -> None:
        command.callback = None
        for inner in getattr(command, "commands", {}).values():
            disarm(inner)

    from hf_mdft.cli.app import app

    command = get_command(app)
    disarm(command)
    with pytest.raises(SystemExit) as stop:
        command.main(words, "hf-mdft")
    if stop.value.code:
        return capsys.readouterr().err
    presets = {path.stem for path in (ROOT / "hf_mdft" / "recipes" / "presets").glob("*.yaml")} | {"NAME"}
    known = {"--preset": presets, "--baseline": presets | set(TRAINING_FREE)}
    wrong = [name for option, name in zip(words, words[1:], strict=False) if name not in known.get(option, {name})]
    return f"no such preset: {wrong}" if words[0] == "run" and wrong else ""


@pytest.mark.parametrize(
    "where, words", commands(), ids=lambda part: " ".join(part) if isinstance(part, list) else part
)
def test_command(where, words, capsys):
    if words[:2] == ["accelerate", "launch"]:
        words = ["hf-mdft", *words[words.index("hf_mdft") + 1 :]]
    if words[0] == "hf-mdft":
        assert check_hf_mdft(words[1:], capsys) == ""
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert set(words[1:]) <= set(targets)
    elif words[0] in ("bash", "python"):
        assert words[1] == "-c" or (ROOT / words[1]).is_file()
    else:
        assert words[:2] == ["pip", "install"], words


@pytest.mark.parametrize(
    "wrong",
    [
        "run",
        "run recipe.yaml --peer symerge",
        "run recipe.yaml --preset best",
        "run recipe.yaml --preset transclip",
        "pool pull me/pool",
        "bench --size huge",
    ],
)
def test_a_wrong_command_is_found(wrong, capsys):
    assert check_hf_mdft(wrong.split(), capsys)


# A small world in place of the Hub's models and data sets


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """Data sets of the snippets, by the ids that they have there."""
    folder = tmp_path_factory.mktemp("data")
    found = {"ylecun/mnist": ("shade", 10), "tanganke/dtd": ("colour", 4)}
    for task, classes in found.values():
        (folder / task).mkdir()
        for seed, (split, count) in enumerate({"train": 24, "test": 12}.items()):
            columns = make_dataset(task, count, seed)
            words = [str(number) for number in range(classes)] if classes == 10 else TASKS[task]
            names = datasets.ClassLabel(names=words)
            features = datasets.Features({"image": datasets.Image(), "label": names})
            renamed = datasets.Dataset.from_dict({key: list(columns[key]) for key in features}, features=features)
            renamed.to_parquet(folder / task / f"{split}.parquet")
    return {name: str(folder / task) for name, (task, _) in found.items()}


@pytest.fixture
def local(data, clip_paths) -> dict[str, str]:
    """Folders in place of models and data sets."""
    return {
        "openai/clip-vit-base-patch32": str(clip_paths["base"]),
        "tanganke/clip-vit-base-patch32_mnist": str(clip_paths["shade"]),
        "tanganke/clip-vit-base-patch32_dtd": str(clip_paths["colour"]),
        **data,
    }


def here(text: str, names: dict[str, str]) -> str:
    """A snippet with models, data sets and lengths of training that this machine has; longest names first."""
    for printed in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/]){re.escape(printed)}(?![\w/-])", names[printed], text)
    for printed, short in STEPS.items():
        text = text.replace(printed, short)
    return text


def main_recipe() -> Block:
    return blocks(ROOT / "docs" / "recipes.md", "yaml")[0]


@pytest.fixture
def recipe(local, tmp_path, monkeypatch) -> Path:
    """The recipe of docs/recipes.md, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(here(main_recipe().text, local), encoding="utf-8")
    return path


# Snippets


@every("yaml", [page for page in PAGES if page.name not in ("hub.md", "extending.md")])
def test_yaml(block, recipe, local):
    """Whole recipes, and parts of one put over the recipe of docs/recipes.md."""
    content = yaml.safe_load(here(block.text, local))
    if "pool" not in content:
        content = {**yaml.safe_load(recipe.read_text(encoding="utf-8")), **content}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    loaded = Recipe.load(recipe)
    loaded.merger(), loaded.meta_arguments("work"), loaded.specialize_arguments("work")
    for part in ("adapter", "meta", "specialize"):
        assert (content.get(part) or {}).items() <= getattr(loaded, part).items()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and page.name not in ("hub.md", "extending.md")],
    ids=lambda page: page.name,
)
def test_python(page, recipe, local, capsys):
    """Snippets of a page, one after the other; only names and lengths are replaced."""
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(here(block.text, local), str(block), "exec"), names)
    if page.name == "README.md":
        assert re.search(r"^specialists +[\d.]+", capsys.readouterr().out, re.M)
        assert Path("mnist-specialist/model.safetensors").is_file()


@pytest.mark.slow
def test_hub(hub, client, data):
    """The page's Python and its recipe, with the real client against a Hub on this machine."""
    names = {
        "openai/clip-vit-base-patch32": "lab/tiny-clip",
        "tanganke/clip-vit-base-patch32_mnist": "lab/tiny-clip_shade",
        "tanganke/clip-vit-base-patch32_dtd": "lab/tiny-clip_colour",
        **data,
    }
    (client.cwd / "recipe.yaml").write_text(here(main_recipe().text, names), encoding="utf-8")
    (published,) = blocks(ROOT / "docs" / "hub.md", "yaml")
    (client.cwd / "published.yaml").write_text(here(published.text, names), encoding="utf-8")
    code = ["import torch", "torch.set_num_threads(1)"]  # with more, tiny models wait for each other's threads
    code += [here(block.text, names) for block in blocks(ROOT / "docs" / "hub.md", "python")]
    # Data sets of this machine are no part of a published pool.
    code += ["from hf_mdft import Recipe", "result = sorted(Recipe.load('published.yaml', images=False).tasks)"]
    assert client.python("\n".join(code), token=hub.token) == ["mnist"]
    made = {"me/my-pool", "me/meta", "me/meta-folded", "me/mnist-specialist", "me/mnist-specialist-vision"}
    assert made <= set(hub.repos) and hub.repos["me/mnist-specialist"].private


def test_the_commands_of_the_readme(hub, client, data):
    """One after the other, with the real client against a Hub on this machine."""
    names = {
        "openai/clip-vit-base-patch32": "lab/tiny-clip",
        "tanganke/clip-vit-base-patch32_mnist": "lab/tiny-clip_shade",
        "tanganke/clip-vit-base-patch32_dtd": "lab/tiny-clip_colour",
        **data,
    }
    (block,) = (found for found in blocks(ROOT / "README.md", "bash") if "hf-mdft run" in found.text)
    recipe = client.cwd / "recipe.yaml"
    for line in here(block.text, names).splitlines():
        done = client.run(*shlex.split(line, comments=True)[1:], token=hub.token)
        assert done["code"] == 0, done["err"]
        if "discover" in line:
            found = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            assert found["pool"]["base"].startswith("lab/tiny-clip@") and len(found["pool"]["experts"]) == len(TASKS)
            recipe.write_text(here(main_recipe().text, names), encoding="utf-8")  # "edit"
    assert "model.safetensors" in hub.files("me/mnist-specialist") and hub.repos["me/mnist-specialist"].private


@every("json")
def test_json(block, recipe):
    """The shape of `results.json`: every key shown is there in a real one."""
    loaded = Recipe.load(recipe)
    merger = loaded.merger()
    merger.fit(loaded.meta_arguments("work"))
    merger.specialize(loaded.specialize_arguments("work"))
    merger.evaluate().save("results.json")
    shown, real = json.loads(block.text), json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert shown["schema"] == real["schema"] and shown["tasks"] == real["tasks"]
    assert set(shown["history"]["specialists"]) <= set(real["history"]["specialists"])
    assert {model for key in ("accuracy", "average") for model in shown[key]} <= set(real["accuracy"])
    assert set(shown) <= set(real) and set(shown["gate"]["mnist"]) == set(real["gate"]["mnist"])


# docs/extending.md


def sections(page: Path) -> dict[str, list[Block]]:
    """Blocks of a page under each of its headings."""
    text = page.read_text(encoding="utf-8")
    titles = [(text[: m.start()].count("\n") + 1, m[1]) for m in re.finditer(r"^## (.*)$", text, re.M)]
    found: dict[str, list[Block]] = {title: [] for _, title in titles}
    for block in blocks(page):
        above = [title for line, title in titles if line < block.line]
        if above:
            found[above[-1]].append(block)
    return found


EXTENDING = sections(ROOT / "docs" / "extending.md")
PARTS = {
    "A transform": ("hf_mdft.transforms", "TRANSFORMS", "soft_threshold", "__call__"),
    "A filter": ("hf_mdft.objectives", "FILTERS", "margin", "weigh"),
    "A term of phase 1": ("hf_mdft.meta.terms", "META_TERMS", "confusion", "forward"),
    "A head": ("hf_mdft.heads", "HEADS", "prototype", "forward"),
    "An architecture": ("hf_mdft.architectures", "ARCHITECTURES", "dinov2", "features"),
    "A part of the teacher": ("hf_mdft.specialize.teacher", "TEACHER_PARTS", "sharpen", None),
    "A term of the student": ("hf_mdft.specialize.terms", "STUDENT_TERMS", "robust", "forward"),
    "A restoration": ("hf_mdft.restorations", "RESTORATIONS", "level", None),
    "A training-free baseline": ("hf_mdft.evaluation", "TRANSDUCTIVE", "centroids", None),
}
"""By section: where the registry is, the name of the example, and the method that a run calls."""


@pytest.fixture
def example(request, tmp_path, monkeypatch) -> tuple[ModuleType, list[int]]:
    """The section's file, imported; and how often its part was called. Registries are as before afterwards."""
    place, registry_name, name, method = PARTS[request.param]
    registry = getattr(importlib.import_module(place), registry_name)
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    text = EXTENDING[request.param][0].text
    file = re.match(r'"""(\w+)\.py: ', text)[1]
    (tmp_path / f"{file}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module, calls = importlib.import_module(file), []
    del sys.modules[file]  # so that a later import registers it again
    part = registry.get(name)
    called = part if method is None else getattr(part, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return called(*args, **kwargs)

    if method is None:
        monkeypatch.setitem(registry._parts, name, counted)
    else:
        monkeypatch.setattr(part, method, counted)
    return module, calls


def test_every_section_is_run():
    assert set(EXTENDING) == {*PARTS, "A score", "A baseline"}


def both_phases(recipe: Path) -> MetaMerger:
    loaded = Recipe.load(recipe)
    merger = loaded.merger()
    merger.fit(loaded.meta_arguments("work"))
    merger.specialize(loaded.specialize_arguments("work"))
    return merger


IN_BOTH_PHASES = [title for title in PARTS if title not in ("An architecture", "A training-free baseline")]


@pytest.mark.parametrize(
    "example, section",
    [(title, title) for title in IN_BOTH_PHASES],
    ids=IN_BOTH_PHASES,
    indirect=["example"],
)
def test_extension(example, section, recipe, local):
    module, calls = example
    for block in EXTENDING[section][1:]:
        text = here(block.text, local)
        if block.language == "python":
            exec(compile(text, str(block), "exec"), {**vars(module), "pool": Recipe.load(recipe).pool()})
        else:
            content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            for part, options in yaml.safe_load(text).items():
                content[part] = options if part == "tasks" else {**content[part], **options}
            recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    merger = both_phases(recipe)
    assert calls
    name = PARTS[section][2]
    if section == "A term of phase 1":
        assert all(f"loss_{name}" in line for line in merger.record.meta.history if "loss" in line)
    if section == "A term of the student":
        assert all(f"loss_{name}" in line for line in merger.specialists["mnist"].history if "loss" in line)


@pytest.mark.parametrize("example", ["An architecture"], indirect=True)
def test_extension_by_an_architecture(example, tmp_path, monkeypatch):
    """A whole pool of it: both phases, and a specialist that plain transformers loads."""
    from transformers import Dinov2Config, Dinov2ForImageClassification, ViTImageProcessor

    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    torch.manual_seed(0)
    base = Dinov2ForImageClassification(Dinov2Config(num_labels=10, **shape))
    paths = {"base": tmp_path / "base"}
    base.save_pretrained(paths["base"])
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(paths["base"])
    for number, (task, names) in enumerate(TASKS.items()):
        config = Dinov2Config(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}, **shape)
        expert = Dinov2ForImageClassification(config)
        expert.dinov2.load_state_dict(base.dinov2.state_dict())
        paths[task] = tmp_path / task
        perturbed(expert, 100 + number).save_pretrained(paths[task])
    monkeypatch.chdir(tmp_path)
    merger = both_phases(write_recipe(tmp_path / "recipe", paths))
    assert example[1]
    merger.specialists["shade"].save_pretrained(tmp_path / "out")
    assert Dinov2ForImageClassification.from_pretrained(tmp_path / "out").config.id2label[0] == TASKS["shade"][0]


def test_extension_by_a_score(monkeypatch):
    """A rule may use it."""
    from hf_mdft.objectives.scores import SCORES
    from hf_mdft.specialize import Source, decide
    from hf_mdft.specialize.gate import Above

    monkeypatch.setattr(SCORES, "_parts", dict(SCORES._parts))
    (block,) = EXTENDING["A score"]
    exec(compile(block.text, str(block), "exec"), {})
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expert, surer = (Source(z, z.log_softmax(-1), torch.zeros(2, 1), z.argmax(-1)[None]) for z in (logits, 2 * logits))
    sure = [z.softmax(-1).amax(-1).mean().item() for z in (2 * logits, logits)]
    assert decide(surer, expert, {}, rule=Above("confidence")).reason == f"confidence {sure[0] - sure[1]:+.3g}"
    assert decide(surer, expert, {}, rule=Above("confidence")).chosen == "specialist"
    assert decide(expert, surer, {}, rule=Above("confidence")).chosen == "expert"


@pytest.mark.parametrize("example", ["A training-free baseline"], indirect=True)
def test_extension_by_a_training_free_baseline(example, recipe, monkeypatch, capsys):
    """From the command line, and by the page's Python."""
    module, calls = example
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    recipe.write_text(yaml.safe_dump({**content, "specialize": {"rounds": 0}}), encoding="utf-8")
    code, out, _ = call(["run", recipe, "--output-dir", "out", "--baseline", "centroids"], monkeypatch, capsys)
    assert code == 0 and calls and out.splitlines()[-1].startswith("centroids")
    (block,) = EXTENDING["A training-free baseline"][1:]
    exec(compile(block.text, str(block), "exec"), {**vars(module), "merger": Recipe.load(recipe).merger()})
    assert re.search(r"^centroids +- +[\d.]+", capsys.readouterr().out, re.M)


def test_extension_by_a_baseline(recipe, tmp_path, monkeypatch):
    from hf_mdft.recipes import presets

    folder = tmp_path / "presets"
    shutil.copytree(presets.FOLDER, folder)
    (block,) = EXTENDING["A baseline"]
    (folder / "mine.yaml").write_text(block.text, encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDER", folder)
    loaded = Recipe.load(recipe).with_preset("mine")
    written = yaml.safe_load(block.text)
    for part in ("adapter", "meta"):
        assert written[part].items() <= getattr(loaded, part).items()
    assert loaded.meta["entropy_weight"] == 0 and loaded.specialize["rounds"] == 0  # of what it extends
    loaded.merger().fit(loaded.meta_arguments("work", max_steps=2))
