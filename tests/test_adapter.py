"""The adapter against ten lines of plain tensors, and every verb of PEFT."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import sys

import pytest
import torch
from conftest import both_architectures
from peft import AutoPeftModel, PeftConfig, PeftModel, PeftType, get_peft_model
from transformers import AutoModel, CLIPModel, CLIPVisionModel

from hf_mdft import InputError, MdftConfig, MdftLayer
from hf_mdft.adapter import combined_once
from hf_mdft.adapter.combine import BLOCK, combine
from hf_mdft.adapter.grouped import kernels_run
from hf_mdft.adapter.registration import register


GRANULARITIES = ["task", "layer", "tensor"]


@pytest.fixture
def unrounded(monkeypatch):
    """Sums as on processors without the fused kernel: with fp32's precision to the end."""
    monkeypatch.setattr("hf_mdft.adapter.combine._is_fused", lambda vectors: False)


def reference(pool, coefficients):
    """The whole method in plain tensors: base + sum of coefficient * (expert - base), tensor by tensor, with task
    vectors rounded to half precision as they are stored."""
    tower = pool.tower()
    state = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    base = {name: tensor.clone() for name, tensor in state.items()}
    for number, task in enumerate(pool.experts):
        expert = pool.tower(task).state_dict()
        for name in state:
            state[name] += coefficients[name][number] * (expert[name] - base[name]).half().float()
    tower.load_state_dict(state)
    return tower


def adapted(pool, **options):
    return get_peft_model(pool.tower(), MdftConfig(pool=pool, **options))


def randomise(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def output(model, pixels):
    outputs = model(pixel_values=pixels)
    return outputs.last_hidden_state if outputs.pooler_output is None else outputs.pooler_output


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "fused"),
    [
        (torch.float32, False),
        (torch.float16, False),
        (torch.float16, True),
        (torch.bfloat16, False),
        (torch.bfloat16, True),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3, 2), (BLOCK // 3,), (BLOCK + 5,), (3, BLOCK // 2 + 1)])
def test_combine_equals_the_formula(dtype, fused, shape, monkeypatch):
    """Values and gradients, fused, in blocks or not; the graph holds no copy of the stack."""
    monkeypatch.setattr("hf_mdft.adapter.combine._is_fused", lambda vectors: fused)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, *shape, generator=generator).to(dtype)
    start, weight = (torch.randn(shape, generator=generator) for _ in range(2))
    coefficients = torch.randn(3, generator=generator)
    expected_lambda, found_lambda = (coefficients.clone().requires_grad_() for _ in range(2))
    expected_start, found_start = (start.clone().requires_grad_() for _ in range(2))
    delta = torch.einsum("k,k...->...", expected_lambda, vectors.float())
    expected = expected_start + delta
    (expected * weight).sum().backward()
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.autocast("cpu", torch.bfloat16),
    ):
        found = combine(found_start, vectors, found_lambda)
    assert not kept
    (found * weight).sum().backward()
    # The sum is rounded to the vectors' dtype, the coefficients to twice its precision.
    rounding = torch.finfo(dtype).eps / 2 if fused else 0
    summands = torch.einsum("k,k...->...", coefficients.abs(), vectors.float().abs())
    assert ((found - expected).abs() <= rounding * delta.abs() + (rounding**2 + 1e-6) * summands + 1e-6).all()
    close(found_lambda.grad, expected_lambda.grad, 1e-5 * max(start.numel(), 1) ** 0.5)
    assert torch.equal(found_start.grad, weight) and found.dtype == torch.float32


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("granularity", GRANULARITIES)
@both_architectures
def test_any_coefficients_equal_the_reference(pool, pixels, granularity):
    model = randomise(adapted(pool, granularity=granularity))
    coefficients = model.base_model.coefficients()
    assert set(coefficients) == {name for name, _ in pool.tower().named_parameters()}
    close(output(model, pixels), output(reference(pool, coefficients), pixels))


@both_architectures
def test_zero_gives_the_base_exactly(pool, pixels):
    model = adapted(pool, init_coefficient=0.0)
    assert torch.equal(output(model, pixels), output(pool.tower(), pixels))


@both_architectures
def test_one_hot_gives_the_expert(pool, pixels):
    """Up to the rounding of half precision: 2^-11 of the task vector, in weights, and what comes of it in outputs."""
    base = dict(pool.tower().named_parameters())
    model = adapted(pool, granularity="task", init_coefficient=0.0)
    (row,) = [p for p in model.parameters() if p.requires_grad]
    for number, task in enumerate(pool.experts):
        row.data.zero_()[0, number] = 1.0
        close(output(model, pixels), output(pool.tower(task), pixels), 1e-3)
        merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())
        for name, expert in pool.tower(task).named_parameters():
            allowed = 1.01 * 2**-11 * (expert - base[name]).abs() + 1e-7
            assert ((merged[name] - expert).abs() <= allowed).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@both_architectures
def test_a_model_that_is_not_the_base_is_refused(pool, dtype):
    """The same size is not the same model; the base itself is taken in any precision."""
    config = MdftConfig(pool=pool.reference())
    get_peft_model(pool.tower().to(dtype), config)
    other = pool.tower(next(iter(pool.experts))).to(dtype)
    with pytest.raises(InputError, match="is not that of the pool's base .*the same size is not the same model"):
        get_peft_model(other, config)
    allowed = get_peft_model(other, MdftConfig(pool=pool.reference(), allow_base_mismatch=True))
    assert copy.deepcopy(allowed) is not None
    with pytest.raises(InputError, match="the same size is not the same model"):
        allowed.add_adapter("second", MdftConfig(pool=pool.reference()))
    broken = pool.tower()
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(InputError, match="the same size is not the same model"):
        get_peft_model(broken, config)


def test_a_saved_adapter_is_not_loaded_on_another_model(clip_pool, tmp_path):
    adapted(clip_pool).save_pretrained(tmp_path)
    torch.manual_seed(5)
    other = CLIPVisionModel(clip_pool.tower().config)
    with pytest.raises(InputError, match="load the adapter on that base"):
        PeftModel.from_pretrained(other, tmp_path)


@pytest.mark.usefixtures("unrounded")
@both_architectures
def test_default_start_is_the_weight_average(pool, pixels):
    average = {name: torch.full((3,), 1 / 3) for name, _ in pool.tower().named_parameters()}
    close(output(adapted(pool), pixels), output(reference(pool, average), pixels))


@pytest.mark.parametrize(("granularity", "count"), [("task", 3), ("layer", 3 * 4), ("tensor", None)])
@both_architectures
def test_number_of_coefficients(pool, granularity, count):
    model = adapted(pool, granularity=granularity)
    tensors = len(list(pool.tower().parameters()))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == (count or 3 * tensors)


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gradient_equals_that_of_the_formula(clip_pool, pixels, granularity):
    model = randomise(adapted(clip_pool, granularity=granularity))
    output(model, pixels).square().sum().backward()
    learned = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert learned and all(".mdft_lambda." in name for name in learned)
    # By finite differences of one coefficient.
    name, parameter = next((n, p) for n, p in model.named_parameters() if n in learned)
    with torch.no_grad():
        values = []
        for step in (1e-3, -1e-3):
            parameter[0, 1] += step
            values.append(output(model.double(), pixels.double()).square().sum().item())
            parameter[0, 1] -= step
    expected = (values[0] - values[1]) / 2e-3
    assert learned[name][0, 1].item() == pytest.approx(expected, rel=2e-2, abs=1e-2)


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("way", ["plain", pytest.param("compiled", marks=pytest.mark.slow), "reentrant"])
def test_compiled_checkpointed_or_combined_once_it_is_the_same(clip_pool, pixels, way, once):
    """`torch.compile` in one graph, reentrant activation checkpointing, one combine for several passes: same outputs,
    same gradients."""
    plain, other = (randomise(adapted(clip_pool)) for _ in range(2))
    expected = output(plain, pixels)
    expected.square().sum().backward()
    run = other
    if way == "compiled":
        torch._dynamo.reset()
        run = torch.compile(other, backend="aot_eager", fullgraph=True)
    elif way == "reentrant":
        other.base_model.model.train()
        other.base_model.model.gradient_checkpointing_enable({"use_reentrant": True})
        pixels = pixels.clone().requires_grad_()  # it wants an input that carries a gradient
    found = []
    with combined_once(other) if once else contextlib.nullcontext():
        for part in pixels.chunk(2):
            found.append(output(run, part))
            found[-1].square().sum().backward()
    close(torch.cat(found), expected)
    grads = dict(plain.named_parameters())
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            close(parameter.grad, grads[name].grad, 1e-4)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_combined_once_adds_to_the_gradient_and_lets_go(clip_pool, pixels, granularity):
    model = randomise(adapted(clip_pool, granularity=granularity))
    parameters = [p for p in model.parameters() if p.requires_grad]
    output(model, pixels).sum().backward()
    once = [p.grad.clone() for p in parameters]
    with combined_once(model):
        output(model, pixels).sum().backward()
    for p, grad in zip(parameters, once, strict=True):
        close(p.grad, 2 * grad, 1e-4)
    with pytest.raises(RuntimeError, match="from within"), combined_once(model):
        output(model, pixels).sum().backward()
        raise RuntimeError("from within")
    for p, grad in zip(parameters, once, strict=True):
        close(p.grad, 2 * grad, 1e-4)
        p.data.zero_()
    close(output(model, pixels), output(clip_pool.tower(), pixels))
    with model.disable_adapter(), combined_once(model):
        assert all(layer.held is None for layer in model.modules() if isinstance(layer, MdftLayer))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@both_architectures
def test_save_and_load(pool, pixels, granularity, low_cpu_mem_usage, tmp_path):
    model = randomise(adapted(pool, granularity=granularity))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 20_000
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "MDFT"
    assert config["pool"] == pool.reference()
    assert all(source["revision"].startswith("sha256:") for source in config["pool"]["experts"].values())
    loaded = PeftModel.from_pretrained(pool.tower(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(output(loaded, pixels), output(model, pixels))
    assert not any(p.requires_grad for p in loaded.parameters())
    trainable = PeftModel.from_pretrained(pool.tower(), tmp_path, is_trainable=True)
    assert [n for n, p in trainable.named_parameters() if p.requires_grad]


def test_auto_and_native_loading(clip_pool, pixels, tmp_path):
    model = randomise(adapted(clip_pool, granularity="layer"))
    model.save_pretrained(tmp_path)
    expected = output(model, pixels)
    assert torch.equal(output(AutoPeftModel.from_pretrained(tmp_path), pixels), expected)
    native = clip_pool.tower()
    native.load_adapter(str(tmp_path))
    assert torch.equal(output(native, pixels), expected)
    assert isinstance(PeftConfig.from_pretrained(tmp_path), MdftConfig)
    # The base folder holds a whole CLIPModel, whose module names differ: refused rather than loaded without effect.
    with pytest.raises(InputError, match="saved for a CLIPVisionModel by itself"):
        AutoModel.from_pretrained(tmp_path)


def test_native_add_and_delete(clip_pool, pixels):
    model = clip_pool.tower()
    before = output(model, pixels)
    model.add_adapter(MdftConfig(pool=clip_pool, granularity="task"), adapter_name="meta")
    close(output(model, pixels), output(adapted(clip_pool), pixels))
    model.disable_adapters()
    assert torch.equal(output(model, pixels), before)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@both_architectures
def test_merge_unmerge_disable(pool, pixels, granularity):
    model = randomise(adapted(pool, granularity=granularity))
    expected, base = output(model, pixels), output(pool.tower(), pixels)
    with model.disable_adapter():
        assert torch.equal(output(model, pixels), base)
    model.merge_adapter()
    close(output(model, pixels), expected)
    model.unmerge_adapter()
    close(output(model, pixels), expected, 1e-4)
    with model.disable_adapter():
        close(output(model, pixels), base, 1e-4)


@pytest.mark.parametrize("safe_merge", [False, True])
@both_architectures
def test_merge_and_unload_gives_a_plain_model(pool, pixels, safe_merge, tmp_path):
    model = randomise(adapted(pool))
    expected = output(model, pixels)
    plain = model.merge_and_unload(safe_merge=safe_merge)
    assert type(plain) is type(pool.tower())
    assert not any("mdft" in name for name, _ in plain.named_parameters())
    close(output(plain, pixels), expected)
    plain.save_pretrained(tmp_path)
    options = {"add_pooling_layer": False} if pool.architecture.name == "vit" else {}
    close(output(type(plain).from_pretrained(tmp_path, **options).eval(), pixels), expected)


def test_safe_merge_refuses_and_changes_nothing(clip_pool, pixels):
    model = adapted(clip_pool)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad)[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        model.merge_adapter(safe_merge=True)
    with model.disable_adapter():
        assert torch.equal(output(model, pixels), output(clip_pool.tower(), pixels))


@both_architectures
def test_unload_gives_the_base_back(pool, pixels):
    model = randomise(adapted(pool))
    assert torch.equal(output(model.unload(), pixels), output(pool.tower(), pixels))


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("granularity", GRANULARITIES)
@both_architectures
def test_several_adapters(pool, pixels, granularity):
    model = randomise(adapted(pool, granularity=granularity), seed=1)
    first = output(model, pixels)
    model.add_adapter("second", MdftConfig(pool=pool, granularity=granularity, init_coefficient=0.2))
    assert torch.equal(output(model, pixels), first)
    model.set_adapter("second")
    constant = {name: torch.full((3,), 0.2) for name, _ in pool.tower().named_parameters()}
    close(output(model, pixels), output(reference(pool, constant), pixels))

    model.base_model.set_adapter(["default", "second"])
    both = {name: row + 0.2 for name, row in model.base_model.coefficients("default").items()}
    close(output(model, pixels), output(reference(pool, both), pixels))

    model.add_weighted_adapter(["default", "second"], [0.5, 2.0], "mixed")
    model.set_adapter("mixed")
    mixed = {name: 0.5 * row + 0.4 for name, row in model.base_model.coefficients("default").items()}
    close(output(model, pixels), output(reference(pool, mixed), pixels))
    status = model.get_model_status()
    assert status.active_adapters == ["mixed"] and status.available_adapters == ["default", "mixed", "second"]

    model.delete_adapter("mixed")
    model.delete_adapter("second")
    model.set_adapter("default")
    assert model.get_model_status().available_adapters == ["default"]
    close(output(model, pixels), first)


def test_weighted_adapter_refuses_what_it_cannot_do(clip_pool):
    model = adapted(clip_pool)
    model.add_adapter("coarse", MdftConfig(pool=clip_pool, granularity="task"))
    with pytest.raises(InputError, match="differ"):
        model.add_weighted_adapter(["default", "coarse"], [1.0, 1.0], "mixed")
    model = adapted(clip_pool, transform="trim")
    model.add_adapter("spelled out", MdftConfig(pool=clip_pool, transform={"name": "trim", "density": 0.2}))
    model.add_weighted_adapter(["default", "spelled out"], [1.0, 1.0], "sum")
    model.add_adapter("denser", MdftConfig(pool=clip_pool, transform={"name": "trim", "density": 0.4}))
    with pytest.raises(InputError, match="differ"):
        model.add_weighted_adapter(["default", "denser"], [1.0, 1.0], "mixed")
    with pytest.raises(InputError, match="no adapter 'other'"):
        model.add_weighted_adapter(["other"], [1.0], "mixed")


def test_inside_a_full_clip_model(clip_pool, clip_paths, pixels):
    full = CLIPModel.from_pretrained(clip_paths["base"])
    model = get_peft_model(full, MdftConfig(pool=clip_pool))
    vision = model.base_model.model.vision_model
    close(output(vision, pixels), output(adapted(clip_pool), pixels))
    assert not any(isinstance(module, MdftLayer) for module in full.text_model.modules())


@both_architectures
def test_gradient_checkpointing_changes_nothing(pool, pixels):
    grads = []
    for checkpointing in (False, True):
        model = randomise(adapted(pool)).train()
        if checkpointing:
            model.base_model.model.gradient_checkpointing_enable()
        output(model, pixels).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    close(*grads)


def test_half_precision_base(clip_pool, pixels):
    model = get_peft_model(clip_pool.tower().to(torch.bfloat16), MdftConfig(pool=clip_pool))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    result = output(model, pixels.to(torch.bfloat16))
    assert result.dtype == torch.bfloat16
    close(result.float(), output(adapted(clip_pool), pixels), 0.1)


@pytest.mark.usefixtures("unrounded")
def test_copies_share_task_vectors_and_not_coefficients(clip_pool, pixels):
    model = randomise(adapted(clip_pool, granularity="layer"))
    twin = copy.deepcopy(model)
    randomise(twin, seed=5)
    a, b = (next(m for m in x.modules() if isinstance(m, MdftLayer)).mdft_vectors["default"] for x in (model, twin))
    assert a.vectors is b.vectors
    assert not torch.equal(output(model, pixels), output(twin, pixels))
    close(output(twin, pixels), output(reference(clip_pool, twin.base_model.coefficients()), pixels))


def test_peft_type_is_a_true_member():
    register()
    assert PeftType("MDFT") is PeftType.MDFT
    assert PeftType.MDFT in list(PeftType) and PeftType.MDFT == "MDFT"
    assert pickle.loads(pickle.dumps(PeftType.MDFT)) is PeftType.MDFT


def test_wrong_base_is_named(clip_pool, vit_pool):
    with pytest.raises(InputError, match="holds no ViTModel"):
        get_peft_model(clip_pool.tower(), MdftConfig(pool=vit_pool))
    with pytest.raises(InputError, match="needs a pool"):
        get_peft_model(clip_pool.tower(), MdftConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "tensors"}, "did you mean 'tensor'"),
        ({"transform": "identiy"}, "did you mean 'identity'"),
        ({"transform": {"name": "trim", "densty": 0.2}}, "did you mean 'density'"),
    ],
)
def test_config_errors_suggest(clip_pool, options, message):
    with pytest.raises(InputError, match=message):
        MdftConfig(pool=clip_pool, **options)


def test_where_triton_does_not_run_layers_combine_their_own(monkeypatch, caplog):
    """Triton may be missing, lack a C compiler, or not know the device."""
    monkeypatch.setitem(sys.modules, "hf_mdft.adapter.kernels", None)
    monkeypatch.delattr("hf_mdft.adapter.kernels", raising=False)
    kernels_run.cache_clear()
    assert not kernels_run(torch.device("cpu"))
    assert "cpu: Triton's kernels do not run there" in caplog.text and "which is slower" in caplog.text
    kernels_run.cache_clear()


def test_the_tower_as_automodel_loads_it(vit_pool, pixels, tmp_path):
    """ViTModel has a pooler, which the pool's towers lack: a card's AutoPeftModel loads the adapter all the same."""
    model = randomise(adapted(vit_pool))
    model.save_pretrained(tmp_path)
    again = AutoPeftModel.from_pretrained(tmp_path)
    assert any("pooler" in name for name, _ in again.named_parameters())
    assert not any("pooler" in name for name, module in again.named_modules() if isinstance(module, MdftLayer))
    close(again(pixels).last_hidden_state, model(pixels).last_hidden_state)
