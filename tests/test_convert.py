"""`hf-mdft pool convert`: other formats and open_clip, compared with their sources; nothing made up, no code run."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from conftest import files_of, perturbed
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_classifiers import tiny_config
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    CLIPModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTForImageClassification,
)

from hf_mdft import InputError, ModelPool
from hf_mdft.convert import convert
from hf_mdft.convert.open_clip_forward import open_clip_outputs


@pytest.fixture
def source(vit_paths, tmp_path):
    """An expert without its weights, and these."""
    folder = tmp_path / "source"
    shutil.copytree(vit_paths["shade"], folder)
    shutil.copy(vit_paths["base"] / "preprocessor_config.json", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder, tensors


def pickled(folder, tensors):
    torch.save(tensors, folder / "pytorch_model.bin")


def wrapped(folder, tensors):
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")


def nested(folder, tensors):
    state = {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, folder / "best.pt")


def variant(folder, tensors):
    save_file(tensors, folder / "model.fp16.safetensors")


def wrapped_safetensors(folder, tensors):
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def sharded(folder, tensors):
    halves, index = (list(tensors)[::2], list(tensors)[1::2]), {}
    for number, names in enumerate(halves):
        shard = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({name: tensors[name] for name in names}, folder / shard)
        index |= dict.fromkeys(names, shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("layout", [pickled, wrapped, nested, variant, wrapped_safetensors, sharded])
def test_other_formats(source, vit_paths, tmp_path, layout):
    folder, tensors = source
    layout(folder, tensors)
    made = convert(folder, tmp_path / "made")
    assert made.difference == (0.0 if layout in (pickled, sharded) else None), "compared where transformers reads it"
    plain = ViTForImageClassification.from_pretrained(vit_paths["shade"]).state_dict()
    found = ViTForImageClassification.from_pretrained(tmp_path / "made").state_dict()
    assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)
    assert (tmp_path / "made" / "preprocessor_config.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "made"}, "nothing else is left"
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "made"})
    assert pool.experts["shade"].folder == tmp_path / "made"


class Unsafe:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: {**t, "x": Unsafe()}, "holds more than tensors and could run code"),
        (lambda t: {k: v for k, v in t.items() if k != "classifier.weight"}, "tensor 'classifier.weight' is missing"),
        (lambda t: {**t, "extra.weight": torch.ones(2)}, "has no place for tensor 'extra.weight'"),
        (lambda t: {**t, "classifier.bias": torch.ones(9)}, "tensor 'classifier.bias' has another shape"),
        (lambda t: {**t, "classifier.bias": torch.full((3,), torch.nan)}, "tensor 'classifier.bias' holds NaN"),
        (lambda t: {**t, "classifier.bias": torch.ones(3, dtype=torch.int8)}, "is stored as torch.int8"),
        (lambda t: [t], "holds no state dict of tensors"),
        (lambda t: {**t, "module.classifier.bias": t["classifier.bias"]}, "with and without a wrapper's prefix"),
    ],
)
def test_what_is_not_whole_and_safe_is_refused(source, tmp_path, monkeypatch, damage, said):
    folder, tensors = source
    monkeypatch.chdir(tmp_path)
    torch.save(damage(tensors), folder / "pytorch_model.bin")
    with pytest.raises(InputError) as refused:
        convert(folder, tmp_path / "made")
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}, "nothing ran, nothing is left"


def test_quantized_models_are_refused(source, tmp_path):
    folder, tensors = source
    pickled(folder, tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {}}))
    with pytest.raises(InputError, match="source: quantized .quantization_config.; take a revision in fp32"):
        convert(folder, tmp_path / "made")


def test_files_that_are_no_checkpoint(source, tmp_path):
    folder, tensors = source
    for content in (b"", b"junk", b"PK\x03\x04junk"):
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(InputError, match=r"pytorch_model.bin (cannot be read|holds more than tensors)"):
            convert(folder, tmp_path / "made")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"no weights in .safetensors, .bin or .pt"):
        convert(folder, tmp_path / "made")
    for name in ("a.pt", "b.pt"):
        torch.save(tensors, folder / name)
    with pytest.raises(InputError, match=r"a.pt and b.pt could be meant"):
        convert(folder, tmp_path / "made")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="exists already"):
        convert(folder, tmp_path / "taken")


# Adapters


def adapter(vit_paths, folder, **options):
    """A trained adapter with a classifier of its own on the pool's base, and what peft computes with it."""
    base = ViTForImageClassification.from_pretrained(vit_paths["base"], num_labels=3, ignore_mismatched_sizes=True)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "fc1"], **options},
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    model = get_peft_model(base, config)
    perturbed(model.base_model.model.classifier, 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.03)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"fc1": 2}, "alpha_pattern": {"v_proj": 3}},
        {"use_dora": True},
    ],
    ids=["lora", "patterns", "dora"],
)
@torch.no_grad()
def test_adapters_are_merged_into_their_base(vit_paths, tmp_path, options):
    model = adapter(vit_paths, tmp_path / "lora", **options)
    with pytest.raises(InputError, match="a PEFT adapter, not a model; 'hf-mdft pool convert"):
        ModelPool.from_pretrained(tmp_path / "lora", {"shade": vit_paths["shade"]})
    made = convert(tmp_path / "lora", tmp_path / "made")
    assert made.model == "ViTForImageClassification" and made.difference < 1e-5
    plain = ViTForImageClassification.from_pretrained(tmp_path / "made").eval()
    side = plain.config.image_size
    images = torch.randn(5, 3, side, side)
    torch.testing.assert_close(plain(images).logits, model(images).logits, atol=1e-5, rtol=1e-4)
    assert (tmp_path / "made" / "preprocessor_config.json").is_file(), "the base's"
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": tmp_path / "made"})
    assert pool.vectors().stack(pool.vectors().names()[0]).shape[0] == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c, t: (c, {k: v for k, v in t.items() if "q_proj.lora_B" not in k}), "of the adapter does not fit"),
        (lambda c, t: (c, {k: v for k, v in t.items() if "classifier.bias" not in k}), "has tensor 'classifier.bias'"),
        (
            lambda c, t: (c, {**t, "base_model.model.other.lora_A.weight": torch.ones(2)}),
            "of the adapter does not fit",
        ),
        (lambda c, t: (c, {k: v * torch.nan for k, v in t.items()}), "holds NaN"),
        (lambda c, t: ({**c, "base_model_name_or_path": None}, t), "names no base"),
        (lambda c, t: ({**c, "base_model_name_or_path": "/nowhere"}, t), "no such folder"),
        (lambda c, t: ({**c, "auto_mapping": {"base_model_class": "Other"}}, t), "'Other' is none of transformers"),
        (lambda c, t: ({**c, "peft_type": "NEW"}, t), "cannot be read"),
        (lambda c, t: ({**c, "target_modules": ["nothing"]}, t), "peft cannot put it on"),
    ],
)
def test_adapters_that_do_not_fit(vit_paths, tmp_path, damage, said):
    folder = tmp_path / "lora"
    adapter(vit_paths, folder)
    config, tensors = damage(
        json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    )
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=said) as refused:
        convert(folder, tmp_path / "made")
    assert "\n" not in str(refused.value) and not (tmp_path / "made").exists()


def test_classes_of_an_adapter_are_not_its_bases(vit_paths, tmp_path):
    """Its own classifier has as many classes, and other ones, which nothing names."""
    model = ViTForImageClassification.from_pretrained(vit_paths["shade"])
    options = {"target_modules": ["q_proj"], "modules_to_save": ["classifier"]}
    get_peft_model(model, LoraConfig(**options)).save_pretrained(tmp_path / "lora")
    convert(tmp_path / "lora", tmp_path / "made")
    names = json.loads((tmp_path / "made" / "config.json").read_text())["id2label"]
    assert list(names.values()) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    model.config.save_pretrained(tmp_path / "lora")
    convert(tmp_path / "lora", tmp_path / "named")
    names = json.loads((tmp_path / "named" / "config.json").read_text())["id2label"]
    assert list(names.values()) == list(model.config.id2label.values())


def test_an_adapters_own_image_processor_is_the_one_that_is_read(vit_paths, tmp_path):
    """Of both files transformers reads `processor_config.json`, wherever it came from."""
    base, lora = tmp_path / "base", tmp_path / "lora"
    shutil.copytree(vit_paths["shade"], base)
    own = json.loads((vit_paths["base"] / "preprocessor_config.json").read_text())
    (base / "processor_config.json").write_text(json.dumps({"image_processor": own}))
    model = get_peft_model(ViTForImageClassification.from_pretrained(base), LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(lora)
    (lora / "preprocessor_config.json").write_text(json.dumps({**own, "image_mean": [0.9, 0.9, 0.9]}))
    convert(lora, tmp_path / "made")
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "made").image_mean) == [0.9, 0.9, 0.9]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        convert(lora, tmp_path / "file" / "made")


@pytest.mark.parametrize("inside", [False, True], ids=["preprocessor_config", "processor_config"])
def test_a_processor_config_without_an_image_processor_leaves_the_bases(vit_paths, tmp_path, inside):
    base = shutil.copytree(vit_paths["base"], tmp_path / "base")
    own = json.loads((base / "preprocessor_config.json").read_text()) | {"image_mean": [0.9, 0.9, 0.9]}
    (base / "preprocessor_config.json").unlink()
    name, content = (
        ("processor_config.json", {"image_processor": own}) if inside else ("preprocessor_config.json", own)
    )
    (base / name).write_text(json.dumps(content))
    adapter({"base": base}, tmp_path / "lora")
    (tmp_path / "lora" / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    convert(tmp_path / "lora", tmp_path / "made")
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "made").image_mean) == [0.9, 0.9, 0.9]


def test_an_adapter_with_a_classifier_of_another_name(tmp_path):
    AutoModelForImageClassification.from_config(tiny_config("resnet")).save_pretrained(tmp_path / "base")
    model = AutoModelForImageClassification.from_pretrained(
        tmp_path / "base", num_labels=5, ignore_mismatched_sizes=True
    )
    layer = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    options = {"target_modules": [layer], "modules_to_save": ["classifier.1"]}
    get_peft_model(model, LoraConfig(**options)).save_pretrained(tmp_path / "lora")
    made = convert(tmp_path / "lora", tmp_path / "made")
    assert made.model == "ResNetForImageClassification" and made.difference < 1e-5
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "made").config.num_labels == 5


# open_clip

CFG = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 10, "vocab_size": 50, "width": 16, "heads": 4, "layers": 2},
}


class Block(nn.Module):
    """As open_clip builds it: torch's attention, pre-norm."""

    def __init__(self, width, heads, act):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.act = act

    def forward(self, x, mask=None):
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](self.act(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, act):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, act) for _ in range(layers))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, cfg, out, act):
        super().__init__()
        width, side = cfg["width"], cfg["image_size"] // cfg["patch_size"]
        self.conv1 = nn.Conv2d(3, width, cfg["patch_size"], cfg["patch_size"], bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, width // cfg["head_width"], cfg["layers"], act)
        self.proj = nn.Parameter(torch.randn(width, out))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x)))[:, 0] @ self.proj


class OpenClip(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        act = (lambda x: x * torch.sigmoid(1.702 * x)) if cfg["quick_gelu"] else F.gelu
        text = cfg["text_cfg"]
        self.visual = Visual(cfg["vision_cfg"], cfg["embed_dim"], act)
        self.transformer = Transformer(text["width"], text["heads"], text["layers"], act)
        self.token_embedding = nn.Embedding(text["vocab_size"], text["width"])
        self.positional_embedding = nn.Parameter(torch.randn(text["context_length"], text["width"]))
        self.ln_final = nn.LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.randn(text["width"], cfg["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, images, tokens):
        mask = torch.full((tokens.shape[1],) * 2, -torch.inf).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x, mask))
        text = x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ self.text_projection
        return F.normalize(self.visual(images), dim=-1), F.normalize(text, dim=-1)


def texts():
    tokens = torch.randint(1, 48, (3, 10), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = 48
    tokens[0, 6], tokens[1, 9], tokens[2, 4] = 49, 49, 49
    return tokens


@pytest.fixture(params=[True, False], ids=["quick-gelu", "gelu"])
def open_clip(request, tmp_path, clip_paths):
    folder, cfg = tmp_path / "open", {**CFG, "quick_gelu": request.param}
    folder.mkdir()
    model = perturbed(OpenClip(cfg).eval(), 3, 0.2)
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": preprocess}))
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        if (clip_paths["base"] / name).is_file():
            shutil.copy(clip_paths["base"] / name, folder)
    return folder, cfg, model


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@torch.no_grad()
def test_open_clip_as_clip_model(open_clip, tmp_path, file):
    folder, cfg, model = open_clip
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / file) if file.endswith("safetensors") else torch.save(tensors, folder / file)
    images, tokens = torch.randn(3, 3, 16, 16), texts()
    wanted = model(images, tokens)
    for found, own in zip(open_clip_outputs(cfg, tensors, images, tokens), wanted, strict=True):
        torch.testing.assert_close(found, own, atol=2e-5, rtol=1e-4)
    made = convert(folder, tmp_path / "made")
    assert made.model == "CLIPModel" and made.difference < 1e-5 and not made.without_tokenizer
    plain = CLIPModel.from_pretrained(tmp_path / "made").eval()
    found = plain(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(found.image_embeds, wanted[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.text_embeds, wanted[1], atol=2e-5, rtol=1e-4)
    logits = model.logit_scale.exp() * wanted[0] @ wanted[1].T
    torch.testing.assert_close(found.logits_per_image, logits, atol=1e-3, rtol=1e-3)
    processor = CLIPImageProcessor.from_pretrained(tmp_path / "made")
    assert list(processor.image_mean) == [0.5, 0.4, 0.3] and dict(processor.crop_size) == {"height": 16, "width": 16}
    perturbed(plain, 5).save_pretrained(tmp_path / "tuned")
    pool = ModelPool.from_pretrained(tmp_path / "made", {"x": tmp_path / "tuned"})
    assert pool.architecture.name == "clip"


def test_a_repo_of_both_libraries_is_one_of_transformers(open_clip, clip_paths, tmp_path):
    folder, _, model = open_clip
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    shutil.copy(clip_paths["base"] / "config.json", folder)
    torch.save(load_file(clip_paths["base"] / "model.safetensors"), folder / "pytorch_model.bin")
    made = convert(folder, tmp_path / "made")
    assert made.files == ("pytorch_model.bin",) and made.difference == 0.0


def test_into_the_folder_that_one_is_in(source, tmp_path, monkeypatch):
    folder, tensors = source
    pickled(folder, tensors)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(folder, ".")
    assert (tmp_path / "here" / "model.safetensors").is_file()


def test_models_that_are_none_of_images(tmp_path):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="BertModel is no image model"):
        convert(tmp_path / "bert", tmp_path / "made")


def test_models_with_counts_and_any_size_of_images(tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    model = ResNetForImageClassification(config)
    config.architectures = ["ResNetForImageClassification"]
    config.save_pretrained(tmp_path / "resnet")
    torch.save(model.state_dict(), tmp_path / "resnet" / "pytorch_model.bin")
    assert convert(tmp_path / "resnet", tmp_path / "made").difference == 0.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cfg: cfg["vision_cfg"].update(head_width=5), "describes no model"),
        (lambda cfg: cfg["vision_cfg"].update(layers=[3, 4, 6, 3]), "the image tower is no ViT"),
        (lambda cfg: cfg["vision_cfg"].update(timm_model_name="x"), "vision_cfg has 'timm_model_name: x'"),
        (lambda cfg: cfg["text_cfg"].update(pool_type="last"), "text_cfg has 'pool_type: last'"),
        (lambda cfg: cfg.update(multimodal_cfg={}), "model_cfg has 'multimodal_cfg: {}'"),
        (lambda cfg: cfg["text_cfg"].update(layers=1), "the tensor for 'text_model.encoder.layers.1.* has no place"),
        (lambda cfg: cfg["vision_cfg"].update(layers=3), "the tensor for 'vision_model.encoder.layers.2"),
        (lambda cfg: cfg.update(embed_dim=13), "the tensor for .* has shape"),
        (lambda cfg: cfg.pop("text_cfg"), "no config of a CLIP model"),
    ],
)
def test_open_clip_that_clip_model_does_not_compute(open_clip, tmp_path, change, said):
    folder, cfg, model = open_clip
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    changed = json.loads(json.dumps(cfg))
    change(changed)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": changed}))
    with pytest.raises(InputError, match=said):
        convert(folder, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_from_the_hub(hub, client, clip_paths, tmp_path):
    files = files_of(clip_paths["base"], "license: mit")
    tensors = load_file(clip_paths["base"] / "model.safetensors")
    files.pop("model.safetensors")
    torch.save(tensors, tmp_path / "w.bin")
    hub.add("lab/old-clip", {**files, "pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    done = client.run("pool", "convert", "lab/old-clip", "made")
    assert done["code"] == 0, done["err"]
    assert "made: CLIPModel" in done["out"] and "differ from the source's by at most 0.0e+00" in done["out"]
    assert "license: mit" in (tmp_path / "made" / "README.md").read_text()
    again = client.run("pool", "convert", "lab/old-clip", "made")
    assert again["code"] == 2 and again["err"].strip() == "Error: made: exists already; give another folder"
    gone = client.run("pool", "convert", "lab/none", "other")
    assert gone["code"] == 2 and len(gone["err"].strip().splitlines()) == 1
