"""Every image classifier of transformers, in a pool: what it computes, how it is combined, saved and loaded again."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from conftest import TASKS, fit_arguments, perturbed, specialize_arguments
from peft import get_peft_model
from tiny_classifiers import NAMES, OPTIONS, tiny_config
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPModel,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
    ViTImageProcessor,
)

from hf_mdft import InputError, MdftConfig, MetaMerger, ModelPool, Task
from hf_mdft.adapter import combined_once
from hf_mdft.adapter.layer import running_statistics
from hf_mdft.architectures import Classifier, read_config
from hf_mdft.architectures.output_layers import CLASSES, output_layers
from hf_mdft.architectures.unsupported import REASONS
from hf_mdft.embedding.statistics import _mixed, batch_norms, estimate_statistics
from hf_mdft.evaluation.baselines import combined_tower
from hf_mdft.heads import build_head
from hf_mdft.meta.resume import resume_key
from hf_mdft.pool.parity import parity
from hf_mdft.tasks import Preprocessor, read_unlabelled


NEEDS_A_PACKAGE = {"dinat": "natten", "timm_wrapper": "timm"}
POOLED = [(kind, name) for kind, names in CLASSES.items() if kind not in {*REASONS, "vit"} for name in names]
"""ViT has an architecture of its own."""


def size_of(config):
    """Pixels on a side of the images that a tiny model is shown."""
    size = getattr(Classifier().tower_config(config), "image_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    return size if size and size < 100 else 32


def save_pool(folder, kind, name, **options):
    """A tiny base with running statistics of its own, and two experts of three classes."""
    torch.manual_seed(0)
    config = tiny_config(kind, **options)
    base = getattr(transformers, name)(config)
    size = size_of(config)
    for number, part in enumerate(("base", "a", "b")):
        model = perturbed(copy.deepcopy(base), number) if number else base
        generator = torch.Generator().manual_seed(number)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
            elif buffer_name.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape, generator=generator)
        model.save_pretrained(folder / part)
        ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder / part)
    return ModelPool.from_pretrained(folder / "base", {part: folder / part for part in "ab"})


def logits_of(outputs):
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state


QUICK = {"beit", "clip", "convnextv2", "deit", "dinov2", "resnet", "siglip", "swiftformer", "swinv2", "timm_wrapper"}
"""Types that every run of the tests goes through: one of each family. All others are slow together."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*pair, marks=() if pair[0] in QUICK else pytest.mark.slow, id=pair[1]) for pair in POOLED],
)
@torch.no_grad()
def test_every_classifier_of_transformers(tmp_path, kind, name):
    if kind in NEEDS_A_PACKAGE:
        pytest.importorskip(NEEDS_A_PACKAGE[kind])
    pool = save_pool(tmp_path, kind, name)
    size = size_of(pool.config)
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))

    assert list(parity(pool)) == ["base", "a", "b"] and max(parity(pool).values()) < 1e-4
    depths = pool.depths()
    assert list(depths) == [parameter for parameter, _ in pool.tower().named_parameters()]
    assert set(depths.values()) >= {0, 1} and not any(layer in depths for layer in output_layers(pool.config))

    # A specialist is a plain classifier.
    head = build_head("a", Task(None), pool)
    assert head.class_names == NAMES
    pool.save_complete(pool.tower("a").state_dict(), head, tmp_path / "specialist")
    plain, again = (
        AutoModelForImageClassification.from_pretrained(tmp_path / folder).eval() for folder in ("a", "specialist")
    )
    expected = logits_of(plain(pixel_values=pixels))
    torch.testing.assert_close(logits_of(again(pixel_values=pixels)), expected, atol=1e-5, rtol=1e-4)
    assert list(again.config.id2label.values()) == NAMES and again.config.num_labels == 3

    # What the adapter computes is the formula.
    model = get_peft_model(pool.tower(), MdftConfig(pool=pool, init_coefficient=0.4)).eval()
    base, a, b = (pool.tower(expert).state_dict() for expert in (None, "a", "b"))
    wanted = pool.tower()
    for key, parameter in wanted.named_parameters():
        parameter += 0.4 * (a[key] - base[key]) + 0.4 * (b[key] - base[key])
    folded = copy.deepcopy(model).merge_and_unload()
    assert folded.state_dict().keys() == wanted.state_dict().keys()
    for key, tensor in folded.state_dict().items():
        torch.testing.assert_close(tensor, wanted.state_dict()[key], atol=2e-3, rtol=1e-2)
    embedding = pool.architecture.features(model(pixel_values=pixels))
    torch.testing.assert_close(
        pool.architecture.features(folded(pixel_values=pixels)), embedding, atol=1e-4, rtol=1e-3
    )

    # A combined model without a head of its own gives its embedding as logits.
    pool.save_complete(folded.state_dict(), None, tmp_path / "folded")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "folded").eval()
    torch.testing.assert_close(logits_of(again(pixel_values=pixels)), embedding, atol=1e-4, rtol=1e-3)


def test_the_sweep_knows_every_type():
    assert OPTIONS.keys() == CLASSES.keys()


def config_folders(folder, kind):
    """A base and an expert of which only the configs are real."""
    for name in ("base", "expert"):
        config = tiny_config(kind) if kind in OPTIONS else AutoConfig.for_model(kind)
        config.architectures = list(CLASSES.get(kind, ["Model"]))[:1]
        config.save_pretrained(folder / name)
        (folder / name / "model.safetensors").write_bytes(name.encode())
    return folder / "base", folder / "expert"


@pytest.mark.parametrize("kind", sorted(REASONS))
def test_what_cannot_be_pooled_is_refused_with_its_reason(tmp_path, kind):
    base, expert = config_folders(tmp_path, kind)
    with pytest.raises(InputError) as error:
        ModelPool.from_pretrained(base, {"x": expert})
    assert str(error.value) == f"{base}: model type '{kind}' cannot be pooled: {REASONS[kind]}"


@pytest.mark.parametrize(("kind", "package"), NEEDS_A_PACKAGE.items())
def test_a_missing_package_is_named(tmp_path, kind, package):
    try:
        __import__(package)
    except ImportError:
        base, expert = config_folders(tmp_path, kind)
        with pytest.raises(InputError, match=f"^{base}: .*{package}"):
            ModelPool.from_pretrained(base, {"x": expert})
    else:
        pytest.skip(f"{package} is here")


def test_depth_follows_the_order_of_use(tmp_path):
    """PVT registers all patch embeddings before the first block, and uses one before each stage."""
    depths = save_pool(tmp_path, "pvt", "PvtForImageClassification").depths()
    embeddings = {key: depth for key, depth in depths.items() if ".patch_embeddings." in key}
    assert {depth for key, depth in embeddings.items() if ".patch_embeddings.0." in key} == {0}
    assert {depth for key, depth in embeddings.items() if ".patch_embeddings.1." in key} == {2}
    assert {depth for key, depth in depths.items() if ".block.1.0." in key} == {2}


def test_a_base_without_a_classifier(tmp_path):
    """Most are published so; the experts say what becomes of them."""
    pool = save_pool(tmp_path, "swin", "SwinForImageClassification")
    SwinModel.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "tower")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "tower")
    other = ModelPool.from_pretrained(tmp_path / "tower", {"a": tmp_path / "a"})
    assert max(parity(other).values()) < 1e-4
    for key, tensor in pool.tower().state_dict().items():
        assert torch.equal(other.tower().state_dict()[key], tensor)


def test_an_adapter_on_a_plain_classifier_leaves_its_output_layer(tmp_path):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    model = get_peft_model(plain, MdftConfig(pool=pool))
    adapted = {name for name, _ in model.named_parameters() if "mdft_lambda" in name}
    assert adapted and not any("classifier" in name for name in adapted)
    model.save_pretrained(tmp_path / "adapter")
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 3)


# Experts of one kind


def test_experts_of_several_kinds_are_refused(tmp_path, clip_paths):
    save_pool(tmp_path, "deit", "DeiTForImageClassification")
    save_pool(tmp_path / "other", "deit", "DeiTForImageClassificationWithTeacher")
    with pytest.raises(InputError) as error:
        ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a", "b": tmp_path / "other" / "b"})
    assert str(error.value) == (
        f"{tmp_path / 'other' / 'b'}: DeiTForImageClassificationWithTeacher, but {tmp_path / 'a'} is "
        "DeiTForImageClassification; one pool takes experts of one kind"
    )


def test_experts_of_a_clip_base_that_are_classifiers(tmp_path, clip_paths):
    """They read the mean of the patches, not what texts are compared with."""
    clip = CLIPModel.from_pretrained(clip_paths["base"])
    for number, name in enumerate("ab"):
        config = read_config(clip_paths["base"], "base")
        config.id2label, config.label2id = dict(enumerate(NAMES)), {n: i for i, n in enumerate(NAMES)}
        model = transformers.CLIPForImageClassification(config)
        model.vision_model.load_state_dict(clip.vision_model.state_dict())
        perturbed(model, number).save_pretrained(tmp_path / name)
    pool = ModelPool.from_pretrained(clip_paths["base"], {name: tmp_path / name for name in "ab"})
    assert pool.architecture.name == "classifier" and max(parity(pool).values()) < 1e-5
    with pytest.raises(InputError, match="a model without a classifier, but .* is CLIPForImageClassification"):
        ModelPool.from_pretrained(clip_paths["base"], {"a": tmp_path / "a", "shade": clip_paths["shade"]})


@pytest.mark.parametrize(
    ("option", "value"),
    [("layer_norm_eps", 0.1), ("hidden_act", "relu"), ("window_size", 4), ("use_absolute_embeddings", True)],
)
def test_an_expert_that_computes_something_else_is_refused(tmp_path, option, value):
    save_pool(tmp_path, "swin", "SwinForImageClassification")
    config = SwinConfig.from_pretrained(tmp_path / "a")
    setattr(config, option, value)
    config.architectures = ["SwinForImageClassification"]
    config.save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=f"{tmp_path / 'a'}: {option} is {value}, the base .* has "):
        ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a"})


def test_a_size_that_the_model_cannot_read_is_named(tmp_path):
    pool = save_pool(tmp_path, "vit_msn", "ViTMSNForImageClassification")
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=r"base: .* 48 x 48 pixels, which its image processor makes .*; correct"):
        parity(pool)


# Running statistics


def images_of(pool, unlabelled_data):
    merger = MetaMerger(pool, {"a": Task(unlabelled_data["shade"], class_names=NAMES)})
    return merger.unlabelled("a")


@torch.no_grad()
def test_running_statistics_are_those_of_the_combined_weights(tmp_path, unlabelled_data):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    images = images_of(pool, unlabelled_data)
    tower = combined_tower(pool, None, [images])
    first = next(iter(batch_norms(tower).values()))
    seen = []
    stem = tower.get_submodule("resnet.embedder.embedder.convolution")
    pixels = torch.cat(list(images.batches(len(images))))
    seen = stem(pixels).transpose(0, 1).flatten(1)
    torch.testing.assert_close(first.running_mean, seen.mean(dim=1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(first.running_var, seen.var(dim=1), atol=1e-3, rtol=2e-2)
    base = dict(pool.tower().named_buffers())["resnet.embedder.embedder.normalization.running_mean"]
    assert not torch.allclose(first.running_mean, base, atol=1e-3)
    assert not tower.training and first.momentum == 0.1
    with pytest.raises(ValueError, match="needs images"):
        estimate_statistics(tower, [])


def test_towers_without_statistics_need_no_images(clip_pool):
    tower = clip_pool.tower()
    assert estimate_statistics(tower, []) is tower


def test_both_phases_with_running_statistics(tmp_path, unlabelled_data, test_data):
    """They are saved with the adapter, folded into the weights, and each specialist has its own."""
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    data = dict(zip("ab", ("shade", "shade"), strict=True))
    tasks = {
        name: Task(unlabelled_data[source], test_data[source], class_names=TASKS[source])
        for name, source in data.items()
    }
    merger = MetaMerger(pool, tasks)
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=3))
    model = merger.model
    own = dict(model.named_parameters())[
        "base_model.model.resnet.embedder.embedder.normalization.mdft_statistics.default"
    ]
    folded = merger.meta_tower()
    norm = folded.get_submodule("resnet.embedder.embedder.normalization")
    assert torch.equal(torch.cat([norm.running_mean, norm.running_var]), own)
    kept = own.detach().clone()
    estimate_statistics(model, [merger.unlabelled(task) for task in tasks])  # each layer combining its own weights
    torch.testing.assert_close(own.detach(), kept, atol=1e-5, rtol=1e-4)
    own.data.copy_(kept)
    assert not any("mdft_statistics" in name for name, p in model.named_parameters() if p.requires_grad)

    merger.save_pretrained(tmp_path / "meta")
    again = MetaMerger.from_pretrained(tmp_path / "meta").meta_tower()
    for key, tensor in folded.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor) or key.endswith("num_batches_tracked")

    made = merger.specialize(specialize_arguments(tmp_path / "phase2", max_steps=3, gate=False))
    trained = made["a"].tower(gated=False)
    estimated = estimate_statistics(copy.deepcopy(trained), [merger.unlabelled("a")])
    for key, tensor in estimated.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], tensor, atol=1e-5, rtol=1e-4)
    report = merger.evaluate()
    assert {"weight_average", "meta", "specialist"} <= report.accuracy.keys()


def test_merging_and_unmerging_takes_statistics_along(tmp_path, unlabelled_data):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    model = get_peft_model(pool.tower(), MdftConfig(pool=pool))
    estimate_statistics(model, [images_of(pool, unlabelled_data)])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = model.eval()(pixels).logits
        model.merge_adapter()
        torch.testing.assert_close(model(pixels).logits, plain, atol=1e-4, rtol=1e-3)
        model.unmerge_adapter()
        torch.testing.assert_close(model(pixels).logits, plain, atol=1e-4, rtol=1e-3)
        with model.disable_adapter():
            base = pool.tower()(pixels).logits
            torch.testing.assert_close(model(pixels).logits, base, atol=1e-5, rtol=1e-4)


def test_other_tensors_that_are_not_trained_are_refused(tmp_path, monkeypatch):
    save_pool(tmp_path, "swin", "SwinForImageClassification")

    class Kept(SwinForImageClassification):
        def __init__(self, config):
            super().__init__(config)
            self.swin.register_buffer("scale", torch.ones(3))

    monkeypatch.setattr("hf_mdft.architectures.output_layers.classifier_class", lambda config: Kept)
    with pytest.raises(InputError, match="'swin.scale' of its tower is neither trained nor a running statistic"):
        ModelPool.from_pretrained(tmp_path / "base", {"a": tmp_path / "a"})


def test_names_of_targets_are_exact():
    """A target `norm` is not every `block.norm`."""
    from hf_mdft.adapter.model import MdftModel, parameter_owners

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Module()
            self.block.scale = nn.Parameter(torch.ones(2))
            self.block.norm = nn.LayerNorm(2)
            self.norm = nn.LayerNorm(2)

    owners = parameter_owners(Model(), "")
    assert owners == ["block", "norm"]
    tuner = MdftModel.__new__(MdftModel)
    nn.Module.__init__(tuner)
    tuner._owning = set(owners)
    assert [key for key in ("block", "block.norm", "norm") if tuner._check_target_module_exists(None, key)] == owners


def test_cards_load_what_was_saved(tmp_path, unlabelled_data):
    """The code of a meta-model's card names the class that the adapter fits."""
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    merger = MetaMerger(pool, {"a": Task(unlabelled_data["shade"], class_names=NAMES)})
    merger.fit(fit_arguments(tmp_path / "fit", max_steps=1))
    merger.save_pretrained(tmp_path / "meta")
    card = (tmp_path / "meta" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    assert "from transformers import ResNetForImageClassification" in code
    code = code.replace('.from_pretrained("base")', f'.from_pretrained("{tmp_path / "base"}")')
    code = code.replace('"OWNER/NAME"', f'"{tmp_path / "meta"}"')
    found = {}
    exec(code, found)
    pixels = torch.randn(2, 3, 64, 64)
    plain = found["plain"].eval()
    folded = merger.meta_tower()
    for key, tensor in folded.state_dict().items():
        assert torch.equal(plain.state_dict()[key], tensor) or key.endswith("num_batches_tracked")
    assert plain(pixels).logits.shape == (2, 3)


@torch.no_grad()
def test_sums_of_adapters_and_running_statistics(tmp_path, unlabelled_data, caplog):
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    model = get_peft_model(pool.tower(), MdftConfig(pool=pool)).eval()
    estimate_statistics(model, [images_of(pool, unlabelled_data)])
    pixels = torch.randn(2, 3, 64, 64)
    plain = model(pixels).logits
    model.add_weighted_adapter(["default"], [1.0], "same")
    assert not caplog.text
    model.add_weighted_adapter(["default"], [0.5], "part")
    assert "part: running statistics (BatchNorm) are the base's" in caplog.text
    model.set_adapter("same")
    torch.testing.assert_close(model(pixels).logits, plain)

    base = {name: buffer.clone() for name, buffer in running_statistics(pool.tower()).items()}
    model.base_model.merge_adapter(["same"])
    model.base_model.merge_adapter(["part"])
    model.base_model.unmerge_adapter()
    for name, buffer in running_statistics(model.base_model.model).items():
        assert torch.equal(buffer, base[name.replace("base_layer.", "")]), name


def test_a_run_of_running_statistics_depends_on_how_its_steps_are_divided(tmp_path, unlabelled_data):
    """BatchNorm measures what goes through together."""
    pool = save_pool(tmp_path, "resnet", "ResNetForImageClassification")
    images, head = {"a": images_of(pool, unlabelled_data)}, {"a": build_head("a", Task(None), pool)}

    def key(**options):
        return resume_key(pool, MdftConfig(pool=pool), head, images, fit_arguments(tmp_path, **options))

    assert key(images_per_micro_batch=1) != key() == key()


@pytest.mark.parametrize("tasks", [1, 129, 300])
def test_statistics_of_many_tasks(unlabelled_data, clip_pool, tasks):
    images = [read_unlabelled("x", Task(unlabelled_data["shade"]), Preprocessor.of(clip_pool.base.folder, "x"))]
    batches = list(_mixed(images * tasks))
    assert all(len(batch) >= max(2, tasks) and len(batch) % tasks == 0 for batch in batches) and batches


def test_layers_that_own_parameters_are_not_computed_again_without_the_adapter(tmp_path):
    """BEiT's whole layers are wrapped: by itself, checkpointing would see the base's weights."""
    pool = save_pool(tmp_path, "beit", "BeitForImageClassification")
    model = get_peft_model(pool.tower(), MdftConfig(pool=pool)).train()
    size = size_of(pool.config)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))

    def gradient():
        torch.manual_seed(0)
        for p in model.parameters():
            p.grad = None
        with combined_once(model):
            model(pixel_values=pixels).logits.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    plain = gradient()
    model.base_model.model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain)
    with pytest.raises(RuntimeError, match="compute BeitLayer again without the adapter; use hf_mdft.adapter.combin"):
        model(pixel_values=pixels)
    with torch.no_grad():
        model(pixel_values=pixels)
    model.eval()(pixel_values=pixels).logits.sum().backward()  # nothing is computed again
