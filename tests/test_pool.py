"""Pools: pinned, checked before use, whatever the layout of the files."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import TASKS, VISION, both_architectures, layouts, pool_of, save_clip_pool
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
)

import hf_mdft.pool.manifest as manifest_module
from hf_mdft import InputError, ModelPool, Task
from hf_mdft.architectures.blocks import depths
from hf_mdft.core.cache import cache_root
from hf_mdft.core.hashing import _hash_of, file_hash
from hf_mdft.core.sealed import discard
from hf_mdft.demo.models import save_processors
from hf_mdft.heads import build_head
from hf_mdft.pool.geometry import geometry, task_vector_gram
from hf_mdft.pool.inspect import geometry_text, listing
from hf_mdft.pool.names import model_folders
from hf_mdft.pool.parity import parity, parity_text
from hf_mdft.pool.vectors import write_vectors
from hf_mdft.tasks import Preprocessor, has_processor
from hf_mdft.transforms import TRANSFORMS


@both_architectures
def test_reference_finds_the_same_pool(pool):
    reference = json.loads(json.dumps(pool.reference(), sort_keys=True))
    again = ModelPool.from_reference(reference)
    assert again.reference() == pool.reference()
    assert list(again.experts) == list(TASKS)


def test_changed_weights_are_noticed(clip_paths, tmp_path):
    expert = shutil.copytree(clip_paths["shade"], tmp_path / "shade")
    reference = ModelPool.from_pretrained(clip_paths["base"], {"shade": expert}).reference()
    file = expert / "model.safetensors"
    tensors = load_file(file)
    tensors[next(iter(tensors))] += 1
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"shade: its weights or config changed since this pool was pinned"):
        ModelPool.from_reference(reference)


def test_weights_in_folders_are_hashed_once(tmp_path, monkeypatch):
    """Another process need not read them again to know them, unless they were just written, touched or replaced."""
    file, reads = tmp_path / "model.safetensors", []
    file.write_bytes(b"weights")
    monkeypatch.setattr("builtins.open", lambda *a, real=open, **k: reads.append(a[0]) or real(*a, **k))

    def in_a_new_process(after_s):
        now = file.stat().st_ctime_ns + int(after_s * 1e9)
        monkeypatch.setattr("hf_mdft.core.hashing.time.time_ns", lambda: now)
        _hash_of.cache_clear()
        reads.clear()
        assert file_hash(file) == hashlib.sha256(file.read_bytes()).hexdigest()
        return str(file) in reads

    assert in_a_new_process(0) and in_a_new_process(1)
    assert in_a_new_process(10) and not in_a_new_process(10)
    os.utime(file)
    assert in_a_new_process(10) and not in_a_new_process(10)
    (known,) = [f for f in (cache_root() / "hashes").iterdir() if f.stat().st_mtime_ns == max(
        g.stat().st_mtime_ns for g in (cache_root() / "hashes").iterdir()
    )]  # fmt: skip
    known.write_text("")
    assert in_a_new_process(10) and not in_a_new_process(10)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    other = tmp_path / "other"
    other.write_bytes(b"changed")
    os.utime(other, ns=times)
    other.replace(file)
    assert in_a_new_process(10)


@both_architectures
def test_task_vectors_are_the_differences(pool):
    vectors = pool.vectors()
    base = pool.tower().state_dict()
    assert set(vectors.names()) == {name for name, _ in pool.tower().named_parameters()}
    for number, task in enumerate(TASKS):
        expert = pool.tower(task).state_dict()
        for name in vectors.names():
            assert torch.equal(vectors.stack(name)[number], (expert[name] - base[name]).half())


def test_task_vectors_are_prepared_once(clip_pool, monkeypatch):
    first = clip_pool.vectors({"name": "trim", "density": 0.5})
    names = first.names()
    del first
    monkeypatch.setattr(ModelPool, "_raw_vectors", lambda self: pytest.fail("read the experts again"))
    again = clip_pool.vectors({"name": "trim", "density": 0.5})
    assert again.names() == names and clip_pool.vectors({"name": "trim", "density": 0.5}) is again


def kept(monkeypatch, pool, spec):
    """Folder of the cache from which a pool's task vectors are read."""
    folders = []

    def prepared(*args, real=manifest_module.prepared):
        folders.append(real(*args))
        return folders[-1]

    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "prepared", prepared)
        patch.setattr(manifest_module, "_OPEN_VECTORS", {})
        pool.vectors(spec)
    return folders[-1]


def test_task_vectors_are_kept_once_whatever_the_spelling(clip_pool, monkeypatch):
    spellings = ["trim", {"name": "trim"}, {"name": "trim", "density": 0.2}, {"scope": "tensor", "name": "trim"}]
    assert all(clip_pool.vectors(spec) is first for first in [clip_pool.vectors("trim")] for spec in spellings)
    assert len({kept(monkeypatch, clip_pool, spec) for spec in spellings}) == 1
    nested = [{"name": "lines", "of": spec} for spec in spellings]
    assert len({kept(monkeypatch, clip_pool, spec) for spec in nested}) == 1
    assert kept(monkeypatch, clip_pool, {"name": "trim", "density": 0.3}) != kept(monkeypatch, clip_pool, "trim")


def test_task_vectors_in_the_making_have_a_progress_bar(clip_pool, monkeypatch, capsys):
    """Only where they are made, and of one of several processes."""
    monkeypatch.setattr(TRANSFORMS.get("tsv"), "version", 1000)
    made = clip_pool.vectors("tsv")
    shown = capsys.readouterr().err
    assert "Task vectors (tsv): " in shown and f"/{len(made.names())} " in shown
    monkeypatch.setattr("hf_mdft.pool.manifest._OPEN_VECTORS", {})
    assert clip_pool.vectors("tsv") is not made and not capsys.readouterr().err
    monkeypatch.setattr("hf_mdft.pool.vectors.PartialState", lambda: SimpleNamespace(is_main_process=False))
    monkeypatch.setattr(TRANSFORMS.get("tsv"), "version", 1001)
    clip_pool.vectors({"name": "lines", "of": "tsv"})
    assert not capsys.readouterr().err


@pytest.mark.parametrize("spec", ["sign", {"name": "lines", "of": "sign"}])
def test_an_edited_transform_leaves_no_stale_task_vectors(clip_pool, monkeypatch, spec):
    """Neither in the cache nor in memory."""
    before = clip_pool.vectors(spec)
    kind = TRANSFORMS.get("sign")
    monkeypatch.setattr(kind, "__call__", lambda self, name, vectors, old=kind.__call__: 2 * old(self, name, vectors))
    assert clip_pool.vectors(spec) is before
    monkeypatch.setattr(kind, "version", kind.version + 1)
    after = clip_pool.vectors(spec)
    assert all(torch.equal(after.stack(name), 2 * before.stack(name)) for name in before.names())


@pytest.mark.parametrize(
    "result, message", [(lambda v: v[0], "transform 'sign': gives .* for"), (lambda v: v / 0, "not finite")]
)
def test_what_a_transform_gives_is_checked(clip_pool, monkeypatch, result, message):
    kind = TRANSFORMS.get("sign")
    monkeypatch.setattr(kind, "__call__", lambda self, name, vectors: result(vectors))
    monkeypatch.setattr(kind, "version", kind.version + 2)
    with pytest.raises(InputError, match=message):
        clip_pool.vectors("sign")


def test_another_format_of_the_files_or_another_order_of_blocks_is_another_key(clip_paths, clip_pool, monkeypatch):
    before = kept(monkeypatch, clip_pool, "identity")
    monkeypatch.setattr(manifest_module, "FORMAT", manifest_module.FORMAT + 1)
    later = kept(monkeypatch, clip_pool, "identity")
    monkeypatch.setattr(type(clip_pool.architecture), "depths", lambda self, tower: dict.fromkeys(depths(tower), 0))
    assert len({before, later, kept(monkeypatch, pool_of(clip_paths), "identity")}) == 3  # a pool looks at them once


def test_layouts_give_the_same_expert(clip_paths, tmp_path):
    state = layouts(clip_paths["base"], tmp_path)
    names = ["plain", "old", "full", "projection", "sharded", "half", "bfloat"]
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    pool = ModelPool.from_pretrained(clip_paths["base"], {name: tmp_path / name for name in names})
    for name in names:
        for key, tensor in pool.tower(name).state_dict().items():
            tolerance = {"half": 2e-3, "bfloat": 1e-2}.get(name, 0)
            torch.testing.assert_close(tensor, state[key], atol=tolerance, rtol=tolerance)


def broken(clip_paths, folder, change):
    expert = shutil.copytree(clip_paths["colour"], folder / "broken")
    file = expert / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return expert


def drop(tensors):
    del tensors["vision_model.post_layernorm.bias"]


def widen(tensors):
    tensors["vision_model.post_layernorm.bias"] = torch.zeros(99)


def spoil(tensors):
    tensors["vision_model.post_layernorm.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "broken: tensor 'post_layernorm.bias' of the base is missing"),
        (widen, r"broken: tensor 'post_layernorm.bias' has shape \(99,\), the base has \(16,\)"),
        (spoil, "broken: tensor 'post_layernorm.bias' holds NaN"),
    ],
)
def test_unfit_weights_are_named(clip_paths, tmp_path, change, message):
    expert = broken(clip_paths, tmp_path, change)
    with pytest.raises(InputError, match=message):
        ModelPool.from_pretrained(clip_paths["base"], {"x": expert}).vectors()


def test_unfit_experts_are_named(clip_paths, vit_paths, tmp_path):
    base = clip_paths["base"]
    with pytest.raises(InputError, match="model type 'vit' does not fit"):
        ModelPool.from_pretrained(base, {"x": vit_paths["shade"]})

    expert = shutil.copytree(clip_paths["shade"], tmp_path / "other")
    config = json.loads((expert / "config.json").read_text())
    (expert / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    with pytest.raises(InputError, match="other: num_attention_heads is 4"):
        ModelPool.from_pretrained(base, {"x": expert})

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text(json.dumps(config))
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="no safetensors, only pytorch_model.bin.*pool convert"):
        ModelPool.from_pretrained(base, {"x": pickled})

    (pickled / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(InputError, match="model.safetensors is damaged"):
        ModelPool.from_pretrained(base, {"x": pickled})

    with pytest.raises(InputError, match="no such folder"):
        ModelPool.from_pretrained(base, {"x": tmp_path / "nowhere"})
    with pytest.raises(InputError, match="owner/nowhere: no such folder here, not in the local cache"):
        ModelPool.from_pretrained(base, {"x": "owner/nowhere"})
    with pytest.raises(InputError, match="no expert"):
        ModelPool.from_pretrained(base, {"x": None})


def resaved(folder, change, config=None):
    """A copy of a model's folder with other tensors or another config, in place."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if config:
        found = json.loads((folder / "config.json").read_text())
        config(found)
        (folder / "config.json").write_text(json.dumps(found))
    return folder


def without(key):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name != key}


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        (without("text_projection.weight"), None, "tensor 'text_projection.weight' is missing"),
        (without("logit_scale"), None, "tensor 'logit_scale' is missing"),
        (
            without("text_model.embeddings.token_embedding.weight"),
            None,
            "tensor 'text_model.embeddings.token_embedding.weight' is missing",
        ),
        (
            lambda t: {**t, "visual_projection.weight": t["visual_projection.weight"].to(torch.int8)},
            None,
            "tensor 'visual_projection.weight' is stored as I8",
        ),
        (lambda t: t, lambda c: c["text_config"].update(num_hidden_layers=5), "tensor 'text_model.*' is missing"),
        (
            lambda t: t,
            lambda c: c["vision_config"].update(num_hidden_layers=1),
            "is of a layer more than config.json has",
        ),
        (lambda t: {f"module.{name}": x for name, x in t.items()}, None, "has the prefix of a wrapper.*pool convert"),
    ],
)
def test_nothing_of_a_base_is_made_up(clip_paths, tmp_path, change, config, said):
    base = resaved(shutil.copytree(clip_paths["base"], tmp_path / "base"), change, config)
    with pytest.raises(InputError, match=said):
        ModelPool.from_pretrained(base, {"x": clip_paths["shade"]})


def test_experts_with_more_layers_are_refused(vit_paths, tmp_path):
    def deeper(tensors):
        last = max(int(name.split(".")[3]) for name in tensors if ".layer." in name)
        old, new = f".layer.{last}.", f".layer.{last + 1}."
        more = {name.replace(old, new): tensor.clone() for name, tensor in tensors.items() if old in name}
        return {**tensors, **more}

    expert = resaved(shutil.copytree(vit_paths["shade"], tmp_path / "deep"), deeper)
    with pytest.raises(InputError, match="is of a layer more than the base has"):
        ModelPool.from_pretrained(vit_paths["base"], {"x": expert})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_undone(vit_paths, tmp_path, prefix):
    wrapped = resaved(
        shutil.copytree(vit_paths["shade"], tmp_path / "wrapped"),
        lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()},
    )
    pool = ModelPool.from_pretrained(vit_paths["base"], {"plain": vit_paths["shade"], "wrapped": wrapped})
    plain = dict(pool.weights("plain").items())
    found = dict(pool.weights("wrapped").items())
    assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)
    assert list(parity(pool)) == ["base", "plain"], "transformers does not find the tensors of the other"
    heads = [build_head(task, Task(None), pool) for task in ("plain", "wrapped")]
    assert torch.equal(heads[0].weight, heads[1].weight) and heads[0].class_names == heads[1].class_names


@both_architectures
def test_parity_with_plain_transformers(pool, monkeypatch, tmp_path):
    found = parity(pool)
    assert list(found) == ["base", *pool.experts] and max(found.values()) < 5e-6
    assert f"{len(found)} models compute the same" in parity_text(found)
    own = pool.tower

    def spoiled(expert=None):
        tower = own(expert)
        if expert == "colour":
            dict(tower.named_parameters())[next(n for n, _ in tower.named_parameters() if "layers.1" in n)].data *= 3
        return tower

    monkeypatch.setattr(pool, "tower", spoiled)
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))  # a model is checked once
    with pytest.raises(InputError, match="colour: its (logits|embeddings) in this pool differ from those of plain"):
        parity(pool)


def test_a_model_that_needs_another_package_is_told_as_such(vit_paths, monkeypatch, tmp_path):
    def lacking(*_):
        raise ImportError("OddModel requires the odd library")

    monkeypatch.setattr("hf_mdft.pool.parity._plain_model", lacking)
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))  # a model is checked once
    said = "base: transformers needs another package for it .OddModel requires the odd library.; install it$"
    with pytest.raises(InputError, match=said):
        parity(pool_of(vit_paths))


def test_names_with_and_without_a_prefix_are_refused(vit_paths, tmp_path):
    both = resaved(
        shutil.copytree(vit_paths["shade"], tmp_path / "both"),
        lambda tensors: {**tensors, "module.classifier.bias": tensors["classifier.bias"] + 1},
    )
    with pytest.raises(InputError, match="'classifier.bias' with and without a wrapper's prefix"):
        ModelPool.from_pretrained(vit_paths["base"], {"x": both})


def test_an_expert_of_another_base_is_refused(clip_paths, tmp_path):
    """The same shapes, but weights of another start."""
    torch.manual_seed(11)
    other = resaved(
        shutil.copytree(clip_paths["shade"], tmp_path / "other"),
        lambda tensors: {name: torch.randn_like(t) * t.std() if t.dim() > 1 else t for name, t in tensors.items()},
    )
    experts = {"shade": clip_paths["shade"], "other": other}
    pool = ModelPool.from_pretrained(clip_paths["base"], experts)
    with pytest.raises(InputError, match="other: fine-tuned from another model than the base"):
        pool.vectors()
    with pytest.raises(InputError, match="another model than the base"):
        pool.weights("other")  # not at the second time either
    allowed = ModelPool.from_pretrained(clip_paths["base"], experts, allow_base_mismatch=True)
    assert allowed.vectors().experts == ["shade", "other"]
    with pytest.raises(InputError, match="another model than the base"):
        ModelPool.from_pretrained(clip_paths["base"], experts).vectors()  # though the cache has them now


def test_classifiers_of_several_labels_are_refused(vit_paths, tmp_path):
    expert = resaved(
        shutil.copytree(vit_paths["shade"], tmp_path / "multi"),
        lambda tensors: tensors,
        lambda config: config.update(problem_type="multi_label_classification"),
    )
    with pytest.raises(InputError, match="several labels at once"):
        ModelPool.from_pretrained(vit_paths["base"], {"x": expert})


def test_an_empty_tokenizer_is_refused(clip_paths, tmp_path):
    base = shutil.copytree(clip_paths["base"], tmp_path / "base")
    for path in base.iterdir():
        if path.name.startswith(("tokenizer", "vocab", "merges", "special_tokens")):
            path.unlink()
    pool = ModelPool.from_pretrained(base, {"shade": clip_paths["shade"]})
    with pytest.raises(InputError, match="no tokenizer"):
        build_head("shade", Task(None, class_names=TASKS["shade"]), pool)


def test_half_written_cache_is_not_used(clip_paths, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path))
    pool = pool_of(clip_paths)
    monkeypatch.setattr(
        "hf_mdft.pool.vectors.save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(InputError, match="cannot write .*; free space or set HF_MDFT_CACHE"):
        pool.vectors({"name": "trim", "density": 0.3})
    assert list((tmp_path / "vectors").iterdir()) == []


def test_replacing_experts(clip_pool, clip_paths):
    swapped = clip_pool.with_experts({"shade": clip_paths["colour"]})
    a, b = swapped.tower("shade").state_dict(), clip_pool.tower("colour").state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_geometry(clip_pool):
    gram = task_vector_gram(clip_pool)
    flat = torch.stack(
        [torch.cat([clip_pool.vectors().stack(n)[k].flatten() for n in clip_pool.vectors().names()]) for k in range(3)]
    )
    flat = flat.double()
    torch.testing.assert_close(gram, flat @ flat.T)
    shape = geometry(clip_pool)
    expected = torch.nn.functional.cosine_similarity(flat[:, None], flat, -1)
    torch.testing.assert_close(torch.tensor(shape.cosines, dtype=torch.float64), expected)
    assert "shade" in geometry_text(shape) and "1.00" in geometry_text(shape)
    assert "To download: nothing" in listing(clip_pool) and "shade" in listing(clip_pool)


def flipped(place):
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [flipped(-3), flipped(100), lambda x: x[:-100], None])
def test_damaged_task_vectors_are_prepared_anew(clip_pool, caplog, monkeypatch, damage):
    """One bit of a file in the cache is lost, one of its header, its end, or the whole file."""
    spec = {"name": "trim", "density": 0.7}

    def values():
        vectors = clip_pool.vectors(spec)
        return torch.cat([vectors.stack(name).flatten() for name in vectors.names()])

    expected = values()
    (file,) = kept(monkeypatch, clip_pool, spec).glob("*.safetensors")
    whole = file.read_bytes()
    file.unlink()  # tensors in use may be views of it
    if damage is not None:
        file.write_bytes(damage(whole))
    assert torch.equal(values(), expected) and file.read_bytes() == whole
    assert "it is made anew" in caplog.text


def test_task_vectors_that_are_damaged_each_time(clip_pool, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr("hf_mdft.core.sealed._digest", lambda file: str(next(numbers)))
    with pytest.raises(InputError, match="damaged each time it is written; check the disk, or set HF_MDFT_CACHE"):
        clip_pool.vectors({"name": "trim", "density": 0.6})


def test_a_folder_is_discarded_once(tmp_path):
    """Another process may have been faster."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / "file").write_text("")
    discard(folder, "remove it")
    discard(folder, "remove it")
    assert not list(tmp_path.iterdir())


def test_task_vectors_beyond_half_precision_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"expert 'shade': its 'w' is 1e\+05 away from the base's, above 65504"):
        write_vectors(iter([("w", torch.tensor([[1e5, 0.0]]))]), tmp_path, ["shade"])
    assert not list(tmp_path.iterdir())


def with_config(paths, folder, **changes):
    """A copy of the ViT expert of 'shade' with another config."""
    shutil.copytree(paths["shade"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return ModelPool.from_pretrained(paths["base"], {"shade": folder})


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"0": "dark", "1": "middle", "2": "bright"}, ["dark", "middle", "bright"]),
        ({"2": "bright", "0": "dark", "1": "middle"}, ["dark", "middle", "bright"]),
        ({"0": 3, "1": 5, "2": 8.5}, ["3", "5", "8.5"]),
        ({"1": "dark", "2": "middle", "3": "bright"}, "numbers the classes 1, 2, 3, not 0, 1, 2"),
        ({"0": "dark", "1": "middle", "3": "bright"}, "numbers the classes 0, 1, 3, not 0, 1, 2"),
        ({"-1": "none", "0": "dark", "1": "bright"}, "numbers the classes -1, 0, 1, not 0, 1, 2"),
        ({"0": None, "1": "middle", "2": "bright"}, "calls class 0 None"),
        ({"0": "dark", "1": {"name": "middle"}, "2": "bright"}, r"calls class 1 \{'name': 'middle'\}"),
    ],
)
def test_names_of_classes_in_a_config(vit_paths, tmp_path, names, said):
    pool = with_config(vit_paths, tmp_path / "shade", id2label=names)
    if isinstance(said, list):
        assert build_head("shade", Task(None), pool).class_names == said
    else:
        with pytest.raises(InputError, match=said):
            build_head("shade", Task(None), pool)


def test_notes_in_a_config_may_be_any_number(vit_paths, tmp_path):
    with_config(vit_paths, tmp_path / "a", seed=1234567890, training={"images": 14197122, "num_layers": 10**9})
    for name in ("hidden_size", "num_hidden_layers"):
        with pytest.raises(InputError, match=f"{name} is 999999999, which no model has"):
            with_config(vit_paths, tmp_path / name, **{name: 999999999})


@pytest.mark.parametrize("stale", ["shards", "index"])
def test_one_whole_file_is_read_before_an_index(vit_paths, tmp_path, stale):
    """As transformers does; what a sharded save left behind may be old."""
    folder = shutil.copytree(vit_paths["shade"], tmp_path / "shade")
    tensors = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if stale == "shards":
        old = {name: tensor + 1 for name, tensor in tensors.items()}
        save_file(old, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    pool = ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})
    plain = ViTForImageClassification.from_pretrained(folder).vit.state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in pool.tower("shade").state_dict().items())


def test_a_tower_has_no_weight_that_nothing_has_set(clip_pool):
    tensors = clip_pool.tower().state_dict()
    missing = next(iter(dict(clip_pool.tower().named_parameters())))
    del tensors[missing]
    with pytest.raises(ValueError, match=f"no weights for {missing}"):
        clip_pool.architecture.tower_of(clip_pool.config, tensors)


@pytest.mark.parametrize("names", [("Shade", "shade"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_are_one_folder_somewhere(clip_paths, names, caplog, monkeypatch):
    experts = dict.fromkeys(names, clip_paths["shade"])
    ModelPool.from_pretrained(clip_paths["base"], experts)
    assert "some systems take them for one folder" in caplog.text
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(InputError, match="some systems take them for one folder"):
        ModelPool.from_pretrained(clip_paths["base"], experts)


def test_pointers_of_git_lfs_count_where_they_are_read(clip_paths, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    shade = shutil.copytree(clip_paths["shade"], tmp_path / "shade")
    (shade / "pytorch_model.bin").write_text(pointer)
    ModelPool.from_pretrained(clip_paths["base"], {"shade": shade})
    (shade / "model.safetensors").write_text(pointer)
    with pytest.raises(InputError, match="model.safetensors: a pointer of Git LFS"):
        ModelPool.from_pretrained(clip_paths["base"], {"shade": shade})


def test_a_token_stays_with_a_pool_of_folders(clip_paths):
    """Teachers from elsewhere are asked for with it."""
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": clip_paths["shade"]}, token="hf_secret")
    assert pool.base.token == "hf_secret" and "hf_secret" not in repr(pool) + str(pool.reference())


def test_patterns_of_folders_find_adapters_and_tell_what_they_pass_over(clip_paths, tmp_path, caplog):
    runs = tmp_path / "runs"
    shutil.copytree(clip_paths["shade"], runs / "1")
    for name, file in (("2", "adapter_config.json"), ("notes", "notes.txt")):
        (runs / name).mkdir()
        (runs / name / file).write_text("{}", encoding="utf-8")
    assert model_folders([str(runs / "*")], "x") == [str(runs / "1"), str(runs / "2")]
    assert "notes" in caplog.text and str(runs / "2") not in caplog.text
    with pytest.raises(InputError, match="no folder with a config.json or adapter_config.json matches"):
        model_folders([str(runs / "n*")], "x")


def test_an_expert_whose_text_tower_was_fine_tuned_is_told(clip_paths, tmp_path, caplog):
    """Weights of a text tower are small: a hundredth each is another tower."""
    for size, told in ((0.0, False), (0.009, True)):
        model = CLIPModel.from_pretrained(clip_paths["base"])
        with torch.no_grad():
            for parameter in model.text_model.parameters():
                parameter.add_(size * torch.randn_like(parameter).clamp(-1, 1))
        model.to(torch.bfloat16).save_pretrained(tmp_path / f"{size}")
        caplog.clear()
        with caplog.at_level("WARNING"):
            ModelPool.from_pretrained(clip_paths["base"], {"shade": tmp_path / f"{size}"}).weights("shade")
        assert ("differs from the base's, which is used for all experts" in caplog.text) is told


@pytest.mark.parametrize("kind", ["q_proj", "v_proj", "fc1"])
def test_a_merged_adapter_of_the_text_tower_is_told(tmp_path, caplog, kind):
    """Of as many layers as CLIP's, of which only one kind of matrix, in the last layer, is another one."""
    tokens = len(save_processors(tmp_path / "base"))
    text = dict(VISION, num_hidden_layers=12, vocab_size=tokens, max_position_embeddings=64, eos_token_id=1)
    del text["image_size"], text["patch_size"]
    model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=text))
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for name, parameter in model.text_model.named_parameters():
            if name.endswith(f"{kind}.weight") and ".11." in name:
                parameter.mul_(1.5)
    model.save_pretrained(tmp_path / "expert")
    with caplog.at_level("WARNING"):
        ModelPool.from_pretrained(tmp_path / "base", {"shade": tmp_path / "expert"}).weights("shade")
    assert f"{kind}.weight' differs from the base's, which is used for all experts" in caplog.text


@pytest.mark.parametrize("more", ["vocab_size", "max_position_embeddings"])
def test_a_text_tower_of_another_shape_is_told(clip_paths, tmp_path, caplog, more):
    config = CLIPConfig.from_pretrained(clip_paths["base"])
    setattr(config.text_config, more, getattr(config.text_config, more) + 3)
    CLIPModel.from_pretrained(clip_paths["base"], config=config, ignore_mismatched_sizes=True).save_pretrained(
        tmp_path / "expert"
    )
    with caplog.at_level("WARNING"):
        ModelPool.from_pretrained(clip_paths["base"], {"shade": tmp_path / "expert"}).weights("shade")
    assert "_embedding.weight' differs from the base's" in caplog.text


def changed_config(source, folder, **changes):
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization_config": {"load_in_8bit": True, "quant_method": "bitsandbytes"}}, "quantized"),
        ({"attn_implementation": "flash_attention_2"}, "asks for attn_implementation 'flash_attention_2'.* in a copy"),
        ({"_attn_implementation": {"": "owner/kernel"}}, "asks for _attn_implementation 'owner/kernel'"),
        ({"attn_implementation": ["eager"]}, "which cannot be trained with everywhere; take that line out"),
        ({"attn_implementation": "flex_attention"}, "asks for attn_implementation 'flex_attention'"),
    ],
)
def test_configs_that_need_further_packages_are_refused(vit_paths, tmp_path, changes, said):
    folder = changed_config(vit_paths["shade"], tmp_path / "expert", **changes)
    with pytest.raises(InputError, match=f"expert: .*{said}"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})
    with pytest.raises(InputError, match=said):
        ModelPool.from_pretrained(changed_config(vit_paths["base"], tmp_path / "base", **changes), {"shade": folder})


@pytest.mark.parametrize("kind", ["sdpa", {"": "eager", "vision_config": "sdpa"}])
def test_attention_that_needs_no_further_package_is_taken(vit_paths, tmp_path, kind):
    folder = changed_config(vit_paths["shade"], tmp_path / "expert", attn_implementation=kind)
    assert ModelPool.from_pretrained(vit_paths["base"], {"shade": folder}).tower("shade")


def test_a_size_of_two_equal_sides_is_that_of_one_number(vit_paths, tmp_path):
    size = json.loads((vit_paths["base"] / "config.json").read_text())["image_size"]
    folder = changed_config(vit_paths["shade"], tmp_path / "expert", image_size=[size, size])
    assert ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})
    folder = changed_config(vit_paths["shade"], tmp_path / "other", image_size=[size, 2 * size])
    with pytest.raises(InputError, match="image_size"):
        ModelPool.from_pretrained(vit_paths["base"], {"shade": folder})


def test_models_of_gray_images_are_refused(vit_paths, tmp_path):
    config = ViTConfig.from_pretrained(vit_paths["base"], num_channels=1)
    ViTForImageClassification(config).save_pretrained(tmp_path / "gray")
    shutil.copy(vit_paths["base"] / "preprocessor_config.json", tmp_path / "gray")
    with pytest.raises(InputError, match="gray: reads images of 1 channels"):
        ModelPool.from_pretrained(tmp_path / "gray", {"shade": vit_paths["shade"]})


def processor_with(source, folder, **changes):
    shutil.copytree(source, folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_one_mean_is_that_of_all_channels(vit_paths, tmp_path):
    one = Preprocessor(processor_with(vit_paths["base"], tmp_path / "one", image_mean=0.4, image_std=0.3), "one")
    many = Preprocessor(
        processor_with(vit_paths["base"], tmp_path / "many", image_mean=[0.4] * 3, image_std=[0.3] * 3), "many"
    )
    pixels = torch.randint(0, 256, (2, *one.shape), dtype=torch.uint8)
    assert torch.equal(one.normalize(pixels), many.normalize(pixels))


def test_a_processor_config_without_an_image_processor_is_none(clip_paths, tmp_path):
    folder = shutil.copytree(clip_paths["shade"], tmp_path / "expert")
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert not has_processor(folder)
    assert max(parity(ModelPool.from_pretrained(clip_paths["base"], {"shade": folder})).values()) < 1e-4
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {}}))
    assert has_processor(folder)


def test_why_an_image_processor_cannot_be_read(vit_paths, tmp_path, monkeypatch):
    def lacking(*_, **__):
        raise ImportError("OddProcessor requires the Torchvision library")

    folder = shutil.copytree(vit_paths["base"], tmp_path / "base")
    monkeypatch.setattr("hf_mdft.tasks.preprocessor.AutoImageProcessor.from_pretrained", lacking)
    with pytest.raises(InputError, match="base: its image processor: OddProcessor requires the Torchvision library"):
        Preprocessor(folder, "base")


SAME_TEXTS = (
    "the classes '{}' and '{}' are the same tokens to this model's tokenizer .unknown, or cut off.; give other"
)


@pytest.mark.parametrize(
    "kind", [(CLIPConfig, CLIPModel, CLIPVisionModel), (SiglipConfig, SiglipModel, SiglipVisionModel)]
)
def test_classes_of_the_same_tokens_are_refused(tmp_path, kind):
    pool = pool_of(save_clip_pool(tmp_path, kind))
    long = "a photo of " * 100
    with pytest.raises(InputError, match=SAME_TEXTS.format("a photo .*", "a photo .*")):
        build_head("pets", Task(None, class_names=[long + "cats", long + "dogs"]), pool)
    with pytest.raises(InputError, match=SAME_TEXTS.format("猫", "犬")):
        build_head("pets", Task(None, class_names=["a", "猫", "犬"]), pool)
    one_tells = Task(None, class_names=["cats", "dogs"], templates=["a {}", long + "{}"])
    assert build_head("pets", one_tells, pool).num_classes == 2
