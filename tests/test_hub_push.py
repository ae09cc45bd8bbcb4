"""Results to a Hub, with the real client against a Hub on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import TASKS, files_of, hub_environment, hub_recipe
from huggingface_hub import ModelCard
from PIL import Image

from hf_mdft.artifacts.layout import files_of as result_files
from hf_mdft.hub import push


PLAIN = """
import sys
sys.modules["hf_mdft"] = None
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel, CLIPVisionModel, pipeline
repo, pixels = sys.argv[1], torch.load(sys.argv[2], weights_only=True)
model, tower = CLIPModel.from_pretrained(repo).eval(), CLIPVisionModel.from_pretrained(repo).eval()
text = AutoProcessor.from_pretrained(repo)(text=["red", "green"], return_tensors="pt", padding=True)
with torch.no_grad():
    logits = model(pixel_values=pixels, **text).logits_per_image
    features = tower(pixel_values=pixels).pooler_output
classifier = pipeline("zero-shot-image-classification", model=repo)
found = classifier(Image.new("RGB", (32, 32)), candidate_labels=["red", "green"])
torch.save({"logits": logits, "features": features, "found": len(found)}, sys.argv[3])
"""


@pytest.mark.slow
def test_a_pushed_specialist_loads_without_this_package(hub, client, results, pixels, tmp_path, hub_session):
    local = results / "specialists" / "colour"
    push = ["push", local, "me/colour", "--private"]
    refused = client.run(*push, "--token", "hf_wrong")
    assert refused["code"] == 2 and "log in with write access" in refused["err"] and "me/colour" not in hub.repos
    hub.log.clear()
    done = client.run(*push, token=hub.token)
    assert done["code"] == 0 and done["out"].strip().endswith(f"/me/colour/commit/{hub.head('me/colour')}")
    assert hub.asked("POST .*/commit/") == 1 and hub.repos["me/colour"].private
    pushed = hub.files("me/colour")
    for name, content in pushed.items():
        if name != "README.md":
            assert (local / name).read_bytes() == content
    assert {"config.json", "model.safetensors", "tokenizer.json", "head.safetensors"} <= set(pushed)
    assert {"preprocessor_config.json", "processor_config.json"} & set(pushed)
    card = pushed["README.md"].decode()
    assert 'model="me/colour"' in card and "OWNER/NAME" not in card

    _, _, home, address = hub_session
    torch.save(pixels, tmp_path / "pixels.pt")
    loaded = subprocess.run(
        [sys.executable, "-c", PLAIN, "me/colour", tmp_path / "pixels.pt", tmp_path / "found.pt"],
        env={**hub_environment(address, home), "HF_TOKEN": hub.token}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    from transformers import AutoProcessor, CLIPModel

    model = CLIPModel.from_pretrained(local).eval()
    text = AutoProcessor.from_pretrained(local)(text=["red", "green"], return_tensors="pt", padding=True)
    with torch.no_grad():
        torch.testing.assert_close(
            found["logits"], model(pixel_values=pixels, **text).logits_per_image, atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            found["features"], model.vision_model(pixel_values=pixels).pooler_output, atol=1e-6, rtol=0
        )
    assert found["found"] == 2


def test_a_pushed_specialist_is_an_expert_of_the_next_pool(hub, client, results, clip_paths, tmp_path):
    assert client.run("push", results / "specialists" / "shade", "me/shade", token=hub.token)["code"] == 0
    assert (
        client.run("push", results / "specialists" / "shade", "me/tower", "--vision-only", token=hub.token)["code"]
        == 0
    )
    code = """
from hf_mdft import ModelPool
pool = ModelPool.from_pretrained("lab/tiny-clip", {"full": "me/shade", "tower": "me/tower"})
result = [float((a - b).abs().max()) for a, b in (pool.vectors().stack(name) for name in pool.vectors().names())]
"""
    assert max(client.python(code)) == 0


def test_vision_only(hub, client, results):
    assert client.run("push", results / "specialists" / "shade", "me/shade", token=hub.token)["code"] == 0
    assert (
        client.run("push", results / "specialists" / "shade", "me/shade", "--vision-only", token=hub.token)["code"]
        == 0
    )
    files = hub.files("me/shade")
    config = json.loads(files["config.json"])
    assert config["model_type"] == "clip_vision_model" and config["architectures"] == ["CLIPVisionModel"]
    assert len(files["model.safetensors"]) < len(
        hub.repos["me/shade"].commits[first(hub, "me/shade")]["model.safetensors"]
    )
    card = ModelCard(files["README.md"].decode())
    assert card.data.pipeline_tag == "image-feature-extraction" and "vision tower alone" in card.text
    Image.new("RGB", (40, 40)).save(client.cwd / "image.png")
    printed = card.text.split("```python\n")[1].split("```")[0]
    assert client.python(printed + "result = list(features.shape), type(model).__name__") == [
        [1, 16],
        "CLIPVisionModel",
    ]
    bad = client.run("push", results / "meta", "me/shade", "--vision-only", token=hub.token)
    assert bad["code"] == 2 and "a meta-model; --vision-only is for a specialist" in bad["err"]
    bad = client.run("push", results / "specialists" / "shade", "me/shade", "--folded", token=hub.token)
    assert bad["code"] == 2 and "a specialist; --folded is for a run's 'meta' folder" in bad["err"]


def first(hub, repo):
    return next(sha for sha, files in hub.repos[repo].commits.items() if files)


def test_meta_model_as_adapter_and_folded(hub, client, clip_paths, pixels, tmp_path):
    recipe = hub_recipe(tmp_path, clip_paths)
    hub.repos["lab/tiny-clip"].refs["v0"] = hub.head("lab/tiny-clip")
    assert client.run("run", recipe, "--output-dir", "out")["code"] == 0
    for repo, options in {"me/meta": [], "me/folded": ["--folded"]}.items():
        done = client.run("push", "out/meta", repo, *options, token=hub.token)
        assert done["code"] == 0, done["err"]
    assert sum(len(content) for name, content in hub.files("me/meta").items() if name.startswith("adapter")) < 30_000
    torch.save(pixels, tmp_path / "pixels.pt")
    compare = """
import torch
import hf_mdft
from huggingface_hub.constants import HF_HUB_CACHE
from peft import AutoPeftModel, PeftModel
from transformers import CLIPModel, CLIPVisionModel
pixels = torch.load("pixels.pt", weights_only=True)
base = CLIPVisionModel.from_pretrained("lab/tiny-clip")
adapter = PeftModel.from_pretrained(base, "me/meta").eval()
folded = CLIPModel.from_pretrained("me/folded").vision_model.eval()
merger = hf_mdft.MetaMerger.from_pretrained("me/meta@main")
auto = AutoPeftModel.from_pretrained("me/meta").eval()
with torch.no_grad():
    rows = [model(pixel_values=pixels).pooler_output for model in (adapter, folded, merger.meta_tower(), auto)]
moved = max(abs(v - 1 / 3) for row in merger.model.base_model.coefficients("default").values() for v in row.tolist())
result = [float((rows[0] - row).abs().max()) for row in rows] + [moved]
"""
    same, folded, merger, auto, moved = client.python(compare)
    assert max(same, folded, merger, auto) < 1e-5 and moved > 1e-4, "the trained coefficients came back"
    adapter, whole = (ModelCard(hub.files(f"me/{name}")["README.md"].decode()) for name in ("meta", "folded"))
    experts = ["lab/tiny-clip", *(f"lab/tiny-clip_{task}" for task in TASKS)]
    assert adapter.data.base_model == whole.data.base_model == experts
    assert adapter.data.to_dict()["base_model_relation"] == "adapter" and adapter.data.library_name == "peft"
    assert whole.data.to_dict()["base_model_relation"] == "merge" and whole.data.library_name == "transformers"
    assert "hf_mdft.MetaMerger" in adapter.text and "hf_mdft.MetaMerger" not in whole.text
    assert {f"heads/{task}.safetensors" for task in TASKS} <= set(hub.files("me/folded"))

    hub.add("lab/tiny-clip", files_of(clip_paths["shade"]))
    code = "from peft import AutoPeftModel\nmodel = AutoPeftModel.from_pretrained('me/meta')\n"
    pinned = code + "result = model.peft_config['default'].revision"
    assert client.python(pinned) == hub.repos["lab/tiny-clip"].refs["v0"], "the base's own commit, wherever main is"

    del hub.repos["lab/tiny-clip_colour"]
    shutil.rmtree(client.python("from huggingface_hub.constants import HF_HUB_CACHE as result"))
    gone = client.run("evaluate", recipe, "--meta", "out/meta")
    assert gone["code"] == 2 and "lab/tiny-clip_colour@" in gone["err"]
    assert "no such repo on the Hub" in gone["err"] and "it is pinned by this pool: put it back" in gone["err"]


def test_own_heads_come_back_from_the_hub(hub, client, clip_paths):
    """The Hub's cache holds links: a head inside the repo is inside all the same."""
    code = """
import torch
from hf_mdft import MdftTrainingArguments, MetaMerger, ModelPool, Task
from hf_mdft.heads import LinearHead
pool = ModelPool.from_pretrained("lab/tiny-clip", {"shade": "lab/tiny-clip_shade", "colour": None})
heads = {task: LinearHead(["a", "b"], weight=torch.randn(2, 16), bias=torch.zeros(2)) for task in pool.tasks}
merger = MetaMerger(pool, {task: Task([0], class_names=["a", "b"], head=head) for task, head in heads.items()})
merger.unlabelled = lambda task: __import__("types").SimpleNamespace(key=task)
merger.fit(MdftTrainingArguments(max_steps=0, use_cpu=True))
merger.push_to_hub("me/heads", token=TOKEN)
merger.push_to_hub("me/whole", folded=True, token=TOKEN)
again = MetaMerger.from_pretrained("me/heads")
result = [again.head(task).key() == head.key() for task, head in heads.items()]
""".replace("TOKEN", repr(hub.token))
    assert client.python(code) == [True, True]
    for repo, message in {"me/whole": "a folded meta-model is a plain model", "lab/tiny-clip": "no mdft.json"}.items():
        code = f"try: MetaMerger.from_pretrained({repo!r})\nexcept ValueError as error: result = str(error)"
        found = client.python(f"from hf_mdft import MetaMerger\n{code}")
        assert found.startswith(repo) and message in found, found


def test_branches_pull_requests_and_messages(hub, client, results):
    folder = results / "specialists" / "colour"
    assert client.run("push", folder, "me/meta", "--commit-message", "First", token=hub.token)["code"] == 0
    before = hub.head("me/meta")
    done = client.run("push", results / "specialists" / "shade", "me/meta", "--revision", "next", token=hub.token)
    assert done["code"] == 0, done["err"]
    assert hub.head("me/meta") == before and "model.safetensors" in hub.files("me/meta", "next")
    assert 'model="me/meta", revision="next"' in hub.files("me/meta", "next")["README.md"].decode()
    done = client.run("push", results / "specialists" / "shade", "me/meta", "--create-pr", token=hub.token)
    assert done["code"] == 0 and "refs/pr/1" in hub.repos["me/meta"].refs and hub.head("me/meta") == before
    assert done["out"].strip().endswith("/me/meta/discussions/1")
    for options in (["--create-pr"], []):
        assert client.run("push", folder, "me/new", *options, token=hub.token)["code"] == 0
    assert set(hub.repos["me/new"].refs) == {"refs/pr/1", "main"}
    again = client.run("push", folder, "me/meta", "--private", token=hub.token)
    assert again["code"] == 0 and "me/meta exists, and stays public" in again["err"]
    done = client.run("push", folder, "lab/tiny-clip", token=hub.token)  # a repo of somebody else
    assert done["code"] == 2 and "lab/tiny-clip: the Hub refused (403): log in with write access" in done["err"]
    odd = client.run("push", folder, "me/x@v1", token=hub.token)
    assert odd["code"] == 2 and "no valid Hub id (owner/name; a branch is given with --revision)" in odd["err"]
    nowhere = client.run("push", results, "me/x", token=hub.token)
    assert nowhere["code"] == 2 and "no result of a run" in nowhere["err"]


def test_pushing_again_commits_nothing_new(hub, client, results):
    for _ in range(2):
        assert client.run("push", results / "specialists" / "shade", "me/shade", token=hub.token)["code"] == 0
    assert len(hub.repos["me/shade"].commits) == 1


def test_a_push_takes_away_what_loaders_would_prefer(hub, client, results, tmp_path):
    """transformers reads `processor_config.json` before `preprocessor_config.json`."""
    shade = shutil.copytree(results / "specialists" / "shade", tmp_path / "shade")
    assert client.run("push", shade, "me/z", token=hub.token)["code"] == 0
    code = "from huggingface_hub import HfApi\nresult = HfApi().upload_file(path_or_fileobj=b'{}', repo_id='me/z',"
    client.python(code + " path_in_repo='processor_config.json').oid", token=hub.token)
    assert "processor_config.json" in hub.files("me/z")
    assert client.run("push", shade, "me/z", token=hub.token)["code"] == 0
    assert "processor_config.json" not in hub.files("me/z") and "preprocessor_config.json" in hub.files("me/z")


def test_work_in_progress_stays_here_and_tasks_may_be_called_so(tmp_path):
    for name in ("checkpoint-3/model.safetensors", "heads/checkpoint-a.safetensors", "model.pt", "model.safetensors"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).touch()
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=push._left_out)
    assert result_files(tmp_path / "b") == ["heads/checkpoint-a.safetensors", "model.safetensors"]


def test_only_whole_results_are_pushed(hub, client, results, tmp_path):
    shade, meta = (shutil.copytree(results / name, tmp_path / name) for name in ("specialists/shade", "meta"))

    def refused(folder, message, *options):
        done = client.run("push", folder, "me/x", *options, token=hub.token)
        assert done["code"] == 2 and message in done["err"] and "Traceback" not in done["err"], done["err"]
        assert "me/x" not in hub.repos

    refused(meta, "refers to folders of this machine (the expert of 'shade', the expert of 'colour'")
    (meta / "adapter_model.safetensors").write_bytes(b"junk")
    refused(meta, "the adapter is damaged")
    refused(meta, "the adapter is damaged", "--folded")
    refused(meta, "give one of them", "--folded", "--vision-only")
    refused(next((results / "checkpoints" / "meta").glob("checkpoint-*")), "no result of a run (no mdft.json)")
    refused(tmp_path / "nowhere", "no such folder")
    written = result_files(shade)
    for foreign in ("notes.bin", ".env", "figures/private.png"):
        (shade / foreign).write_bytes(b"secret")
    done = client.run("push", shade, "me/y", token=hub.token)
    assert done["code"] == 0 and ".env is not pushed: it is no part of the result" in done["err"]
    assert set(hub.files("me/y")) - {".gitattributes"} == set(written)
    for foreign in ("notes.bin", ".env", "figures/private.png"):
        (shade / foreign).unlink()
    (shade / "model.safetensors").write_bytes(b"junk")
    refused(shade, "model.safetensors is damaged")
    (shade / "model.safetensors").unlink()
    refused(shade, "no model.safetensors")
    (shade / "config.json").unlink()
    refused(shade, "no config.json")


TRAINER = """
import json, torch
from datasets import load_dataset
from peft import get_peft_model
from transformers import CLIPVisionModel
from hf_mdft import MdftConfig, MdftTrainer, MdftTrainingArguments, MetaMerger, ModelPool, Recipe
merger = Recipe.load("recipe.yaml").merger()
model = get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool.reference()))
args = MdftTrainingArguments(
    output_dir="trainer", max_steps=4, images_per_task=4, head_steps=3, save_steps=2, logging_steps=1, use_cpu=True,
    push_to_hub={auto}, hub_model_id="me/trained",
)
images = {{task: merger.unlabelled(task) for task in merger.tasks}}
trainer = MdftTrainer(model, args, train_dataset=images, heads={{t: merger.head(t) for t in merger.tasks}})
trainer.train()
commit = trainer.push_to_hub("The end") if {explicit} else None
result = [str(commit), {{k: v.tolist() for k, v in model.base_model.coefficients("default").items()}}]
"""


@pytest.mark.parametrize(("auto", "explicit"), [(True, False), pytest.param(False, True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_trainer_pushes_as_trainers_do(hub, client, clip_paths, tmp_path, auto, explicit):
    hub_recipe(tmp_path, clip_paths)
    commit, coefficients = client.python(TRAINER.format(auto=auto, explicit=explicit), token=hub.token)
    files = hub.files("me/trained")
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))], "no pickle"
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "peft" and "mdft" in card.data.tags and "lab/tiny-clip_shade" in card.text
    assert "max_steps: 4" in card.text and "figures/coefficients.png" in files
    if explicit:
        assert commit.endswith(f"/me/trained/commit/{hub.head('me/trained')}")
    else:
        assert len(hub.repos["me/trained"].commits) == 1, "at the end only"
    code = "from hf_mdft import MetaMerger\nm = MetaMerger.from_pretrained('me/trained').model.base_model\n"
    again = client.python(code + "result = {k: v.tolist() for k, v in m.coefficients('default').items()}")
    assert again == coefficients


def test_cards_of_a_run_tell_everything(results):
    for folder in (results / "meta", *(results / "specialists" / task for task in TASKS)):
        card = ModelCard.load(folder / "README.md")
        text = card.text
        own = "Share of images that counted" if folder.name == "meta" else "McNemar"
        for words in ("Recipe, in full", own, "bibtex", "Labels were used"):
            assert words in text, (folder.name, words)
        recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
        assert (
            recipe["meta"]["images_per_task"] == 4
            and recipe["seed"] == 0
            and recipe["specialize"]["ema_decay"] == 0.98
        )
        for file in folder.glob("*.*"):
            if file.suffix in (".md", ".json") and file.name != "adapter_config.json":  # which must find local experts
                assert str(results.parent.parent) not in file.read_text(), f"{file} tells paths of this machine"
        for line in text.splitlines():
            if line.startswith("!["):
                assert (folder / line.split("](")[1].rstrip(")")).is_file()
        assert "![Merging coefficients" in text
        assert card.data.eval_results and "12 images" in text and "held-out" in text
