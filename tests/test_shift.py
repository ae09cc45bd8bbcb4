"""Shifts, images under them, and the study of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from conftest import TASKS, call, edited, write_recipe
from PIL import Image

from hf_mdft import InputError
from hf_mdft.core.seeds import mixed_seed
from hf_mdft.evaluation import accuracy, predict
from hf_mdft.recipes.schema import Recipe
from hf_mdft.shifts import SEVERITIES, SHIFTS, Target
from hf_mdft.shifts.blur import _disk, _filtered, _gaussian, _line
from hf_mdft.studies.shift.long_tail import long_tailed


def pictures(side: int, count: int = 6) -> torch.Tensor:
    """Bytes `(count, 3, side, side)`: colored clouds, and a thing with edges."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        clouds = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        found.append(picture := clouds.resize((side, side), Image.Resampling.BICUBIC))
        picture.paste((230, 60, 20), (side // 5, side // 6, side // 2, side // 2))
    return torch.stack([torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) for picture in found])


# Shifts


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", SHIFTS.names())
def test_shift(name, side):
    shift, pixels = SHIFTS.get(name)(), pictures(side)
    before, distances = pixels.clone(), []
    assert len(shift.constants) == 5 and shift.unit and shift.__doc__
    for severity in SEVERITIES:
        found = shift(pixels, severity, range(6), seed=3)
        assert found.dtype == torch.uint8 and found.shape == pixels.shape
        assert torch.equal(found, shift(pixels, severity, range(6), seed=3)), "not deterministic"
        # Each picture is changed alike in any batch.
        chosen = [4, 1]
        assert torch.equal(shift(pixels[chosen], severity, chosen, seed=3), found[chosen])
        distances.append((found.float() - pixels.float()).abs().mean().item())
    assert torch.equal(pixels, before), "the input was changed"
    assert distances[0] == 0 and distances[1] > 0.5
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances
    with pytest.raises(InputError, match="severity must be 0 to 5, got 6"):
        shift(pixels, 6, range(6))


@pytest.mark.parametrize("name", SHIFTS.names())
def test_shifts_of_small_and_large_pictures_are_alike(name):
    small, large = (pictures(side, 3) for side in (32, 128))
    shift = SHIFTS.get(name)()
    a, b = ((shift(x, 4, range(3)).float() - x.float()).abs().mean().item() for x in (small, large))
    assert 0.5 < a / b < (3.5 if name == "jpeg" else 2), (a, b)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog"])
def test_random_numbers_belong_to_an_image_and_a_seed(name):
    shift, pixels = SHIFTS.get(name)(), pictures(32, 1).expand(3, -1, -1, -1)
    found = shift(pixels, 3, [0, 1, 0])
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], shift(pixels[:1], 3, [0], seed=1)[0])


def test_shifts_equal_their_definitions():
    grey = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)

    def shifted(name, severity, pixels=grey):
        return SHIFTS.get(name)()(pixels, severity, [5]).float()

    assert abs(shifted("gaussian_noise", 3).std().item() / 255 - 0.12) < 0.004
    # Poisson: variance of the light is light / photons.
    assert abs(shifted("shot_noise", 2).std().item() / 255 - math.sqrt(128 / 255 / 25)) < 0.004
    changed = (shifted("impulse_noise", 5) != 128).float().mean().item()
    assert abs(changed - 0.27) < 0.02 and set(shifted("impulse_noise", 5).unique().tolist()) == {0, 128, 255}
    assert shifted("dark", 2).unique().tolist() == [70] and shifted("bright", 2).unique().tolist() == [179]
    assert shifted("color_cast", 4)[0, :, 0, 0].tolist() == [128, 96, 64]
    pixels = pictures(32, 1)
    low, mean = shifted("contrast", 2, pixels), pixels.float().mean()
    assert (low - mean - 0.5 * (pixels.float() - mean)).abs().max() < 0.51
    for name in ("gaussian_blur", "motion_blur", "defocus", "scale_down", "pixelate"):
        assert shifted(name, 5).unique().tolist() == [128], f"{name} changes an empty picture"
    squares = shifted("pixelate", 5, pictures(64, 1)).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    assert (squares == squares[..., :1]).all()
    small = shifted("scale_down", 5, pictures(64, 1))
    assert (small[..., :16, 16:48] == small[..., 16:17, 16:48]).all(), "the border is repeated"
    whole = Image.fromarray(pictures(64, 1)[0].permute(1, 2, 0).numpy())
    half = np.asarray(whole.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(small[0, :, 16:48, 16:48].permute(1, 2, 0).numpy(), half)


@pytest.mark.parametrize("kernel", [_gaussian(0.7), _disk(2.3), _line(5.0, 0.6)])
def test_filtering_is_convolution(kernel):
    picture = np.random.default_rng(0).random((3, 12, 9))
    reach = len(kernel) // 2
    padded = np.pad(picture, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    expected = np.zeros_like(picture)
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            expected += kernel[i, j] / kernel.sum() * padded[:, i : i + 12, j : j + 9]
    np.testing.assert_allclose(_filtered(picture, kernel), expected, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)


# Images and targets


@pytest.fixture
def images(merger):
    return merger.unlabelled("shade")


def test_shifted_images_are_images(images):
    plain = images.pixels(range(len(images)))
    found = Target.parse("gaussian_noise").learned(images, 3, seed=0)
    expected = SHIFTS.get("gaussian_noise")()(plain, 3, range(len(images)), mixed_seed(0, int(images.key[:12], 16)))
    assert len(found) == len(images) and torch.equal(found.pixels(range(len(images))), expected)
    assert torch.equal(found.pixels(torch.tensor([7, 2])), expected[[7, 2]])
    assert torch.equal(torch.cat(list(found.batches(5))), images.preprocessor.normalize(expected))
    other = Target.parse("gaussian_noise").learned(images.subset(range(len(images))[::-1]), 3, seed=0)
    noise, others = (
        part.pixels([n]).float() - plain[[m]] for part, n, m in ((found, 2, 2), (other, 2, len(images) - 3))
    )
    correlation = torch.corrcoef(torch.stack([noise.flatten(), others.flatten()]))[0, 1]
    assert abs(correlation) < 0.2, "two sets have different noise at the same place"
    few = found.subset([9, 3]).subset([1])
    assert torch.equal(few.pixels([0]), expected[[3]]), "the noise is the image's own"
    assert torch.equal(images.pixels(range(len(images))), plain)
    others = [
        images,
        found,
        few,
        found.sample(5, 0),
        Target.parse("gaussian_noise").learned(images, 3, seed=1),
        Target.parse("gaussian_noise").learned(images, 4, seed=0),
        Target.parse("shot_noise").learned(images, 3, seed=0),
        Target.parse("half:gaussian_noise").learned(images, 3, seed=0),
    ]
    assert len({other.key for other in others}) == len(others), "two would share a cache"
    assert found.key == Target.parse("gaussian_noise").learned(images, 3, seed=0).key
    for as_is in (Target.parse("jpeg").learned(images, 0, 0), Target.parse("as-is").learned(images, 3, 0)):
        assert as_is is images


def test_targets_mix(images):
    plain = images.pixels(range(len(images)))

    def distances(found):
        return (found.pixels(range(len(images))).float() - plain.float()).abs().mean(dim=(1, 2, 3))

    half = Target.parse("half:bright")
    assert (distances(half.learned(images, 3, 0)) == 0).sum() == len(images) // 2
    assert (distances(half.tested(images, 3, 0)) > 0).all(), "all test images are shifted"
    drawn = distances(Target.parse("bright+dark").learned(images, 5, 0))
    bright, dark = (distances(Target.parse(name).learned(images, 5, 0)) for name in ("bright", "dark"))
    assert set((drawn == bright).tolist()) == {True, False} and ((drawn == bright) | (drawn == dark)).all()
    same = Target.parse("any")
    assert same.learned(images, 2, 0).key == same.tested(images, 2, 0).key, "images that are adapted on are tested on"
    assert set(same.shifts) == set(SHIFTS.names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian_noise", "unknown shift 'gausian_noise': did you mean 'gaussian_noise'"),
        ("jpeg+blurr", "unknown shift 'blurr'"),
        ("half:as-is", "'as-is' stands alone"),
        ("any+jpeg", "'any' stands alone"),
        ("", "unknown shift ''"),
    ],
)
def test_wrong_targets_are_named(text, message):
    with pytest.raises(InputError, match=message):
        Target.parse(text)


# Long tails


@pytest.mark.parametrize(("ratio", "expected"), [(10, [100, 46, 22, 10]), (50, [100, 27, 7, 2]), (1, [100] * 4)])
def test_long_tail_counts(ratio, expected):
    labels = torch.arange(400) % 4
    rows = long_tailed(labels, ratio, seed=0)
    sizes = labels[rows].bincount(minlength=4)
    assert sorted(sizes.tolist(), reverse=True) == expected
    assert len(set(rows.tolist())) == len(rows) and rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() == long_tailed(labels, ratio, seed=0).tolist()
    if ratio > 1:
        others = [labels[long_tailed(labels, ratio, seed)].bincount().argmax().item() for seed in range(8)]
        assert len(set(others)) > 1, "the order of the classes does not depend on the seed"


def test_long_tail_of_unequal_and_missing_classes():
    labels = torch.tensor([0] * 300 + [2] * 40 + [3] * 100)
    for seed in range(5):
        sizes = sorted(labels[long_tailed(labels, 4, seed)].unique(return_counts=True)[1].tolist(), reverse=True)
        assert sizes[0] == pytest.approx(4 * sizes[2], abs=2) and sizes[1] == pytest.approx(2 * sizes[2], abs=1)
    assert len(long_tailed(torch.arange(3), 50, 0)) == 3, "every class keeps an image"


# The study


QUICK = {"meta": {"max_steps": 2, "images_per_task": 4, "head_steps": 3, "use_cpu": True}}
MODELS = {
    "expert", "expert_views", "born_again", "stata", "meta", "specialist_ungated", "specialist", "specialist_views",
}  # fmt: skip


@pytest.fixture
def seen(monkeypatch):
    """What phase 1 and phase 2 were given to learn from, by call."""
    from hf_mdft import merger
    from hf_mdft.meta import MdftTrainer

    calls, init, specialize = {"meta": [], "specialist": []}, MdftTrainer.__init__, merger.specialize_in_rounds

    def trained(self, *args, **kwargs):
        calls["meta"].append(kwargs["train_dataset"])
        init(self, *args, **kwargs)

    def specialized(data, meta, args, tasks, **kwargs):
        calls["specialist"].append({task: data.unlabelled(task) for task in tasks})
        return specialize(data, meta, args, tasks, **kwargs)

    monkeypatch.setattr(MdftTrainer, "__init__", trained)
    monkeypatch.setattr(merger, "specialize_in_rounds", specialized)
    return calls


@pytest.mark.slow
def test_study_goes_on_and_measures_both_sets(clip_paths, tmp_path, monkeypatch, capsys, seen):
    from hf_mdft.studies.shift.models import Models

    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    command = ["study", "shift", recipe, "--shift", "dark", "--severity", 0, "--severity", 3, "--task", "shade"]
    command += ["--baseline", "born_again", "--baseline", "stata", "--output-dir", tmp_path / "out"]
    measure = Models.measure

    def cut_off(self, kind, tests):
        if kind == "specialist" and "shifted" in tests:
            raise InputError("cut off")
        return measure(self, kind, tests)

    monkeypatch.setattr(Models, "measure", cut_off)
    code, _, err = call(command, monkeypatch, capsys)
    assert code == 2 and "cut off" in err
    before = {kind: len(calls) for kind, calls in seen.items()}
    assert before == {"meta": 2, "specialist": 3}
    monkeypatch.setattr(Models, "measure", measure)
    code, out, _ = call(command, monkeypatch, capsys)
    assert code == 0
    assert len(seen["specialist"]) == 4, "something was made again"
    assert len(seen["meta"]) <= 3, "only the unfinished condition's meta-model goes on from its checkpoint"

    # What was learned from: the recipe's images at 0, shifted ones at 3; all tasks in phase 1, one in phase 2.
    whole = Recipe.load(recipe).merger()
    dark = Target.parse("dark")
    for at, severity in ((0, 0), (-1, 3)):
        assert {t: i.key for t, i in seen["meta"][at].items()} == {
            task: dark.learned(whole.unlabelled(task), severity, 0).key for task in TASKS
        }
        assert {t: i.key for t, i in seen["specialist"][at].items()} == {
            "shade": dark.learned(whole.unlabelled("shade"), severity, 0).key
        }

    assert not list((tmp_path / "out").rglob("candidate")), "models stay though they were measured"
    facts = json.loads((tmp_path / "out" / "shift.json").read_text(encoding="utf-8"))
    assert facts["tasks"] == ["shade"] and facts["long_tail"] is None
    as_is, shifted = facts["conditions"]
    assert (as_is["shift"], as_is["severity"], shifted["shift"], shifted["severity"]) == ("as-is", 0, "dark", 3)
    assert as_is["shifted"] == as_is["clean"] and set(shifted["shifted"]) == MODELS
    data, tower, head = whole.labelled("shade"), whole.pool.tower("shade"), whole.head("shade")
    for images, row in ((data.images, shifted["clean"]), (dark.tested(data.images, 3, 0), shifted["shifted"])):
        plain = accuracy(predict(tower, whole.pool.architecture, head, images), data.labels)
        assert row["expert"]["by_task"]["shade"] == pytest.approx(plain) and row["expert"]["difference"] == 0
        assert row["specialist"]["difference"] == pytest.approx(
            row["specialist"]["average"] - row["expert"]["average"], abs=1e-6
        )
    for condition in facts["conditions"]:
        best = max(("born_again", "stata"), key=lambda name: condition["shifted"][name]["average"])
        assert [lead["over"] for lead in condition["leads"]] == ["expert", "expert_views", best]
        for lead, images in ((condition["leads"][1], "shifted"), (condition["clean_leads"][1], "clean")):
            rows = condition[images]
            expected = rows["specialist"]["average"] - rows["expert_views"]["average"]
            assert lead["difference"] == pytest.approx(expected, abs=1e-6) == pytest.approx(lead["by_task"]["shade"])
        assert set(condition["gate"]) == {"shade"}
        for name, value in condition["balanced"].items():
            assert value == pytest.approx(condition["shifted"][name]["average"], abs=1e-6), "classes are balanced here"
    assert "dark, severity 3" in out and "born_again" in out and (tmp_path / "out" / "shift.png").stat().st_size > 9999

    monkeypatch.setattr("hf_mdft.merger.MetaMerger.fit", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(Models, "measure", lambda *_: pytest.fail("measured again"))
    assert call(command, monkeypatch, capsys)[1] == out


def test_training_free_baselines_see_the_same_images(clip_paths, tmp_path, monkeypatch):
    from hf_mdft.evaluation import TRANSDUCTIVE
    from hf_mdft.studies.shift.models import Models

    def reverse(probabilities, features):
        assert len(probabilities) == len(features)
        return probabilities.flip(-1)

    monkeypatch.setattr(TRANSDUCTIVE, "_parts", {**TRANSDUCTIVE._parts, "reverse": reverse})
    recipe = Recipe.load(write_recipe(tmp_path, clip_paths, **QUICK))
    whole = recipe.merger()
    tests = {"clean": {"shade": whole.labelled("shade")}}
    models = Models(whole, recipe, {}, tmp_path / "work")
    found = models.measure("reverse", tests)["found"]["reverse"]["clean"]["shade"]
    data, head = tests["clean"]["shade"], whole.head("shade")
    classes = predict(whole.pool.tower("shade"), whole.pool.architecture, head, data.images)
    wanted = len(head.class_names) - 1 - classes == data.labels
    assert found == "".join("1" if hit else "0" for hit in wanted.tolist())


def test_experts_over_views_are_the_geometric_mean(clip_paths, tmp_path):
    from hf_mdft.embedding import embed_images
    from hf_mdft.embedding.views import TEST_VIEWS, translate
    from hf_mdft.studies.shift.models import Models

    recipe = Recipe.load(write_recipe(tmp_path, clip_paths))
    whole = recipe.merger()
    data = whole.labelled("colour")
    found = Models(whole, recipe, {}, tmp_path).measure("expert", {"clean": {"colour": data}})["found"]
    tower, head = whole.pool.tower("colour"), whole.head("colour")
    mean = 1.0
    for offset in TEST_VIEWS:
        seen = embed_images(tower, whole.pool.architecture, data.images, view=lambda x, o=offset: translate(x, o))
        mean = mean * head(seen).softmax(dim=-1) ** (1 / 9)
    expected = "".join(str(int(hit)) for hit in mean.argmax(dim=-1) == data.labels)
    assert len(TEST_VIEWS) == 9 and found["expert_views"]["clean"]["colour"] == expected


def test_long_tail_reaches_training_without_labels(clip_paths, tmp_path, monkeypatch, capsys, seen):
    recipe = write_recipe(tmp_path, clip_paths, **QUICK)
    command = ["study", "shift", recipe, "--shift", "as-is", "--task", "stripes", "--long-tail"]
    code, out, err = call([*command, 3, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0 and "stripes: 16 of 24 unlabelled images, classes of 12 to 4" in err
    assert "average over classes" in out and not (tmp_path / "out" / "shift.png").exists()
    facts = json.loads((tmp_path / "out" / "shift.json").read_text(encoding="utf-8"))
    assert facts["long_tail"]["stripes"] == [12, 4] and len(facts["conditions"]) == 1
    whole = Recipe.load(recipe).merger()
    for images in (seen["meta"][0]["stripes"], seen["specialist"][0]["stripes"]):
        rows = long_tailed(torch.arange(24) % 2, 3, 0)
        assert images.key == whole.unlabelled("stripes").subset(rows).key
        assert images._table.column_names == ["pixels", "shape", "problem"], "labels reached the training"

    def without_labels(content):
        content["tasks"]["shade"]["label_column"] = "class"

    edited(recipe, without_labels)
    code, _, err = call([*command, 3], monkeypatch, capsys)
    assert code == 2 and "task 'shade', " in err and "no column 'class' (label_column)" in err
    code, _, err = call([*command, "0.5"], monkeypatch, capsys)
    assert code == 2 and "long tail 0.5" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shift", "jpg"], "did you mean 'jpeg'"),
        (["--severity", "6"], "severity 6: known are 0"),
        (["--baseline", "born_agan"], "did you mean 'born_again'"),
        (["--baseline", "expert"], "every comparison has a model of that name"),
        (["--task", "shades"], "did you mean 'shade'"),
    ],
)
def test_bad_options_are_refused_before_training(options, message, clip_paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hf_mdft.merger.MetaMerger.fit", lambda *_: pytest.fail("trained"))
    code, _, err = call(["study", "shift", write_recipe(tmp_path, clip_paths), *options], monkeypatch, capsys)
    assert code == 2 and message in err and err.count("\n") == 1


def test_the_list_names_every_shift(monkeypatch, capsys):
    code, out, _ = call(["study", "shift", "--list"], monkeypatch, capsys)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [s.name for s in SHIFTS.parts()]


def test_figure_has_a_panel_per_shift_and_a_line_per_model():
    from hf_mdft.studies.ablation import Row
    from hf_mdft.studies.shift import ShiftStudy, shift_figure
    from hf_mdft.studies.shift.result import Condition

    def condition(shift, severity):
        rows = {name: Row(name, 0.5 - severity / 20, {}) for name in MODELS}
        return Condition(shift, severity, rows, rows, {}, [], [], {})

    conditions = [condition(*which) for which in (("as-is", 0), ("dark", 1), ("dark", 5), ("jpeg", 5))]
    figure = shift_figure(ShiftStudy(["x"], ["born_again", "stata"], None, conditions))
    assert [axes.get_title() for axes in figure.axes] == ["dark", "jpeg", "", ""]
    for axes, severities in zip(figure.axes, ([0, 1, 5], [0, 5]) * 2, strict=True):
        assert len(axes.lines) == len(MODELS) - 1
        assert all(line.get_xdata().tolist() == severities for line in axes.lines)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [50, 45, 25]
    assert shift_figure(ShiftStudy(["x"], [], None, conditions[:1])) is None
