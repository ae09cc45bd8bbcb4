"""What a picture viewer shows is what the model sees: depth, transparency, sources, pictures that cannot be read."""

from __future__ import annotations

import io
import logging
import os
import struct
import zipfile
import zlib

import datasets
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_dataset
from PIL import Image, ImageCms
from transformers import CLIPImageProcessor

from hf_mdft import InputError, Task
from hf_mdft.tasks import Preprocessor, color, read_labelled, read_unlabelled
from hf_mdft.tasks.decode import Showing, decode
from hf_mdft.tasks.listed import listed
from hf_mdft.tasks.source import open_dataset


HIDDEN = ((65535, 0, 0), (1000, 2000, 3000))
"""Colors of 16 bits that may be transparent."""


@pytest.fixture(scope="module")
def preprocessor(clip_paths):
    return Preprocessor(clip_paths["base"], "base")


def noise(seed, high=256, dtype=np.uint8, size=32, channels=()):
    return np.random.default_rng(seed).integers(0, high, (size, size, *channels)).astype(dtype)


def files(folder, *arrays, ending="png"):
    folder.mkdir(exist_ok=True)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.{ending}")
    return folder


def pixels(images):
    return images.pixels(range(len(images)))


# Depth


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_gray_is_scaled_from_its_depth(tmp_path, preprocessor, caplog, bits):
    """A 12-bit scan in a 16-bit file is one of 12 bits; all pictures of a task have one range."""
    arrays = [noise(seed, 2**bits // (seed + 1), np.uint16) for seed in range(3)]
    arrays[0][0, 0] = 2**bits - 1
    with caplog.at_level(logging.WARNING):
        found = read_unlabelled("x", Task(files(tmp_path / "deep", *arrays)), preprocessor)
    plain = [np.rint(array * (255 / (2**bits - 1))).astype(np.uint8) for array in arrays]
    wanted = read_unlabelled("y", Task(files(tmp_path / "plain", *plain)), preprocessor)
    assert torch.equal(pixels(found), pixels(wanted))
    (line,) = [r.getMessage() for r in caplog.records if "more than 8 bits" in r.getMessage()]
    assert f"0 is black, {2**bits - 1:g} is white ({bits} bits" in line and "image_range: [LOW, HIGH]" in line


def test_learning_and_evaluation_have_one_range(tmp_path, preprocessor):
    dim, bright = noise(0, 1000, np.uint16), noise(1, 60_000, np.uint16)
    bright[0, 0] = 60_000
    task = Task(files(tmp_path / "a", dim), files(tmp_path / "b", bright))
    found = pixels(read_unlabelled("x", task, preprocessor)).float()
    assert found.max() <= 255 * 1000 / 65535 + 1, "bright pictures of the other set make these dark"


def test_fractions_and_stated_ranges(tmp_path, preprocessor):
    values = noise(0).astype(np.float32) / 255
    found = read_unlabelled("x", Task(files(tmp_path / "f", values, ending="tiff")), preprocessor)
    wanted = read_unlabelled("y", Task(files(tmp_path / "p", noise(0))), preprocessor)
    assert torch.equal(pixels(found), pixels(wanted))
    hounsfield = (noise(0).astype(np.float32) - 100) * 10
    folder = files(tmp_path / "ct", hounsfield, ending="tiff")
    with pytest.raises(InputError, match=r"values from -1000 to 1550, which tell no range; say .* image_range: \[LOW"):
        read_unlabelled("x", Task(folder), preprocessor)
    stated = read_unlabelled("x", Task(folder, image_range=[-1000, 1550]), preprocessor)
    assert torch.equal(pixels(stated), pixels(wanted))
    with pytest.raises(InputError, match="image_range must be two numbers, the smaller first"):
        Task.from_dict({"unlabelled": None, "image_range": [5, 1]}, "tasks.x")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("deep", [False, True])
def test_orientation_in_every_container(tmp_path, preprocessor, ending, deep):
    """Pillow turns TIFF by itself when it is loaded."""
    if deep and ending != "tiff":
        pytest.skip("of eight bits")
    ramp = np.add.outer(np.arange(32) * 7, np.arange(32)).astype(np.uint16 if deep else np.uint8)
    upright, turned = Image.fromarray(ramp), Image.fromarray(np.rot90(ramp).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / f"a.{ending}", exif=exif, **({"quality": 100} if ending in ("jpg", "webp") else {}))
    upright.save(tmp_path / "b.tiff")
    a, b = (pixels(read_unlabelled("x", Task([tmp_path / name]), preprocessor)) for name in (f"a.{ending}", "b.tiff"))
    assert (a.int() - b.int()).abs().max() <= 6


@pytest.mark.parametrize("mode", ["F", "I", "CMYK", "I;16", "RGB"])
@pytest.mark.parametrize("turned", [6, 8])
def test_turned_pictures_of_pillow_are_those_of_their_files(tmp_path, mode, turned):
    """Whatever size their metadata tell."""
    values = np.arange(24 * 40, dtype=np.float32).reshape(24, 40) / 4
    picture = Image.fromarray(values).convert(mode) if mode != "I;16" else Image.fromarray(values.astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = turned
    picture.save(tmp_path / "a.tiff", exif=exif)
    with Image.open(tmp_path / "a.tiff") as opened:
        rows = [listed([item], "image", "x")[0]["image"] for item in (tmp_path / "a.tiff", opened)]
    assert np.array_equal(*(np.asarray(decode(row, Showing((0, 255)))) for row in rows))


def test_cut_pictures_keep_no_size_of_before(tmp_path, preprocessor):
    exif = Image.Exif()
    exif[0x0100], exif[0x0101] = 64, 48
    Image.fromarray(noise(0)).convert("CMYK").save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert len(read_unlabelled("x", Task([opened.crop((0, 0, 16, 8))]), preprocessor)) == 1


def test_white_is_zero(tmp_path, preprocessor):
    values = noise(0, 2**12, np.uint16)
    values[0, 0] = 2**12 - 1
    Image.fromarray(values).save(tmp_path / "a.tiff", tiffinfo={262: 0})
    Image.fromarray(values).save(tmp_path / "b.tiff")
    a, b = (pixels(read_unlabelled("x", Task([tmp_path / name]), preprocessor)) for name in ("a.tiff", "b.tiff"))
    assert (a.int() + b.int() - 255).abs().max() <= 1


# Transparency


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_parts_have_the_background(tmp_path, preprocessor, background, level):
    drawing = np.zeros((32, 32, 4), dtype=np.uint8)
    drawing[8:24, 8:24] = (10, 200, 30, 255)
    found = pixels(read_unlabelled("x", Task(files(tmp_path / "a", drawing), background=background), preprocessor))
    assert (found[0, :, 0, 0] == level).all() and found[0, :, 16, 16].tolist() == [10, 200, 30]
    palette = Image.fromarray(drawing).convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    (tmp_path / "p").mkdir()
    palette.save(tmp_path / "p" / "0.gif", transparency=palette.getpixel((0, 0)))
    found = pixels(read_unlabelled("y", Task(tmp_path / "p", background=background), preprocessor))
    assert (found[0, :, 0, 0] == level).all()
    with pytest.raises(InputError, match="background must be a color such as white"):
        Task.from_dict({"unlabelled": None, "background": "chequered"}, "tasks.x")


def test_sets_that_look_alike_are_warned_of(tmp_path, preprocessor, caplog):
    def said(*arrays):
        caplog.clear()
        read_unlabelled("x", Task([Image.fromarray(array) for array in arrays]), preprocessor)
        return [r.getMessage() for r in caplog.records]

    assert said(*(noise(seed, channels=(3,)) for seed in range(12))) == []
    assert "one flat color" in said(*(np.full((32, 32, 3), level, dtype=np.uint8) for level in range(0, 240, 20)))[0]
    assert "copies of each other" in said(*[noise(0, channels=(3,))] * 12)[0]


# Sources


def test_sources_give_the_same_pictures(tmp_path, preprocessor):
    arrays = [noise(seed, channels=(3,)) for seed in range(4)]
    folder = files(tmp_path / "photos", *arrays)
    paths = sorted(folder.iterdir())
    bytes_of = [path.read_bytes() for path in paths]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    (tmp_path / "table.csv").write_text("file,mark\n" + "".join(f"photos/{p.name},1\n" for p in paths))
    stored = datasets.Dataset.from_dict({"image": [str(path) for path in paths]}).cast_column(
        "image", datasets.Image()
    )
    stored.to_parquet(str(tmp_path / "photos.parquet"))
    sources = {
        "folder": folder,
        "name of a folder": str(folder),
        "imagefolder": {"path": "imagefolder", "data_dir": str(folder), "split": "train"},
        "paths": [str(path) for path in paths],
        "Paths": paths,
        "pictures": [Image.open(path) for path in paths],
        "arrays": arrays,
        "bytes": [{"bytes": data, "path": None} for data in bytes_of],
        "dataset": stored,
        "torch format": stored.with_format("torch"),
        "transform": stored.with_transform(lambda batch: {"image": [0] * len(batch["image"])}),
        "bytes in a column": datasets.Dataset.from_dict({"image": bytes_of}),
        "lists": datasets.Dataset.from_dict({"image": [array.tolist() for array in arrays]}).cast_column(
            "image", datasets.Array3D((32, 32, 3), "uint8")
        ),
        "stream": {"path": "parquet", "data_files": str(tmp_path / "photos.parquet"), "split": "train",
                   "streaming": True, "take": 4},
        "zip": {"path": "imagefolder", "data_files": str(tmp_path / "photos.zip"), "split": "train"},
        "csv": {"path": "csv", "data_files": str(tmp_path / "table.csv"), "split": "train"},
    }  # fmt: skip
    wanted = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for name, source in sources.items():
        column = "file" if name == "csv" else "image"
        found = read_unlabelled("x", Task(source, image_column=column), preprocessor)
        assert torch.equal(pixels(found), wanted), name


def test_words_for_splits_in_names_of_files_hide_nothing(tmp_path, preprocessor):
    folder = files(tmp_path / "photos", *(noise(seed) for seed in range(6)))
    os.rename(folder / "0.png", folder / "train_station.png")
    os.rename(folder / "1.png", folder / "test-tube.png")
    spec = {"path": "imagefolder", "data_dir": str(folder), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 6
    assert len(read_unlabelled("x", Task(folder), preprocessor)) == 6
    features = datasets.Features({"image": datasets.Image()})
    for options in ({"drop_labels": True}, {"drop_labels": False}, {"features": features, "drop_labels": True}):
        assert len(read_unlabelled("x", Task({**spec, **options}), preprocessor)) == 6, options


def test_a_table_of_some_of_a_folders_pictures_stays_that(tmp_path, preprocessor):
    """Also in a folder whose name holds brackets."""
    folder = files(tmp_path / "photos [1]", *(noise(seed) for seed in range(6)))
    rows = "".join(f"{folder}/{n}.png,{n % 2}\n" for n in range(3))
    (folder / "labels.csv").write_text(f"image,label\n{rows}", encoding="utf-8")
    spec = {"path": "csv", "data_dir": str(folder), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 3


def test_folders_for_splits_and_classes_stay_what_they_are(tmp_path, preprocessor):
    for split, count in (("train", 3), ("test", 2)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
            files(tmp_path / "photos" / split / name, *(noise(number * 10 + n) for n in range(count)))
    spec = {"path": "imagefolder", "data_dir": str(tmp_path / "photos")}
    assert len(read_unlabelled("x", Task({**spec, "split": "train"}), preprocessor)) == 6
    found = read_labelled("x", Task(None, {**spec, "split": "test"}), ["dog", "cat"], preprocessor)
    assert found.labels.tolist() == [1, 1, 0, 0]
    flat = {"path": "imagefolder", "data_dir": str(tmp_path / "photos" / "test"), "split": "train"}
    assert read_labelled("x", Task(None, flat), ["dog", "cat"], preprocessor).labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("parts", "classes"),
    [
        (("train/train_images", "test/test_images"), None),
        (("train/bullet_train", "train/plane", "test/plane"), ["bullet_train", "plane"]),
        (("train/bullet_train", "train/night_train", "test/night_train"), ["bullet_train", "night_train"]),
        (("train/train", "train/bus", "test/bus"), ["bus", "train"]),
        (("cat/train", "cat/test", "dog/train"), ["cat", "dog"]),
    ],
)
def test_folders_are_classes_where_they_are_no_parts(tmp_path, parts, classes):
    for number, part in enumerate(parts):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        files(tmp_path / part, noise(number))
    for spec in (tmp_path, {"path": "imagefolder", "data_dir": str(tmp_path), "split": "all"}):
        feature = open_dataset(spec, "x").features.get("label")
        assert (feature and feature.names) == classes, spec


@pytest.mark.parametrize(
    ("parts", "split", "count"),
    [
        (("training_set/cat", "training_set/dog", "test_set/cat", "test_set/dog"), "train", 4),
        (("training_set/cat", "training_set/dog", "test_set/cat", "test_set/dog"), "test", 4),
        (("train2017", "val2017"), "validation", 2),
        (("images/train/cat", "images/test/cat"), "train", 2),
        (("cat", "dog"), "train[:3]", 3),
        (("train/cat", "train/dog", "test/cat"), "train+test", 6),
    ],
)
@pytest.mark.parametrize("loader", ["imagefolder", None])
def test_parts_of_a_folder_are_what_datasets_takes_them_for(tmp_path, preprocessor, parts, split, count, loader):
    root = tmp_path / "photos"
    for number, part in enumerate(parts):
        (root / part).mkdir(parents=True, exist_ok=True)
        files(root / part, noise(2 * number), noise(2 * number + 1))
    spec = {"path": loader, "data_dir": str(root)} if loader else {"path": str(root)}
    assert len(read_unlabelled("x", Task({**spec, "split": split}), preprocessor)) == count


def test_data_sets_of_save_to_disk(tmp_path, preprocessor):
    pictures = {"image": [Image.fromarray(noise(seed, channels=(3,))) for seed in range(5)], "label": [0, 1, 0, 1, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    one = datasets.Dataset.from_dict(pictures, features=features)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one.select([0, 1, 2]), test=one.select([3, 4])).save_to_disk(tmp_path / "parts")
    wanted = pixels(read_unlabelled("x", Task(one), preprocessor))
    for spec in (tmp_path / "one", {"path": str(tmp_path / "one"), "split": "train"}):
        assert torch.equal(pixels(read_unlabelled("x", Task(spec), preprocessor)), wanted)
    spec = {"path": str(tmp_path / "parts"), "split": "test"}
    assert read_labelled("x", Task(None, spec), ["dog", "cat"], preprocessor).labels.tolist() == [0, 0]
    assert len(read_unlabelled("x", Task({**spec, "split": "train[:2]+test"}), preprocessor)) == 4
    with pytest.raises(InputError, match="splits train, test; name one with 'split'"):
        read_unlabelled("x", Task(tmp_path / "parts"), preprocessor)
    sliced = datasets.Dataset.from_dict(pictures, features=features, split=datasets.NamedSplit("train[:5]"))
    sliced.save_to_disk(tmp_path / "sliced")
    assert len(read_unlabelled("x", Task({"path": str(tmp_path / "sliced"), "split": "train"}), preprocessor)) == 5
    for text, name in (
        ("test[:5]", "test"),
        ("test[:3]+train[:2]", "train"),
        ("test[:10%](pct1_dropremainder)", "test"),
    ):
        one.info.splits, one._split = None, datasets.NamedSplit(text)
        one.save_to_disk(tmp_path / text)
        assert len(read_unlabelled("x", Task({"path": str(tmp_path / text), "split": name}), preprocessor)) == 5, text
    arrow = next((tmp_path / "parts" / "test").glob("*.arrow"))
    spec = {"path": str(tmp_path / "parts"), "data_files": f"test/{arrow.name}", "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 2, "the file that is named, not all"
    photos = files(tmp_path / "photos", noise(0), noise(1))
    (photos / "state.json").write_text("{}", encoding="utf-8")
    assert len(read_unlabelled("x", Task(photos), preprocessor)) == 2
    with pytest.raises(InputError, match="[Uu]nknown split"):
        read_unlabelled("x", Task({**spec, "split": "validation"}), preprocessor)
    (tmp_path / "one" / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="a data set of save_to_disk that cannot be read"):
        read_unlabelled("x", Task(tmp_path / "one"), preprocessor)


def test_pictures_that_metadata_do_not_name_are_told(tmp_path, preprocessor, caplog):
    folder = files(tmp_path / "photos", *(noise(seed) for seed in range(4)))
    (folder / "metadata.csv").write_text("file_name,label\n0.png,a\n2.png,b\n", encoding="utf-8")
    spec = {"path": "imagefolder", "data_dir": str(folder), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 2
    assert "2 of 4 pictures are not in the folder's metadata, and left out" in caplog.text
    rows = "0.png,a\n0.png,b\n1.png,c\n2.png,d\n3.png,e\n"
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}", encoding="utf-8")
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 5, "two captions of one"
    for patterns in (["*.png"], ["*.png", "metadata.csv"], ["**"]):
        given = {"train": [str(folder / pattern) for pattern in patterns]}
        found = read_unlabelled(
            "x", Task({"path": "imagefolder", "data_files": given, "split": "train"}), preprocessor
        )
        assert len(found) in (4, 5), patterns
    for part in ("train", "test"):
        (tmp_path / "whole").mkdir(exist_ok=True)
        files(tmp_path / "whole" / part, noise(5), noise(6))
    rows = "".join(f"{part}/{n}.png,a\n" for part in ("train", "test") for n in range(2))
    (tmp_path / "whole" / "metadata.csv").write_text(f"file_name,label\n{rows}", encoding="utf-8")
    flat = {"path": "imagefolder", "data_dir": str(tmp_path / "whole" / "test"), "split": datasets.Split.TRAIN}
    assert len(read_unlabelled("x", Task(flat), preprocessor)) == 2
    for split in ("train", "train[:100%]"):
        with pytest.raises(InputError, match="names pictures of other parts than train"):
            read_unlabelled("x", Task({**spec, "data_dir": str(tmp_path / "whole"), "split": split}), preprocessor)


def test_what_is_between_columns_and_where_labels_may_be(tmp_path, preprocessor):
    folder = files(tmp_path / "photos", *(noise(seed) for seed in range(2)))
    for mark, name in (("\t", "t.tsv"), (";", "t.csv")):
        rows = "\n".join([f"image{mark}label", *(f"{folder}/{n}.png{mark}{n}" for n in range(2))])
        (tmp_path / name).write_text(rows, encoding="utf-8")
        spec = {"path": "csv", "data_files": str(tmp_path / name), "split": "train"}
        with pytest.raises(InputError, match="what is between columns. Say so with delimiter") as caught:
            read_unlabelled("x", Task(spec), preprocessor)
        assert repr(mark) in str(caught.value)
        assert len(read_unlabelled("x", Task({**spec, "delimiter": mark}), preprocessor)) == 2
    with pytest.raises(InputError, match="put those of each class into a folder of its own"):
        read_labelled("x", Task(None, folder), ["a", "b"], preprocessor)


def test_why_tables_do_not_load(tmp_path, preprocessor):
    for name, columns in (("a", "image,label"), ("b", "image,label,file_name")):
        (tmp_path / f"{name}.csv").write_text(f"{columns}\n{','.join('1' * len(columns.split(',')))}\n")
    spec = {"path": "csv", "data_files": [str(tmp_path / f"{name}.csv") for name in "ab"], "split": "train"}
    with pytest.raises(InputError, match="Schema at index 1|same columns"):
        read_unlabelled("x", Task(spec), preprocessor)


def test_folders_that_may_be_classes_or_parts_are_refused(tmp_path, preprocessor):
    for name in ("train", "plane", "bus"):
        files(tmp_path / name, noise(0))
    spec = {"path": "imagefolder", "data_dir": str(tmp_path), "split": "train"}
    with pytest.raises(InputError, match="train: is it a class or a part of the data set"):
        read_unlabelled("x", Task(spec), preprocessor)
    assert len(read_unlabelled("x", Task(tmp_path), preprocessor)) == 3
    flat = files(tmp_path / "flat", noise(0), noise(1))
    with pytest.raises(InputError, match="[Uu]nknown split"):
        read_unlabelled("x", Task({"path": "imagefolder", "data_dir": str(flat), "split": "test"}), preprocessor)


def test_hidden_files_links_and_others(tmp_path, preprocessor, caplog):
    folder = files(tmp_path / "photos", noise(0), noise(1))
    (folder / "._0.png").write_bytes(b"leftover")
    (folder / "notes.txt").write_text("x")
    os.symlink(files(tmp_path / "more", noise(2)), folder / "linked")
    with caplog.at_level(logging.WARNING):
        assert len(read_unlabelled("x", Task(folder), preprocessor)) == 3
    assert "1 files in" in caplog.text and "notes.txt" in caplog.text


def test_pictures_in_memory_are_taken_as_they_are(tmp_path, preprocessor):
    """Not as their file was."""
    folder = files(tmp_path / "a", noise(0, channels=(3,)))
    picture = Image.open(folder / "0.png")
    picture.paste((255, 0, 0), (0, 0, 32, 32))
    found = pixels(read_unlabelled("x", Task([picture]), preprocessor))
    assert (found[0, 0] == 255).all() and (found[0, 1:] == 0).all()
    rows = list(make_dataset("shade", 4, 0).to_iterable_dataset().take(3))
    assert len(read_unlabelled("x", Task(rows), preprocessor)) == 3
    assert len(read_unlabelled("x", Task(make_dataset("shade", 4, 0)["image"]), preprocessor)) == 4
    batch = np.stack([noise(seed, channels=(3,)) for seed in range(2)])
    for array in (batch, list(batch.transpose(0, 3, 1, 2)), torch.from_numpy(batch).unbind()):
        found = read_unlabelled("x", Task(list(array)), preprocessor)
        assert torch.equal(pixels(found), torch.from_numpy(batch).permute(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32])
def test_arrays_that_are_no_bytes_are_refused(preprocessor, dtype):
    deep = [noise(0, channels=(3,)).astype(dtype) * 200]
    with pytest.raises(InputError, match="give bytes from 0 to 255"):
        read_unlabelled("x", Task(deep), preprocessor)
    if dtype is np.int64:
        data = datasets.Dataset.from_dict({"image": [deep[0].tolist()]})
        with pytest.raises(InputError, match="column 'image' holds"):
            read_unlabelled("x", Task(data), preprocessor)


def test_relative_paths_in_tables(tmp_path, preprocessor):
    files(tmp_path / "p", noise(0), noise(1))
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = [{"bytes": None, "path": f"p/{number}.png"} for number in range(2)]
    pq.write_table(datasets.Dataset.from_dict({"image": rows}, features=features).data.table, tmp_path / "t.parquet")
    spec = {"path": "parquet", "data_files": str(tmp_path / "?.parquet"), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 2
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("image\n../p/0.png\n")
    spec = {"path": "csv", "data_files": [str(tmp_path / name / "t.csv") for name in "ab"], "split": "train"}
    with pytest.raises(InputError, match="is relative to one of several folders; give whole paths"):
        read_unlabelled("x", Task(spec), preprocessor)


def test_names_with_brackets(tmp_path, preprocessor):
    folder = files(tmp_path / "photos [2024]", noise(0), noise(1))
    spec = {"path": "imagefolder", "data_dir": str(folder), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 2
    stored = make_dataset("shade", 5, 0)
    stored.to_parquet(str(tmp_path / "a[1].parquet"))
    spec = {"path": "parquet", "data_files": str(tmp_path / "a[1].parquet"), "split": "train"}
    assert len(read_unlabelled("x", Task(spec), preprocessor)) == 5


def test_a_folder_named_as_a_loader_is_no_loader(tmp_path, preprocessor):
    (tmp_path / "imagefolder").mkdir()
    files(tmp_path / "photos", noise(0), noise(1))
    options = {"unlabelled": {"path": "imagefolder", "data_dir": "photos", "split": "train"}}
    task = Task.from_dict(options, "tasks.x", folder=tmp_path)
    assert task.unlabelled["path"] == "imagefolder" and len(read_unlabelled("x", task, preprocessor)) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda folder: folder / "nowhere", "nowhere: no such folder of images"),
        (lambda folder: folder, "no images in this folder"),
        (lambda folder: [], "the list of images is empty"),
        (lambda folder: [{"bytes": None, "path": None}], "image 0 of the list, dict, makes no picture .neither bytes"),
        (lambda folder: [3, 4], "image 0 of the list, int, makes no picture"),
        (lambda folder: make_dataset("shade", 3, 0).to_iterable_dataset(), r"say how many images .*take\(2000\)"),
        (lambda folder: {"path": "parquet", "data_files": "x", "take": "two"}, "take must be a whole number"),
        (lambda folder: 7, "a folder or a list of images, got int"),
    ],
)
def test_sources_that_are_none(tmp_path, preprocessor, source, said):
    with pytest.raises(InputError, match=said) as error:
        read_unlabelled("x", Task(source(tmp_path)), preprocessor)
    assert str(error.value).startswith("task 'x', unlabelled: ") and "\n" not in str(error.value)


# Pictures that cannot be read


def damaged(tmp_path, count, bad):
    folder = files(tmp_path / "photos", *(noise(seed) for seed in range(count)))
    for number in bad:
        (folder / f"{number}.png").write_bytes(b"no picture")
    return [str(folder / f"{number}.png") for number in range(count)]


def test_all_bad_pictures_are_named_at_once(tmp_path, preprocessor, caplog):
    paths = damaged(tmp_path, 40, range(5, 35))
    with pytest.raises(
        InputError, match="30 of 40 images cannot be read: .*5.png.* and 10 more in .*; repair"
    ) as error:
        read_unlabelled("x", Task(paths), preprocessor)
    rest = str(error.value).split(" more in ")[1].split(";")[0]
    with open(rest, encoding="utf-8") as file:
        assert len(file.read().splitlines()) == 30
    with caplog.at_level(logging.WARNING):
        found = read_unlabelled("x", Task(paths, on_bad_image="skip"), preprocessor)
    assert len(found) == 10 and found.skipped == 30 and found.sample(4, 0).skipped == 30
    assert "30 of 40 images cannot be read" in caplog.text and "they are skipped" in caplog.text
    wanted = torch.from_numpy(np.stack([noise(seed) for seed in (*range(5), *range(35, 40))]))
    assert torch.equal(pixels(found)[:, 0], wanted)
    with pytest.raises(InputError, match="none is left"):
        read_unlabelled("x", Task(paths[6:9], on_bad_image="skip"), preprocessor)


def test_an_archive_that_was_repaired_is_read_again(tmp_path, preprocessor):
    def archive(content):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as found:
            found.writestr("0.png", content)

    good = io.BytesIO()
    Image.fromarray(noise(0)).save(good, "PNG")
    task = Task([f"zip://0.png::{tmp_path / 'a.zip'}"])
    archive(b"no picture")
    with pytest.raises(InputError, match="no raster picture"):
        read_unlabelled("x", task, preprocessor)
    archive(good.getvalue())
    assert len(read_unlabelled("x", task, preprocessor)) == 1
    (tmp_path / "a.zip").write_bytes(b"damaged")
    with pytest.raises(InputError, match="1 of 1 images cannot be read"):
        read_unlabelled("x", task, preprocessor)


def test_labels_go_with_the_pictures_that_are_left(tmp_path, preprocessor):
    paths = damaged(tmp_path, 4, [1])
    data = datasets.Dataset.from_dict({"image": paths, "label": ["a", "b", "c", "b"]})
    task = Task(None, data, on_bad_image="skip")
    assert read_labelled("x", task, ["c", "b", "a"], preprocessor).labels.tolist() == [2, 0, 1]


def test_what_is_no_picture_is_not_opened(tmp_path, preprocessor):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    big = io.BytesIO()
    Image.new("1", (4000, 3000)).save(big, "PNG")
    (tmp_path / "bomb.png").write_bytes(big.getvalue())
    names = [str(tmp_path / name) for name in ("pipe.png", "program.png", "bomb.png", "gone.png")]
    with pytest.raises(InputError) as error:
        read_unlabelled("x", Task(names, max_pixels=1_000_000), preprocessor)
    for said in ("(no regular file)", "(no raster picture)", "(4000 x 3000 pixels, more than max_pixels: 1000000)"):
        assert said in str(error.value)
    assert "gone.png ([Errno 2] No such file" in str(error.value)
    with pytest.raises(InputError, match="more than max_pixels: 1000000"):
        read_unlabelled("x", Task(names[2:3], max_pixels=1_000_000), preprocessor)
    assert len(read_unlabelled("x", Task(names[2:3]), preprocessor)) == 1, "the limit was raised"


# Labels


def classes(labels, names, **options):
    """Classes that labels are matched to."""
    data = make_dataset("shade", len(labels), 0).remove_columns("label")
    feature = options.pop("feature", None)
    data = data.add_column("label", labels, feature=feature) if feature else data.add_column("label", labels)
    return data, Task(None, data, **options), names


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        (["Cat", "big_dog", "big-dog"], ["big dog", "cat"], [1, 0, 0]),
        ([b"cat", b"dog"], ["dog", "cat"], [1, 0]),
        (["cafe\u0301", "na\u00efve"], ["nai\u0308ve", "caf\u00e9"], [1, 0]),
        ([0, 2, 1], ["2", "0", "1"], [1, 0, 2]),
        ([0, 2], ["LABEL_2", "LABEL_0", "LABEL_1"], [1, 0]),
        (["LABEL_1", "LABEL_0"], ["0", "1"], [1, 0]),
        ([1.0, 0.0], ["0", "1"], [1, 0]),
        ([True, False], ["false", "true"], [1, 0]),
        (["7", "3"], ["digit", "3", "7"], [2, 1]),
        (["a"], ["b", "a"], [1]),
    ],
)
def test_labels_are_matched_by_name(preprocessor, labels, names, found):
    _, task, names = classes(labels, names)
    assert read_labelled("x", task, names, preprocessor).labels.tolist() == found


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["cat", "bird"], ["cat", "dog"], "label 'bird' is none of the classes (cat, dog); say which class each label "
         "is, as in label_names: {bird: dog, cat: cat}, if that is right"),
        ([0, 1], ["cat", "dog"], "label '0' is none of the classes (cat, dog); if labels number the classes, "
         "{0: cat, 1: dog}, say so with label_names: in_order, else with label_names: {LABEL: CLASS, ...}"),
        ([1, 2], ["cat", "dog"], "label '1' is none of the classes (cat, dog); say which class each label is, as in "
         "label_names: {1: cat, 2: dog}, if that is right"),
        ([-1, 0, 1], ["0", "1"], "label -1 is no class (-1 hides a split's labels)"),
        (["-1", "0"], ["0", "1"], "label '-1' is none of the classes"),
        ([float("nan"), 1.0], ["0", "1"], "row 0 has no label"),
        (["cat", "dog", "cow"], ["cat", "dog"], "labels cow are none of the 2 classes of the head (cat, dog); leave"),
        ([0, 1, 2], ["cat", "dog"], "3 labels and 2 classes: say with label_names which class each label is"),
        ([[0, 1], [1]], ["cat", "dog"], "holds several labels for an image"),
        ([0.5, 1.0], ["cat", "dog"], "expected integers or names"),
        (["a", None], ["a", "b"], "row 1 has no label"),
    ],
)  # fmt: skip
def test_labels_that_names_do_not_tell_are_refused(preprocessor, labels, names, said):
    _, task, names = classes(labels, names)
    with pytest.raises(InputError) as error:
        read_labelled("x", task, names, preprocessor)
    assert said in str(error.value) and str(error.value).startswith("task 'x', evaluation: ")


@pytest.mark.parametrize(
    ("label_names", "found"),
    [("in_order", [0, 1, 2]), (["dog", "cat", "bird"], [1, 0, 2]), ({0: "bird", "1": "cat", 2: "Dog"}, [2, 0, 1])],
)
def test_label_names_say_which_class_a_label_is(preprocessor, label_names, found):
    _, task, names = classes([0, 1, 2], ["cat", "dog", "bird"], label_names=label_names)
    assert read_labelled("x", task, names, preprocessor).labels.tolist() == found


def test_classes_of_the_data_set_that_are_one_class_are_refused(preprocessor):
    data = make_dataset("shade", 6, 0).cast_column("label", datasets.ClassLabel(names=["Cat", "cat", "dog"]))
    with pytest.raises(InputError, match="labels Cat, cat are all class 'cat'; give label_names"):
        read_labelled("x", Task(None, data), ["cat", "dog", "cow"], preprocessor)


def test_label_names_of_numbered_folders_go_by_the_folder(preprocessor):
    """Folders 1, 2 and 10 are sorted as text."""
    data = make_dataset("shade", 3, 0).cast_column("label", datasets.ClassLabel(names=["1", "10", "2"]))
    task = Task(None, data, label_names={1: "cat", 2: "dog", 10: "cow"})
    assert read_labelled("x", task, ["cat", "dog", "cow"], preprocessor).labels.tolist() == [0, 2, 1]


def test_label_names_that_do_not_fit_are_refused(preprocessor):
    _, task, names = classes([0, 1], ["cat", "dog"], label_names=["cat"])
    with pytest.raises(InputError, match="label_names has no name for label '1'"):
        read_labelled("x", task, names, preprocessor)
    _, task, names = classes([0, 1], ["cat", "dog"], label_names=["cat", "cow"])
    with pytest.raises(InputError, match="label_names calls label '1' 'cow', which is no class"):
        read_labelled("x", task, names, preprocessor)


@pytest.mark.parametrize("ending", ["tiff", "jpeg", "png", "webp"])
def test_a_picture_in_a_list_is_turned_once(tmp_path, preprocessor, ending):
    exif, array = Image.Exif(), np.zeros((24, 40, 3), np.uint8)
    exif[0x0112], array[:12, :20] = 6, 255
    Image.fromarray(array).save(tmp_path / f"x.{ending}", exif=exif)
    wanted = pixels(read_unlabelled("x", Task([str(tmp_path / f"x.{ending}")]), preprocessor))
    opened, loaded = (Image.open(tmp_path / f"x.{ending}") for _ in range(2))
    loaded.load()
    for image in (opened, loaded):
        assert torch.equal(pixels(read_unlabelled("x", Task([image]), preprocessor)), wanted)


def png_of(bits, kind, width, row, hidden=()):
    """A PNG of one row of pixels, with a value or color that is transparent."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    header += chunk(b"tRNS", struct.pack(f">{len(hidden)}H", *hidden)) if hidden else b""
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_transparent_color_of_sixteen_bits(hidden):
    png = png_of(16, 2, 2, struct.pack(">6H", 65535, 0, 0, 1000, 2000, 3000), hidden)
    found = np.asarray(decode({"bytes": png, "path": None}, Showing(background="blue")))[0].tolist()
    plain = [[255, 0, 0], [3, 7, 11]]
    assert found == [[0, 0, 255] if color == hidden else plain[n] for n, color in enumerate(HIDDEN)]


@pytest.mark.parametrize(("bits", "row"), [(1, b"\x40"), (2, b"\x1b"), (4, b"\x01\x23")])
def test_the_transparent_gray_of_few_bits(bits, row):
    """Values from 0 on, of which 1 is transparent."""
    width = min(4, 2**bits)
    png, white = png_of(bits, 0, width, row, (1,)), 255 // (2**bits - 1)
    wanted = [[0, 0, 255] if value == 1 else [value * white] * 3 for value in range(width)]
    opened = listed([Image.open(io.BytesIO(png))], "image", "x")[0]["image"]
    for value in ({"bytes": png, "path": None}, opened):
        assert np.asarray(decode(value, Showing(background="blue")))[0].tolist() == wanted


def test_gray_with_transparency_of_sixteen_bits_has_no_range(tmp_path, preprocessor):
    """Pillow gives its upper eight bits alone, which a 12-bit scan hardly uses."""
    (tmp_path / "a.png").write_bytes(png_of(16, 4, 2, struct.pack(">4H", 4000, 65535, 1000, 65535)))
    with pytest.raises(InputError, match=r"a.png \(gray of 16 bits with transparency, read by its upper 8: save it"):
        read_unlabelled("x", Task([str(tmp_path / "a.png")], image_range=[0, 4095]), preprocessor)
    for limits in (None, [0, 65535]):
        assert len(read_unlabelled("x", Task([str(tmp_path / "a.png")], image_range=limits), preprocessor)) == 1
    image = Image.open(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"row 0 \(gray of 16 bits with transparency, read by its upper 8: save it"):
        read_unlabelled("x", Task([image], image_range=[0, 4095]), preprocessor)
    assert len(read_unlabelled("x", Task([image], image_range=[0, 65535]), preprocessor)) == 1
    assert image.getpixel((0, 0))[-1] == 255, "it can still be read"


def test_pictures_of_a_column_are_read_from_their_files():
    """Gray of four bits, whose transparent value Pillow leaves as it is in the file."""
    png = png_of(4, 0, 2, bytes([0x5F]), (5,))
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_dict({"image": [{"bytes": png, "path": None}]}, features=features)
    for column in (data["image"], data.with_format("numpy")["image"]):
        (row,) = listed(column, "image", "x")["image"]
        assert np.asarray(decode(row, Showing(background="red"))).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    turned = data.with_transform(lambda batch: {"image": [image.rotate(180) for image in batch["image"]]})
    (row,) = listed(turned["image"], "image", "x")["image"]
    assert np.asarray(decode(row)).tolist()[0][0] == [255, 255, 255], "a transform of it is what was asked for"


@pytest.mark.parametrize(("mode", "said"), [("RGB", False), ("L", True), (None, False)])
def test_modes_that_change_nothing_are_not_warned_of(preprocessor, caplog, mode, said):
    data = make_dataset("shade", 6, 0).cast_column("image", datasets.Image(mode=mode))
    read_unlabelled("x", Task(data), preprocessor)
    assert ("are read as they are" in caplog.text) == said


@pytest.mark.parametrize(("array", "white"), [(np.uint16([[60_000]]), 65_535), (np.float32([[0.75]]), 1)])
def test_deep_pictures_whose_zero_is_white(tmp_path, array, white):
    """As a path, as a picture of Pillow and as a row of a data set they are the same."""
    path = str(tmp_path / "a.tif")
    Image.fromarray(array).save(path, tiffinfo={262: 0})
    rows = datasets.Dataset.from_dict({"image": [path]}).cast_column("image", datasets.Image())
    for items in ([path], [Image.open(path)], list(rows)):
        found = np.asarray(decode(listed(items, "image", "x")[0]["image"], Showing((0, white))))
        assert found[0, 0].tolist() == [round(255 * (1 - array[0, 0] / white))] * 3


def test_hairlines_are_bad_pictures(clip_paths, tmp_path, preprocessor):
    CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=32).save_pretrained(tmp_path)
    keeps_shape = Preprocessor(tmp_path, "x")
    assert keeps_shape.encode([Image.new("RGB", (3, 400))]).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="2000 pixels long and 1 wide, too narrow to be resized"):
        keeps_shape.encode([Image.new("RGB", (1, 2000))])
    Image.new("RGB", (1, 2000)).save(tmp_path / "line.png")
    with pytest.raises(InputError, match=r"line.png \(2000 pixels long and 1 wide"):
        read_unlabelled("x", Task([str(tmp_path / "line.png")]), keeps_shape)


def test_a_range_that_an_address_was_missing_from_is_not_kept(preprocessor):
    memory = fsspec.filesystem("memory")

    def put(name, white):
        file = io.BytesIO()
        Image.fromarray(np.linspace(0, white, 1024).reshape(32, 32).astype(np.uint16)).save(file, "PNG")
        memory.pipe(name, file.getvalue())

    put("/range-a.png", 900)
    task = Task(["memory://range-a.png", "memory://range-b.png"], on_bad_image="skip")
    first = read_unlabelled("x", task, preprocessor)
    assert len(first) == 1 and first.showing.range == (0, 1023)
    put("/range-b.png", 60_000)
    again = read_unlabelled("x", task, preprocessor)
    assert len(again) == 2 and again.showing.range == (0, 65535)


def test_the_cache_of_images_knows_what_they_were_resized_with(preprocessor, monkeypatch):
    first = preprocessor.key()
    monkeypatch.setattr(preprocessor, "processor", object())
    assert preprocessor.key() != first


# Colors

P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Columns are red, green and blue in XYZ of D50, as profiles have them."""


def color_profile(primaries=P3, gamma=2.2, name=b"Wide", kind=b"RGB "):
    """An ICC profile of a display: primaries, and a power for each channel, or `None` for the curve of sRGB."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    x = np.linspace(0, 1, 1024)
    table = 65535 * np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    values = np.array([gamma * 256, 0]) if gamma else table  # one number, and what makes it four bytes long
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1 if gamma else 1024) + values.round().astype(">u2").tobytes()
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79
    tags = {b"desc": text + b"\0" * (-len(text) % 4), b"cprt": b"text\0\0\0\0none", b"wtpt": xyz((0.9642, 1, 0.8249))}
    if kind == b"RGB ":
        tags |= {channel + b"XYZ": xyz(primaries[:, number]) for number, channel in enumerate((b"r", b"g", b"b"))}
        tags |= {channel + b"TRC": curve for channel in (b"r", b"g", b"b")}
    else:
        tags[b"kTRC"] = curve
    table, content, place = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", place + len(content), len(value))
        content += value
    header = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02100000, b"mntr", kind, b"XYZ ") + b"\0" * 12 + b"acsp"
    header += b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    profile = header + table + content
    return struct.pack(">I", len(profile)) + profile[4:]


def saved(image, ending, profile):
    file = io.BytesIO()
    image.save(file, ending, icc_profile=profile, **({"quality": 100, "subsampling": 0} if ending == "JPEG" else {}))
    return {"bytes": file.getvalue(), "path": None}


def in_srgb_by_hand(array, primaries=P3, gamma=2.2):
    light = np.linalg.solve(SRGB, primaries @ ((array.reshape(-1, 3) / 255) ** gamma).T).T.clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * encoded).reshape(array.shape)


@pytest.mark.parametrize("ending", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_colors_of_phones_are_shown_in_srgb(ending):
    array = np.full((8, 8, 3), (200, 60, 80), np.uint8)
    array[4:] = (40, 150, 120)
    options = {"lossless": True} if ending == "WEBP" else {}
    file = io.BytesIO()
    options |= {"quality": 100, "subsampling": 0} if ending == "JPEG" else {}
    Image.fromarray(array).save(file, ending, icc_profile=color_profile(), **options)
    value = {"bytes": file.getvalue(), "path": None}
    found, wanted = np.asarray(decode(value)).astype(float), in_srgb_by_hand(array)
    assert np.abs(found - wanted)[[1, 6]].max() <= 2.5 and np.abs(found - array)[[1, 6]].max() > 8
    opened = Image.open(io.BytesIO(file.getvalue()))
    assert np.array_equal(np.asarray(decode(listed([opened], "image", "x")[0]["image"])), found), "from a list too"


def test_a_pillow_without_color_management_says_so(monkeypatch, caplog):
    def lacking(*_):
        raise ImportError("The _imagingcms C module is not installed")

    color._transform.cache_clear()
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lacking)
    array = noise(0, channels=(3,))
    for _ in range(2):
        found = decode(saved(Image.fromarray(array), "PNG", color_profile()))
        assert np.array_equal(np.asarray(found), array)
    assert caplog.text.count("built without littlecms") == 1
    color._transform.cache_clear()


def test_gray_and_transparent_pictures_have_profiles_too():
    gray = Image.new("L", (4, 4), 100)
    found = np.asarray(decode(saved(gray, "PNG", color_profile(gamma=1.0, kind=b"GRAY"))))
    assert abs(found.astype(int) - 169).max() <= 2, "100 of 255 of the light"
    profile = color_profile(gamma=1.0, kind=b"GRAY")
    hidden, deep = io.BytesIO(), Image.fromarray(np.full((4, 4), 100 * 257, np.uint16))
    gray.save(hidden, "PNG", icc_profile=profile, transparency=5)
    for same in ({"bytes": hidden.getvalue(), "path": None}, saved(gray.convert("LA"), "PNG", profile)):
        assert np.array_equal(np.asarray(decode(same)), found), "with an alpha channel, and a color that is none"
    assert np.array_equal(np.asarray(decode(saved(deep, "PNG", profile), Showing(range=(0, 65535)))), found)
    picture = Image.new("RGBA", (4, 4), (200, 60, 80, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    found = np.asarray(decode(saved(picture, "PNG", color_profile()), Showing(background="#123456")))
    wanted = in_srgb_by_hand(np.array([[200, 60, 80]]))
    assert np.abs(found[1, 1] - wanted).max() <= 2.5 and found[0, 0].tolist() == [0x12, 0x34, 0x56]


@pytest.mark.parametrize(
    "profile",
    [
        color_profile(SRGB, gamma=None, name=b"sRGB IEC61966-2.1"),
        color_profile(SRGB, gamma=None, name=b"c2"),
        color_profile(SRGB + np.eye(3) * 2e-4, gamma=None, name=b"Rounded sRGB"),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"damaged",
        color_profile()[:200],
        color_profile(kind=b"GRAY"),
    ],
)
def test_profiles_that_change_nothing(profile):
    """Of sRGB, damaged ones, and those of another kind of pictures, as viewers have it."""
    array = noise(0, channels=(3,))
    assert np.array_equal(np.asarray(decode(saved(Image.fromarray(array), "PNG", profile))), array)


@pytest.mark.parametrize(("mode", "kind"), [("RGB", b"RGB "), ("RGBA", b"RGB "), ("L", b"GRAY")])
def test_linear_profiles_that_are_called_srgb(mode, kind):
    profile = color_profile(SRGB, gamma=1.0, name=b"GIMP built-in Linear sRGB", kind=kind)
    found = np.asarray(decode(saved(Image.new("RGB", (4, 4), (55, 55, 55)).convert(mode), "PNG", profile)))
    assert abs(found.astype(int) - 128).max() <= 1
