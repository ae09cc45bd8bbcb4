"""Which folders are classes, where their names alone do not tell."""

from __future__ import annotations

import pytest
from conftest import make_dataset
from PIL import Image

from hf_mdft import InputError, Task
from hf_mdft.tasks import Preprocessor, folders, meant, read_labelled
from hf_mdft.tasks.source import open_dataset


@pytest.fixture(scope="module")
def preprocessor(clip_paths):
    return Preprocessor(clip_paths["base"], "base")


def tree(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (9 * number, 255 - 9 * number, 0)).save(root / name)
    return str(root)


CODE, OTHER = "n01440764", "n02102040"


@pytest.mark.parametrize(
    ("names", "options", "found"),
    [
        ((f"siteA/{CODE}/0.png", f"siteB/{CODE}/1.png"), {"label_names": {CODE: "dog"}}, [1, 1]),
        ((f"{CODE}/x/0.png", f"{OTHER}/x/1.png"), {"label_names": {CODE: "dog", OTHER: "cat"}}, [1, 0]),
        ((f"{CODE}/images/0.png", f"{OTHER}/images/1.png"), {"label_names": "in_order"}, [0, 1]),
        (("siteA/0/0.png", "siteB/0/1.png"), {"label_names": "in_order"}, [0, 0]),
        (("siteA/0/0.png", "siteB/0/1.png"), {"label_names": ["dog", "cat"]}, [1, 1]),
        (("cat/0.png", "cat/images/1.png", "dog/images/2.png"), {}, [0, 0, 1]),
        (("cat/1/0.png", "cat/2/1.png", "dog/1/2.png"), {}, [0, 0, 1]),
        (("cat/images/0.png",), {}, [0]),
        (("cat/photos/0.png", "dog/photos/1.png"), {}, [0, 1]),
        (("kitten/photos/0.png", "puppy/photos/1.png"), {"label_names": {"kitten": "cat", "puppy": "dog"}}, [0, 1]),
    ],
)
def test_folders_of_classes_that_are_known(tmp_path, preprocessor, names, options, found):
    task = Task(None, tree(tmp_path / "a", *names), **options)
    assert read_labelled("x", task, ["cat", "dog"], preprocessor).labels.tolist() == found


def test_numbered_classes_keep_their_folders(tmp_path, preprocessor):
    task = Task(None, tree(tmp_path / "a", "siteA/0/0.png", "siteB/0/1.png"))
    assert read_labelled("x", task, ["LABEL_0", "LABEL_1"], preprocessor).labels.tolist() == [0, 0]


@pytest.mark.parametrize("known", [(), ("cat", "dog")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_each_part_has_folders_of_its_own(tmp_path, known, split):
    """Of the training part in that of each class, of the other one without."""
    names = ("train/cat/images/0.png", "train/dog/images/1.png", "test/cat/0.png", "test/dog/1.png")
    spec = {"path": "imagefolder", "data_dir": tree(tmp_path / "a", *names), "split": split}
    found = open_dataset(spec, "x", known=known)
    assert found.features["label"].names == ["cat", "dog"] and found["label"][:] == [0, 1]


def test_a_picture_beside_the_folders_has_no_class(tmp_path):
    root = tree(tmp_path / "a", "0.png", "cat/images/1.png", "dog/images/2.png")
    assert open_dataset(root, "x")["label"][:] == [None, 0, 1]


def test_masks_beside_pictures_are_refused(tmp_path, preprocessor):
    root = tree(tmp_path / "a", *[f"{name}/{kind}/0.png" for name in ("cat", "dog") for kind in ("images", "masks")])
    with pytest.raises(InputError, match=r"x', evaluation: 'cat' holds folders images and masks: which are its pict"):
        read_labelled("x", Task(None, root), ["cat", "dog"], preprocessor)
    with pytest.raises(InputError, match="x: 'cat' holds folders images and masks: which are its pictures"):
        open_dataset(root, "x")  # nor would anyone train on them
    for names in (("images/0.png", "masks/0.png"), ("images/cat/0.png", "images/dog/1.png", "masks/cat/0.png")):
        with pytest.raises(InputError, match="x: it holds folders images and masks"):
            open_dataset(tree(tmp_path / names[0].replace("/", "-"), *names), "x")


def test_what_lies_beside_the_pictures_of_a_class_is_none_of_it(tmp_path, preprocessor):
    names = [f"{name}/{kind}0.png" for name in ("cat", "dog") for kind in ("", "ground_truth/")]
    with pytest.raises(InputError, match="'(cat|dog)' holds pictures and folders ground_truth: which are its pict"):
        read_labelled("x", Task(None, tree(tmp_path / "a", *names)), ["cat", "dog"], preprocessor)
    names = [f"{name}/{kind}/0.png" for name in ("cat", "dog") for kind in ("day", "night")]
    with pytest.raises(InputError, match="'(cat|dog)' holds folders day and night: which are its pictures"):
        read_labelled("x", Task(None, tree(tmp_path / "b", *names)), ["cat", "dog"], preprocessor)


def test_folders_of_pictures_are_no_classes_beside_some(tmp_path):
    found = open_dataset(tree(tmp_path / "a", "cat/images/0.png", "dog/1.png", "owl/2.png"), "x")
    assert found.features["label"].names == ["cat", "dog", "owl"]
    found = open_dataset(tree(tmp_path / "b", "animals/images/0.png", "animals/drawings/1.png"), "x")
    assert found.features["label"].names == ["drawings", "images"]


def test_files_are_listed_without_a_path_for_each(tmp_path, monkeypatch):
    """That takes ten times as long as to find them."""
    root = tree(tmp_path / "a", "b/0.png", "c/1.bmp")
    monkeypatch.setattr(folders, "Path", lambda *_: pytest.fail("a path is made"))
    assert folders.files_in(root) == [f"{root}/b/0.png", f"{root}/c/1.bmp"]


def test_tables_of_a_kind_are_not_looked_for_among_pictures(tmp_path, monkeypatch):
    tree(tmp_path / "a", "0.png")
    (tmp_path / "a" / "labels.csv").write_text("image,label\n0.png,x\n", encoding="utf-8")
    monkeypatch.setattr(meant, "files_in", lambda root: pytest.fail("all files are listed"))
    assert len(open_dataset({"path": "csv", "data_dir": str(tmp_path / "a"), "split": "train"}, "x")) == 1


def test_a_data_set_with_labels_is_opened_once(preprocessor, monkeypatch):
    opened = []
    monkeypatch.setattr("hf_mdft.tasks.labelled.open_dataset", lambda *a: opened.append(a) or open_dataset(*a))
    monkeypatch.setattr("hf_mdft.tasks.source.open_dataset", lambda *a: pytest.fail("opened again"))
    data = make_dataset("shade", 6, 0)
    assert len(read_labelled("x", Task(None, data), data.features["label"].names, preprocessor).images) == 6
    assert len(opened) == 1


def test_masks_beside_pictures_are_none_of_the_class(tmp_path, preprocessor):
    for number, names in enumerate((("cat/0.png", "cat/masks/0.png"), ("cat/images/0.png", "cat/masks/0.png"))):
        other = [name.replace("cat", "dog") for name in names]
        task = Task(None, tree(tmp_path / str(number), *names, *other))
        with pytest.raises(InputError, match="'(cat|dog)' holds .*folders .*masks: which are its pictures"):
            read_labelled("x", task, ["cat", "dog"], preprocessor)


def test_other_names_of_classes_above_a_common_folder_are_proposed(tmp_path, preprocessor):
    task = Task(None, tree(tmp_path / "a", "kitten/photos/0.png", "puppy/photos/1.png"))
    with pytest.raises(InputError, match="{kitten: cat, puppy: dog}"):
        read_labelled("x", task, ["cat", "dog"], preprocessor)
