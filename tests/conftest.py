"""A tiny pool, made in-process: no network, no files from elsewhere."""

from __future__ import annotations

import os
import tempfile


os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_MDFT_CACHE"] = tempfile.mkdtemp(prefix="hf-mdft-test-cache-")
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="hf-mdft-test-datasets-")

import atexit
import copy
import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from local_hub import LocalHub, serve
from PIL import Image
from safetensors.torch import save_file
from tiny_classifiers import tiny_config
from transformers import (
    BeitForImageClassification,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    MetaClip2Config,
    MetaClip2Model,
    MetaClip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_mdft import MdftTrainingArguments, MetaMerger, ModelPool, SpecializeArguments, Task
from hf_mdft.demo.models import save_processors


for cache in (os.environ["HF_MDFT_CACHE"], os.environ["HF_DATASETS_CACHE"]):
    atexit.register(shutil.rmtree, cache, ignore_errors=True)

# Trainers collect garbage; what was imported is none, and need not be looked through each time.
gc.collect()
gc.freeze()

TASKS = {
    "shade": ["dark", "middle", "bright"],
    "colour": ["red", "green", "blue", "grey"],
    "stripes": ["rows", "columns"],
}


def pytest_configure(config: pytest.Config) -> None:
    datasets.disable_progress_bars()


def make_image(task: str, label: int, rng: np.random.Generator) -> Image.Image:
    """A noisy 32 x 32 image whose class can be seen."""
    pixels = np.full((32, 32, 3), 128.0)
    if task == "shade":
        pixels += (label - 1) * 70
    elif task == "colour":
        if label < 3:
            pixels[..., label] += 90
    else:
        wave = 60 * np.sign(np.sin(np.arange(32) * np.pi / 4))
        pixels += (wave[:, None] if label == 0 else wave[None, :])[..., None]
    return Image.fromarray(np.clip(pixels + rng.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8))


def make_dataset(task: str, count: int, seed: int) -> datasets.Dataset:
    """Images and labels, classes in turn."""
    rng, names = np.random.default_rng(seed), TASKS[task]
    labels = [i % len(names) for i in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict(
        {"image": [make_image(task, label, rng) for label in labels], "label": labels}, features=features
    )


def perturbed(model: torch.nn.Module, seed: int, size: float = 0.03) -> torch.nn.Module:
    """The model moved by a random task vector."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


VISION = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
)


def save_clip_pool(
    folder: Path, kind: tuple[type, type, type] = (CLIPConfig, CLIPModel, CLIPVisionModel)
) -> dict[str, Path]:
    """A tiny `CLIPModel` base and one `CLIPVisionModel` expert for each task; or the same of SigLIP or MetaCLIP 2."""
    config_class, model_class, tower_class = kind
    base = folder / "base"
    tokens = len(save_processors(base))
    torch.manual_seed(0)
    projected = {} if config_class is SiglipConfig else {"projection_dim": 8}
    config = config_class(
        vision_config=dict(VISION, **projected),
        text_config=dict(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=tokens,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=1, **projected,
        ),
        **projected,
    )  # fmt: skip
    model_class(config).save_pretrained(base)
    for number, task in enumerate(TASKS):
        perturbed(tower_class.from_pretrained(base), 100 + number).save_pretrained(folder / task)
    return {"base": base, **{task: folder / task for task in TASKS}}


def save_classifier_pool(folder: Path) -> dict[str, Path]:
    """A tiny BEiT base and classifiers fine-tuned from it."""
    torch.manual_seed(0)
    base = BeitForImageClassification(tiny_config("beit", patch_size=16))
    base.save_pretrained(folder / "base")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "base")
    for number, (task, names) in enumerate(TASKS.items()):
        config = tiny_config("beit", names, patch_size=16)
        model = BeitForImageClassification.from_pretrained(
            folder / "base", config=config, ignore_mismatched_sizes=True
        )
        perturbed(model, 100 + number).save_pretrained(folder / task)
    return {"base": folder / "base", **{task: folder / task for task in TASKS}}


@torch.no_grad()
def tell_apart(model: ViTForImageClassification, pictures: Mapping[str, Any]) -> None:
    """Centre and scale a classifier, so that a random tower takes pictures for different classes: where it takes all
    for one, the gate lets nothing be trained."""
    features = model.vit(torch.as_tensor(np.stack(pictures["pixel_values"]))).last_hidden_state[:, 0]
    layer = model.classifier
    layer.weight *= 3 / ((features - features.mean(dim=0)) @ layer.weight.T).std()
    layer.bias.copy_(-layer.weight @ features.mean(dim=0))


def save_vit_pool(folder: Path) -> dict[str, Path]:
    """A tiny ViT base with ten classes, and experts with classifiers of their own."""
    torch.manual_seed(0)
    base = folder / "base"
    model = ViTForImageClassification(ViTConfig(num_labels=10, **VISION))
    model.save_pretrained(base)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(base)
    for number, (task, names) in enumerate(TASKS.items()):
        config = ViTConfig(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}, **VISION)
        expert = ViTForImageClassification(config)
        expert.vit.load_state_dict(model.vit.state_dict())
        perturbed(expert, 100 + number)
        tell_apart(expert, ViTImageProcessor.from_pretrained(base)(list(make_dataset(task, 24, 1)["image"])))
        expert.save_pretrained(folder / task)
    return {"base": base, **{task: folder / task for task in TASKS}}


def layouts(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Saves the same expert in the layouts found in the wild, and returns its tensors."""
    tower = perturbed(CLIPVisionModel.from_pretrained(base), 7)
    tower.save_pretrained(folder / "plain")
    state = tower.state_dict()

    config = json.loads((folder / "plain" / "config.json").read_text())
    old = folder / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(config))
    renamed = {f"vision_model.{name}": tensor.contiguous() for name, tensor in state.items()}
    renamed["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(renamed, old / "model.safetensors", {"format": "pt"})

    full = CLIPModel.from_pretrained(base)
    full.vision_model.load_state_dict(state)
    full.save_pretrained(folder / "full")
    projection = CLIPVisionModelWithProjection.from_pretrained(base)
    projection.vision_model.load_state_dict(state)
    projection.save_pretrained(folder / "projection")
    tower.save_pretrained(folder / "sharded", max_shard_size="4KB")
    tower.to(torch.bfloat16).save_pretrained(folder / "bfloat")
    tower.load_state_dict(state)
    tower.to(torch.float16).save_pretrained(folder / "half")
    return state


@pytest.fixture(scope="session", autouse=True)
def same_on_every_processor():
    """fp32 also where bfloat16 is faster, so that tests do not depend on the processor (those of subprocesses do)."""
    with pytest.MonkeyPatch.context() as patch:
        for asked in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            patch.setattr(torch.cpu, asked, lambda: False, raising=False)
        yield


@pytest.fixture(scope="session")
def clip_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_clip_pool(tmp_path_factory.mktemp("clip-pool"))


@pytest.fixture(scope="session")
def vit_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_vit_pool(tmp_path_factory.mktemp("vit-pool"))


def pool_of(paths: dict[str, Path]) -> ModelPool:
    return ModelPool.from_pretrained(paths["base"], {task: paths[task] for task in TASKS})


@pytest.fixture(scope="session")
def clip_pool(clip_paths: dict[str, Path]) -> ModelPool:
    return pool_of(clip_paths)


@pytest.fixture(scope="session")
def siglip_pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    kind = (SiglipConfig, SiglipModel, SiglipVisionModel)
    return pool_of(save_clip_pool(tmp_path_factory.mktemp("siglip-pool"), kind))


@pytest.fixture(scope="session")
def metaclip_2_pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    kind = (MetaClip2Config, MetaClip2Model, MetaClip2VisionModel)
    return pool_of(save_clip_pool(tmp_path_factory.mktemp("metaclip-pool"), kind))


@pytest.fixture(scope="session")
def classifier_pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return pool_of(save_classifier_pool(tmp_path_factory.mktemp("beit-pool")))


@pytest.fixture(scope="session")
def vit_pool(vit_paths: dict[str, Path]) -> ModelPool:
    return pool_of(vit_paths)


@pytest.fixture(params=["clip", pytest.param("vit", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest) -> ModelPool:
    """The same test on both architectures; the second one is among the slow tests."""
    return request.getfixturevalue(f"{request.param}_pool")


both_architectures = pytest.mark.parametrize("pool", ["clip", "vit"], indirect=True)
"""For tests of what depends on the architecture: the second one is not left to the slow tests."""


@pytest.fixture(scope="session")
def unlabelled_data() -> dict[str, datasets.Dataset]:
    return {task: make_dataset(task, 24, seed=1) for task in TASKS}


@pytest.fixture(scope="session")
def test_data() -> dict[str, datasets.Dataset]:
    return {task: make_dataset(task, 12, seed=2) for task in TASKS}


def make_tasks(unlabelled_data: dict, test_data: dict) -> dict[str, Task]:
    return {
        task: Task(unlabelled=unlabelled_data[task], evaluation=test_data[task], class_names=names)
        for task, names in TASKS.items()
    }


@pytest.fixture
def tasks(unlabelled_data: dict, test_data: dict) -> dict[str, Task]:
    return make_tasks(unlabelled_data, test_data)


@pytest.fixture
def merger(pool: ModelPool, tasks: dict[str, Task]) -> MetaMerger:
    return MetaMerger(pool, tasks)


def fit_arguments(folder: Path, **options: Any) -> MdftTrainingArguments:
    """Phase 1 in three steps."""
    defaults = dict(max_steps=3, images_per_task=4, head_steps=3, use_cpu=True, disable_tqdm=True)
    return MdftTrainingArguments(output_dir=str(folder / "meta"), **{**defaults, **options})


def specialize_arguments(folder: Path, **options: Any) -> SpecializeArguments:
    """Phase 2 in two steps for each task."""
    defaults = dict(max_steps=2, per_device_train_batch_size=8, fewer_steps=False, use_cpu=True, disable_tqdm=True)
    return SpecializeArguments(output_dir=str(folder / "specialists"), **{**defaults, **options})


def trained_merger(pool: ModelPool, tasks: dict[str, Task], folder: Path) -> MetaMerger:
    """Both phases done; nothing measured."""
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(folder))
    merger.specialize(specialize_arguments(folder))
    return merger


@pytest.fixture(scope="session")
def trained_clip(clip_pool: ModelPool, unlabelled_data: dict, test_data: dict, tmp_path_factory: Any) -> MetaMerger:
    return trained_merger(clip_pool, make_tasks(unlabelled_data, test_data), tmp_path_factory.mktemp("trained-clip"))


@pytest.fixture(scope="session")
def trained_vit(vit_pool: ModelPool, unlabelled_data: dict, test_data: dict, tmp_path_factory: Any) -> MetaMerger:
    return trained_merger(vit_pool, make_tasks(unlabelled_data, test_data), tmp_path_factory.mktemp("trained-vit"))


def own_copy(merger: MetaMerger) -> MetaMerger:
    """The session's merger for one test to change: models and facts copied, pool and images shared."""
    mine = copy.copy(merger)
    mine.model, mine.tasks = (
        copy.deepcopy(merger.model),
        {name: copy.copy(task) for name, task in merger.tasks.items()},
    )
    mine.record = copy.copy(merger.record)
    mine.specialists = {task: replace(s, record=mine.record) for task, s in merger.specialists.items()}
    for name in ("_heads", "_meta_heads", "_images", "_phases", "timing"):
        setattr(mine, name, copy.copy(getattr(merger, name)))
    return mine


@pytest.fixture
def done(pool: ModelPool, request: pytest.FixtureRequest) -> MetaMerger:
    """Both phases done, on both architectures."""
    return own_copy(request.getfixturevalue(f"trained_{pool.architecture.name}"))


@pytest.fixture
def clip_done(trained_clip: MetaMerger) -> MetaMerger:
    """Both phases done, on CLIP."""
    return own_copy(trained_clip)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def write_recipe(folder: Path, paths: dict[str, Path], *, restore: bool = False, **changes: object) -> Path:
    """A recipe beside its data, with paths relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {}
    for task, names in TASKS.items():
        for part, seed, count in (("unlabelled", 1, 24), ("test", 2, 12)):
            if not (folder / f"{task}-{part}.parquet").exists():
                make_dataset(task, count, seed).to_parquet(folder / f"{task}-{part}.parquet")
        source = {"path": "parquet", "split": "train"}
        tasks[task] = {
            "unlabelled": {**source, "data_files": f"{task}-unlabelled.parquet"},
            "evaluation": {**source, "data_files": f"{task}-test.parquet"},
            "class_names": names,
        }
    recipe = {
        "pool": {"base": str(paths["base"]), "experts": {task: str(paths[task]) for task in TASKS}},
        "tasks": tasks,
        "meta": {"max_steps": 3, "images_per_task": 4, "head_steps": 3, "logging_steps": 1, "use_cpu": True},
        "specialize": {"max_steps": 2, "per_device_train_batch_size": 8, "fewer_steps": False, "use_cpu": True},
        **changes,
    }
    if not restore:  # the search for restorations takes nearly a third of a tiny run
        for phase in ("meta", "specialize"):
            recipe[phase] = {"restore": False, **recipe[phase]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def edited(recipe: Path, change: Callable[[dict], Any]) -> Path:
    """The recipe with a change of its content."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    change(content)
    recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return recipe


def call(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `hf-mdft`."""
    from hf_mdft.cli.app import main

    monkeypatch.setattr(sys, "argv", ["hf-mdft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    return stop.value.code or 0, printed.out, printed.err


# A Hub on this machine, and a process that uses it with the real client


@dataclass
class Client:
    """Sends work to the process of `hub_client.py`."""

    process: subprocess.Popen
    cwd: Path

    def _send(self, **request: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"cwd": str(self.cwd), **request}, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, *argv: object, token: str | None = None) -> dict[str, Any]:
        """`hf-mdft ARGV`: code, out, err, and the waits that were asked for."""
        return self._send(argv=[str(arg) for arg in argv], environment={"HF_TOKEN": token} if token else {})

    def python(self, code: str, token: str | None = None) -> Any:
        """What the code leaves in `result`."""
        done = self._send(code=code, environment={"HF_TOKEN": token} if token else {})
        assert done["code"] == 0, done["err"]
        return done["result"]


def hub_environment(address: str, home: Path) -> dict[str, str]:
    return {
        **os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def hub_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, subprocess.Popen, Path, str]]:
    home = tmp_path_factory.mktemp("hub-home")
    with serve() as (address, hub):
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("hub_client.py")],
            env=hub_environment(address, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        yield hub, process, home, address
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture
def hub(hub_session: tuple, clip_paths: dict[str, Path]) -> LocalHub:
    """A Hub with the tiny CLIP pool under `lab/`, asked nothing yet."""
    hub, _, home, _ = hub_session
    shutil.rmtree(home / "hub", ignore_errors=True)
    hub.__init__(hub.token)
    hub.add("lab/tiny-clip", files_of(clip_paths["base"], "license: mit"))
    for number, task in enumerate(TASKS):
        card = f"license: mit\nbase_model: lab/tiny-clip\ndatasets:\n- lab/{task}-images"
        hub.add(f"lab/tiny-clip_{task}", files_of(clip_paths[task], card), downloads=100 - number)
    return hub


@pytest.fixture(scope="session")
def results(tmp_path_factory, clip_paths):
    """Output folder of a run on local folders, made once; nobody writes into it."""
    from typer.testing import CliRunner

    from hf_mdft.cli.app import app

    folder = tmp_path_factory.mktemp("results")
    recipe = write_recipe(folder / "job", clip_paths)
    done = CliRunner().invoke(app, ["run", str(recipe), "--output-dir", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return folder / "out"


@pytest.fixture
def client(hub_session: tuple, tmp_path: Path) -> Client:
    return Client(hub_session[1], tmp_path)


def files_of(folder: Path, card: str | None = None) -> dict[str, bytes]:
    """Files of a model's folder, with a card of this metadata."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return files | ({"README.md": f"---\n{card}\n---\n# A model\n".encode()} if card else {})


def hub_recipe(folder: Path, paths: dict[str, Path], **experts: Any) -> Path:
    """A recipe of Hub ids, with local images."""
    pool = {"base": "lab/tiny-clip", "experts": {**{task: f"lab/tiny-clip_{task}" for task in TASKS}, **experts}}
    return write_recipe(folder, paths, pool=pool)
