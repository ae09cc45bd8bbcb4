"""Heads against plain CLIP and plain classifiers."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPModel, ViTForImageClassification

from hf_mdft import InputError, Task, load_head
from hf_mdft.heads import TEMPLATES, LinearHead, build_head
from hf_mdft.heads.templates import resolve_templates
from hf_mdft.tasks import Preprocessor


@torch.no_grad()
def test_zero_shot_equals_clip(clip_pool, clip_paths):
    """With one template the head gives CLIP's own logits."""
    head = build_head("shade", Task(unlabelled=None, class_names=TASKS["shade"]), clip_pool)
    model = CLIPModel.from_pretrained(clip_paths["base"]).eval()
    tokens = AutoTokenizer.from_pretrained(clip_paths["base"])(
        [f"a photo of a {name}." for name in TASKS["shade"]], padding=True, return_tensors="pt"
    )
    processor = Preprocessor(clip_pool.base.folder, "base").processor
    pixel_values = processor([Image.new("RGB", (40, 40), c) for c in ("red", "black")], return_tensors="pt")[
        "pixel_values"
    ]
    expected = model(**tokens, pixel_values=pixel_values).logits_per_image
    found = head(model.vision_model(pixel_values=pixel_values).pooler_output)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_linear_head_is_the_experts_classifier(vit_pool, vit_paths, pixels):
    head = build_head("colour", Task(unlabelled=None), vit_pool)
    assert head.class_names == TASKS["colour"]
    expert = ViTForImageClassification.from_pretrained(vit_paths["colour"]).eval()
    features = vit_pool.architecture.features(vit_pool.tower("colour")(pixel_values=pixels))
    torch.testing.assert_close(head(features), expert(pixels).logits, atol=1e-5, rtol=1e-5)


def test_head_from_a_plain_file(clip_pool, tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.randn(3, 16), "bias": torch.zeros(3)}, path)
    head = build_head("shade", Task(unlabelled=None, head=str(path), class_names=TASKS["shade"]), clip_pool)
    assert isinstance(head, LinearHead) and head.class_names == TASKS["shade"]
    given = build_head("shade", Task(unlabelled=None, head=head), clip_pool)
    assert given is head
    numbered = ["class 1", "class 2", "class 0"]
    named = build_head("shade", Task(unlabelled=None, head=str(path), class_names=numbered), clip_pool)
    assert named.class_names == numbered and torch.equal(named.weight, head.weight), "it has no names of its own"


def test_equal_heads_are_equal_files(tmp_path):
    """The library writes metadata in random order."""
    names = ["plain", 'q"uote\\', "ä\U0001f600", "tab\tand\x01"]
    head = LinearHead(names, weight=torch.randn(4, 5), bias=torch.randn(4))
    for number in range(12):
        head.save(tmp_path / f"{number}.safetensors")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    again = load_head(tmp_path / "0.safetensors")
    assert again.class_names == names and again.key() == head.key()


def test_class_names_come_from_the_dataset(clip_pool, unlabelled_data):
    head = build_head("colour", Task(unlabelled=unlabelled_data["colour"]), clip_pool)
    assert head.class_names == TASKS["colour"]


def test_built_in_templates():
    counts = {
        "sun397": 2,
        "stanford_cars": 8,
        "resisc45": 18,
        "eurosat": 3,
        "svhn": 1,
        "gtsrb": 3,
        "mnist": 1,
        "dtd": 8,
    }
    assert {name: len(TEMPLATES[name]) for name in counts} == counts
    for templates in TEMPLATES.values():
        assert len(set(templates)) == len(templates)
        resolve_templates(templates, "test")
    assert "a photo of the texture." not in TEMPLATES["dtd"]
    assert TEMPLATES["dtd"][1] == "a photo of the {} texture."
    assert "satellite view of the {}." in TEMPLATES["resisc45"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(unlabelled=None, class_names=["a", "b"], templates="mnits"), "did you mean 'mnist'"),
        (Task(unlabelled=None, class_names=["a", "b"], templates=["a photo"]), "must hold one {}"),
        (Task(unlabelled=None), "no class_names"),
        (Task(unlabelled=None, head="linear"), "no 'classifier.weight'"),
        (Task(unlabelled=None, head="zero_shoot"), "did you mean 'zero_shot'"),
        (Task(unlabelled=None, head="missing.safetensors"), "no readable head|cannot be read"),
    ],
)
def test_errors_of_clip_heads(clip_pool, task, message):
    with pytest.raises(InputError, match=message):
        build_head("shade", task, clip_pool)


def test_errors_of_linear_heads(vit_pool, tmp_path):
    with pytest.raises(InputError, match="2 class names, but the classifier of .* has 3 classes"):
        build_head("shade", Task(unlabelled=None, class_names=["a", "b"]), vit_pool)
    with pytest.raises(InputError, match="needs a base with a text tower"):
        build_head("shade", Task(unlabelled=None, head="zero_shot", class_names=["a", "b"]), vit_pool)
    save_file({"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}, tmp_path / "one.safetensors")
    for one in (str(tmp_path / "one.safetensors"), load_head(tmp_path / "one.safetensors")):
        with pytest.raises(InputError, match=r"task 'shade': its head .* has one class"):
            build_head("shade", Task(unlabelled=None, head=one), vit_pool)
    save_file({"weight": torch.zeros(3, 16)}, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match="needs tensor 'bias'"):
        load_head(tmp_path / "half.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "zero_shot"])
def test_classes_of_a_given_head_are_matched_by_name(clip_pool, tmp_path, kind):
    if kind == "linear":
        head = LinearHead(["dark", "middle", "bright"], weight=torch.randn(3, 16), bias=torch.randn(3))
    else:
        head = build_head("shade", Task(None, class_names=["dark", "middle", "bright"]), clip_pool)
    head.save(tmp_path / "head.safetensors")
    features = torch.randn(5, 16)
    for given in (head, str(tmp_path / "head.safetensors")):
        found = build_head("shade", Task(None, head=given, class_names=["Bright", "dark", "middle"]), clip_pool)
        assert found.class_names == ["Bright", "dark", "middle"]
        assert torch.equal(found(features), head(features)[:, [2, 0, 1]])
        renamed = build_head("shade", Task(None, head=given, class_names=["x", "y", "z"]), clip_pool)
        assert renamed.class_names == ["x", "y", "z"] and torch.equal(renamed(features), head(features))
        with pytest.raises(InputError, match="class_names and the head both name 'bright', at different positions"):
            build_head("shade", Task(None, head=given, class_names=["bright", "dark", "other"]), clip_pool)
    with pytest.raises(InputError, match="2 class_names, but the head has 3 classes"):
        load_head(tmp_path / "head.safetensors", ["a", "b"])


def test_a_kind_of_head_that_does_not_say_what_has_a_row_for_each_class():
    class Fixed(LinearHead):
        class_tensors = ()

    head = Fixed(["a", "b"], weight=torch.randn(2, 3), bias=torch.zeros(2))
    assert torch.equal(head.named(["x", "y"], "task").weight, head.weight)
    with pytest.raises(InputError, match="cannot be put into another order"):
        head.named(["b", "a"], "task")


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"weight": (3, 16), "bias": (5,)}, "linear"),
        ({"weight": (3, 16), "bias": ()}, "linear"),
        ({"weight": (3,), "bias": (3,)}, "linear"),
        ({"weight": (3, 16, 1), "bias": (3,)}, "linear"),
        ({"class_embeddings": (3, 8), "projection": (9, 16), "logit_scale": ()}, "zero_shot"),
        ({"class_embeddings": (3, 8), "projection": (8,), "logit_scale": ()}, "zero_shot"),
        ({"class_embeddings": (3, 8), "projection": (8, 16), "logit_scale": (3,)}, "zero_shot"),
    ],
)
def test_tensors_that_do_not_fit_together(tmp_path, tensors, kind):
    file, names = tmp_path / "h.safetensors", ["a", "b", "c"]
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, file, {"head": kind})
    for given in (None, names):
        with pytest.raises(InputError, match="h.safetensors: .*tensors that do not fit together"):
            load_head(file, given)


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    (tmp_path / "h.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match="a pointer of Git LFS, not the file itself; run 'git lfs pull'"):
        load_head(tmp_path / "h.safetensors")
