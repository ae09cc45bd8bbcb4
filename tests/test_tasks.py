"""Images: prepared once, equal to the processor's own output; labels dropped; bad data named."""

from __future__ import annotations

import json
import os
import shutil
import struct

import datasets
import numpy as np
import pytest
import torch
from conftest import TASKS, both_architectures, fit_arguments, make_dataset, specialize_arguments
from peft import get_peft_model
from PIL import Image, ImageOps

from hf_mdft import InputError, MdftConfig, MdftTrainer, MetaMerger, ModelPool, Task
from hf_mdft.embedding import embed_images
from hf_mdft.tasks import Images, Preprocessor, read_labelled, read_unlabelled
from hf_mdft.tasks.decode import as_shown


@pytest.fixture
def preprocessor(pool):
    return Preprocessor(pool.base.folder, "base")


@both_architectures
def test_pixels_equal_the_processor(preprocessor):
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (40, 28), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 256, (20, 64, 3), dtype=np.uint8)),
    ]
    expected = preprocessor.processor([i.convert("RGB") for i in images], return_tensors="pt")["pixel_values"]
    found = preprocessor.normalize(torch.from_numpy(preprocessor.encode(images)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def drawing(mode):
    """Black upper half; the lower half is transparent, and white where it is not."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((255, 0, 0, 0), (0, 4, 8, 8))
    if mode == "P":
        found = Image.new("P", (8, 8), 0)
        found.putpalette([0, 0, 0, 255, 0, 0])
        found.paste(1, (0, 4, 8, 8))
        found.info["transparency"] = 1
        return found
    return image if mode == "RGBA" else image.convert("LA")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_as_in_a_viewer(mode, tmp_path):
    drawing(mode).save(tmp_path / "a.png")
    found = np.asarray(as_shown(Image.open(tmp_path / "a.png")))
    assert (found[:4] == 0).all() and (found[4:] == 255).all()


def test_photos_are_turned_as_their_camera_says(tmp_path, preprocessor):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    upright.save(tmp_path / "a.png")
    data = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]})
    pixels = read_unlabelled("x", Task(unlabelled=data.cast_column("image", datasets.Image())), preprocessor)
    one, two = pixels.pixels([0, 1])
    assert torch.equal(one, two)


@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation_is_undone_as_pillow_does(number, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)).save(
        tmp_path / "a.png", exif=exif
    )
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
    assert (np.asarray(as_shown(Image.open(tmp_path / "a.png"))) == np.asarray(expected)).all()


def test_damaged_exif_data_change_nothing(tmp_path):
    width_as_text, turned = struct.pack("<HHI4s", 0x0100, 2, 2, b"x"), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    entries = struct.pack("<H", 2) + width_as_text + turned + bytes(4)  # Pillow cannot write the first one back
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries)
    assert as_shown(Image.open(tmp_path / "a.jpg")).size == (6, 4)
    picture.save(tmp_path / "b.jpg", exif=b"Exif\0\0nonsense")
    assert as_shown(Image.open(tmp_path / "b.jpg")).size == (4, 6)


def test_images_are_decoded_once(preprocessor, monkeypatch):
    data = make_dataset("shade", 10, seed=31)
    task = Task(unlabelled=data)
    first = read_unlabelled("shade", task, preprocessor)
    monkeypatch.setattr(Preprocessor, "encode", lambda *_: pytest.fail("decoded again"))
    again = read_unlabelled("shade", task, preprocessor)
    assert torch.equal(first.pixels(range(10)), again.pixels(range(10))) and first.key == again.key


def test_changed_data_meet_no_stale_cache(preprocessor):
    a = read_unlabelled("x", Task(unlabelled=make_dataset("shade", 6, seed=1)), preprocessor)
    b = read_unlabelled("x", Task(unlabelled=make_dataset("shade", 6, seed=2)), preprocessor)
    assert a.key != b.key and not torch.equal(a.pixels(range(6)), b.pixels(range(6)))


def test_a_photo_that_is_corrected_in_place_is_seen(preprocessor, tmp_path):
    def read():
        data = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")]}).cast_column("image", datasets.Image())
        return read_unlabelled("x", Task(unlabelled=data), preprocessor)

    Image.new("RGB", (8, 8), "black").save(tmp_path / "a.png")
    before = read()
    assert read().key == before.key
    Image.new("RGB", (8, 8), "white").save(tmp_path / "a.png")
    assert read().key != before.key and (read().pixels([0]) == 255).all()


def test_photos_that_are_unpacked_anew_are_seen(preprocessor, tmp_path, monkeypatch):
    """Of the same size and time, as archives have them."""

    def read():
        data = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.bmp")]}).cast_column("image", datasets.Image())
        return read_unlabelled("x", Task(unlabelled=data), preprocessor)

    for color, level in (("black", 0), ("white", 255)):
        Image.new("RGB", (8, 8), color).save(tmp_path / "a.bmp")
        os.utime(tmp_path / "a.bmp", ns=(10**18, 10**18))
        assert (read().pixels([0]) == level).all()
    key = read().key
    shutil.copyfile(tmp_path / "a.bmp", tmp_path / "b.bmp")
    (tmp_path / "b.bmp").replace(tmp_path / "a.bmp")
    assert read().key == key, "the same picture, staged anew, with other times"

    def locked(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hf_mdft.tasks.files.sha256_of", locked)
    os.utime(tmp_path / "a.bmp", ns=(10**18 + 10**9, 10**18))
    assert read().key == read().key != key, "what cannot be read is another matter"
    monkeypatch.undo()
    assert read().key == key, "and for now"


def test_indexing_and_samples(preprocessor):
    images = read_unlabelled("shade", Task(unlabelled=make_dataset("shade", 10, seed=3)), preprocessor)
    everything = images.pixels(range(10))
    assert torch.equal(images.pixels([7, 2]), everything[[7, 2]])
    assert torch.equal(torch.cat(list(images.batches(4))), images.preprocessor.normalize(everything))
    few = images.sample(4, seed=0)
    assert len(few) == 4 and few.key == images.sample(4, seed=0).key != images.sample(4, seed=1).key
    assert all(any(torch.equal(row, other) for other in everything) for row in few.pixels(range(4)))
    assert images.sample(None, 0) is images and images.sample(99, 0) is images


def labels_that_raise(count=8):
    """A dataset whose label column cannot be decoded: reading one label raises."""
    images = make_dataset("shade", count, seed=4)
    broken = [{"bytes": b"no image", "path": None}] * count
    return images.remove_columns("label").add_column("label", broken).cast_column("label", datasets.Image())


def test_labels_are_never_decoded(preprocessor):
    data = labels_that_raise()
    with pytest.raises(Exception, match="cannot identify image"):
        data[0]
    images = read_unlabelled("shade", Task(unlabelled=data), preprocessor)
    assert images._table.column_names == ["pixels", "shape", "problem"]


@both_architectures
def test_labels_follow_names(preprocessor):
    data = make_dataset("shade", 6, seed=5)
    task = Task(unlabelled=None, evaluation=data)
    assert read_labelled("shade", task, TASKS["shade"], preprocessor).labels.tolist() == [0, 1, 2, 0, 1, 2]
    turned = TASKS["shade"][::-1]
    assert read_labelled("shade", task, turned, preprocessor).labels.tolist() == [2, 1, 0, 2, 1, 0]
    other = ["night", "dusk", "day"]
    with pytest.raises(InputError, match=r"label 'dark' is none of the classes \(night, dusk, day\)"):
        read_labelled("shade", task, other, preprocessor)
    stated = Task(unlabelled=None, evaluation=data, label_names="in_order")
    assert read_labelled("shade", stated, other, preprocessor).labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_transforms_and_modes_that_are_not_applied_are_told(preprocessor, caplog):
    data = make_dataset("shade", 6, seed=6)
    turned = data.with_transform(lambda rows: {"image": [ImageOps.invert(image) for image in rows["image"]]})
    gray = data.cast_column("image", datasets.Image(mode="L"))
    for found, said in (
        (turned, "without its transform; apply it"),
        (gray, "without mode 'L' of its column; apply it"),
    ):
        for part in ("unlabelled", "evaluation"):
            caplog.clear()
            task = Task(**{"unlabelled": None, part: found})
            if part == "unlabelled":
                read_unlabelled("shade", task, preprocessor)
            else:
                read_labelled("shade", task, TASKS["shade"], preprocessor)
            (line,) = [r.getMessage() for r in caplog.records if "as they are" in r.getMessage()]
            assert line.startswith(f"task 'shade', {part}: the stored pictures are read as they are") and said in line
    caplog.clear()
    for plain in (data.with_format("numpy"), data.with_transform(lambda rows: rows, columns=["label"])):
        read_unlabelled("shade", Task(plain), preprocessor)
    assert "as they are" not in caplog.text


def test_a_list_has_no_labels(preprocessor):
    rows = list(make_dataset("shade", 6, seed=7))
    with pytest.raises(
        InputError, match=r"task 'shade', evaluation: a list of images has no labels; give .*from_list"
    ):
        read_labelled("shade", Task(None, rows), TASKS["shade"], preprocessor)
    task = Task(None, datasets.Dataset.from_list(rows), label_names="in_order")
    assert read_labelled("shade", task, TASKS["shade"], preprocessor).labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("spec", [{"split": "train"}, {"train": make_dataset("shade", 2, 0)}])
def test_arguments_without_a_path_are_refused(preprocessor, spec):
    with pytest.raises(InputError, match=r"task 'shade', unlabelled: 'path' is missing \(a dataset's Hub id, or"):
        read_unlabelled("shade", Task(spec), preprocessor)


def test_bad_data_are_named(preprocessor, tmp_path):
    data = make_dataset("shade", 6, seed=6)

    def read(**options):
        return read_unlabelled("shade", Task(**options), preprocessor)

    with pytest.raises(InputError, match=r"no column 'img' \(image_column\): .*image"):
        read(unlabelled=data, image_column="img")
    with pytest.raises(InputError, match="expected images"):
        read(unlabelled=datasets.Dataset.from_dict({"image": [1.5, 2.5]}))
    with pytest.raises(InputError, match="no rows"):
        read(unlabelled=data.select([]))
    with pytest.raises(InputError, match="splits train, test"):
        read(unlabelled=datasets.DatasetDict(train=data, test=data))
    with pytest.raises(InputError, match="task 'shade', unlabelled: cannot load path=parquet"):
        read(unlabelled={"path": "parquet", "data_files": str(tmp_path / "none.parquet"), "split": "train"})
    with pytest.raises(InputError, match="no images are known"):
        read(unlabelled=None)
    damaged = data.select(range(2)).cast_column("image", datasets.Image(decode=False))
    damaged = damaged.map(
        lambda row, i: {"image": {"bytes": b"x" if i else row["image"]["bytes"], "path": None}}, with_indices=True
    ).cast_column("image", datasets.Image())
    with pytest.raises(InputError, match=r"1 of 2 images cannot be read: row 1 \(no raster picture\); repair"):
        read(unlabelled=damaged)


def test_bad_labels_are_named(preprocessor):
    data = make_dataset("shade", 6, seed=7)

    def read(names, **options):
        return read_labelled("shade", Task(unlabelled=None, **{"evaluation": data, **options}), names, preprocessor)

    with pytest.raises(InputError, match="no column 'labels'"):
        read(TASKS["shade"], label_column="labels")
    with pytest.raises(InputError, match=r"'dark' is none of the classes \(a, b\); 3 labels and 2 classes"):
        read(["a", "b"])
    with pytest.raises(InputError, match=r"label '0' is none of the classes \(a, b\); 3 labels and 2 classes"):
        read(["a", "b"], evaluation=data.cast_column("label", datasets.Value("int64")))
    hidden = data.remove_columns("label").add_column("label", [-1] * 6)
    with pytest.raises(InputError, match=r"label -1 is none of the dataset's 3 \(-1 hides"):
        read(TASKS["shade"], evaluation=hidden.cast_column("label", datasets.ClassLabel(names=TASKS["shade"])))
    with pytest.raises(InputError, match="row 5 has no label"):
        read(TASKS["shade"], evaluation=data.remove_columns("label").add_column("label", [0] * 5 + [None]))
    with pytest.raises(InputError, match="expected integers or names"):
        read(TASKS["shade"], evaluation=data.remove_columns("label").add_column("label", [0.5] * 6))


@both_architectures
def test_embeddings_come_in_order(pool, preprocessor):
    images = read_unlabelled("shade", Task(unlabelled=make_dataset("shade", 7, seed=8)), preprocessor)
    tower = pool.tower("shade")
    expected = pool.architecture.features(tower(pixel_values=preprocessor.normalize(images.pixels(range(7)))))
    torch.testing.assert_close(embed_images(tower, pool.architecture, images, batch_size=3), expected.detach())
    assert isinstance(images, Images)


def with_processor(folder, base, **changes):
    """A model's folder with the base's image processor, but for some settings."""
    settings = json.loads((base / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **changes}))
    return folder


def test_an_experts_other_processor_is_told(clip_paths, tmp_path, caplog, unlabelled_data):
    expert = shutil.copytree(clip_paths["shade"], tmp_path / "shade")
    task = {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])}

    def told(**changes):
        with_processor(expert, clip_paths["base"], **changes)
        caplog.clear()
        MetaMerger(ModelPool.from_pretrained(clip_paths["base"], {"shade": expert}), task)
        return [record.getMessage() for record in caplog.records if "image processor" in record.getMessage()]

    assert told() == [] and told(image_processor_type="CLIPImageProcessorFast") == []
    with pytest.raises(InputError, match="shade: image_mean and image_std of preprocessor_config.json must be"):
        told(image_mean=[0.5])
    (line,) = told(image_mean=0.25)
    assert "image_mean: 0.25, not" in line
    (line,) = told(image_mean=[0.5, 0.5, 0.25])
    assert "shade: its image processor differs from the base's" in line and "image_mean: [0.5, 0.5, 0.25], not" in line
    assert line.endswith("its own is used for all images of 'shade'")
    with pytest.raises(InputError, match="shade: its image processor gives 24 x 24 pixels, the base's 32 x 32"):
        told(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})


def test_an_experts_own_processor_prepares_its_tasks_images(clip_paths, tmp_path, unlabelled_data, test_data):
    """In both phases, in the evaluation, and beside the specialist; other tasks keep the base's."""
    expert = shutil.copytree(clip_paths["shade"], tmp_path / "shade")
    with_processor(expert, clip_paths["base"], image_mean=[0.2, 0.5, 0.25], resample=0)
    pool = ModelPool.from_pretrained(clip_paths["base"], {"shade": expert, "colour": clip_paths["colour"]})
    tasks = {name: Task(unlabelled_data[name], test_data[name], class_names=TASKS[name]) for name in pool.tasks}
    merger = MetaMerger(pool, tasks)
    own, base = Preprocessor(expert, "expert"), Preprocessor(clip_paths["base"], "base")

    for task, processor in (("shade", own), ("colour", base)):
        pictures = list(unlabelled_data[task]["image"])[:4]
        wanted = processor.processor(pictures, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(next(merger.unlabelled(task).batches(4)), wanted, atol=1e-5, rtol=1e-5)
    assert merger.labelled("shade").images.preprocessor.key() == own.key()

    seen = []
    trainer = MdftTrainer(
        get_peft_model(pool.tower(), MdftConfig(pool=pool)),
        fit_arguments(tmp_path / "fit", max_steps=1),
        train_dataset={task: merger.unlabelled(task) for task in tasks},
        heads=merger.heads(),
    )
    trainer.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    batch = trainer.train_dataset.__getitems__([0, 1, 2, 3])
    trainer.compute_loss(trainer.model, batch)
    for row, (task, index) in enumerate(zip(batch["task"], batch["index"].tolist(), strict=True)):
        images = merger.unlabelled(["shade", "colour"][task])
        assert torch.equal(seen[-1][row], next(images.subset([index]).batches(1))[0])

    merger.fit(fit_arguments(tmp_path / "fit2", max_steps=1))
    made = merger.specialize(specialize_arguments(tmp_path / "phase2", max_steps=1))
    for task, processor in (("shade", own), ("colour", base)):
        made[task].save_pretrained(tmp_path / f"{task}-specialist")
        assert Preprocessor(tmp_path / f"{task}-specialist", "it").differences(processor) == []
        made[task].save_pretrained(tmp_path / f"{task}-tower", vision_only=True)
        assert Preprocessor(tmp_path / f"{task}-tower", "it").differences(processor) == []


def test_a_processor_of_another_size_is_refused_at_once(clip_paths, tmp_path, unlabelled_data):
    base = shutil.copytree(clip_paths["base"], tmp_path / "base")
    with_processor(base, clip_paths["base"], size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    pool = ModelPool.from_pretrained(base, {"shade": clip_paths["shade"]})
    with pytest.raises(InputError, match="its image processor gives 24 x 24 pixels, its config says 32 x 32"):
        MetaMerger(pool, {"shade": Task(unlabelled_data["shade"], class_names=TASKS["shade"])})
