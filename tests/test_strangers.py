"""Pictures and labels as strangers have them: the right result, or one line that says what to do."""

from __future__ import annotations

import os
import tarfile
import zipfile

import datasets
import numpy as np
import pytest
from conftest import call, edited, make_dataset, write_recipe
from PIL import Image

from hf_mdft import InputError, MdftTrainingArguments, MetaMerger, ModelPool, SpecializeArguments, Task
from hf_mdft.core.class_names import no_words, plain_name
from hf_mdft.core.plain_text import is_plain, one_line, without_secrets
from hf_mdft.heads import build_head
from hf_mdft.recipes.schema import Recipe
from hf_mdft.tasks import Preprocessor, read_labelled, read_unlabelled
from hf_mdft.tasks.source import open_dataset


@pytest.fixture(scope="module")
def preprocessor(clip_paths):
    return Preprocessor(clip_paths["base"], "base")


def picture(path, seed, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).convert(mode).save(path)
    return path


def tree(root, *names):
    for seed, name in enumerate(names):
        picture(root / name, seed)
    return root


def imagefolder(root, split="train"):
    return {"path": "imagefolder", "data_dir": str(root), "split": split}


def count(spec, preprocessor, **options):
    return len(read_unlabelled("x", Task(spec, **options), preprocessor))


# Folders


@pytest.mark.parametrize("table", ["notes.csv", "IMG_1.png.json", "metadata.csv"])
def test_a_table_beside_photos_hides_none(tmp_path, preprocessor, table):
    root = tree(tmp_path / "pics", "train_station.png", "test-tube.png", "cat.png")
    names = ["train_station.png", "test-tube.png", "cat.png"]
    text = "file_name,text\n" + "".join(f"{name},x\n" for name in names) if table == "metadata.csv" else "{}"
    (root / table).write_text(text, encoding="utf-8")
    for spec in (imagefolder(root), {"path": str(root), "split": "train"}, str(root)):
        assert count(spec, preprocessor) == 3, spec


def test_metadata_of_parts(tmp_path, preprocessor):
    root = tree(tmp_path / "pics", "train/a.png", "train/b.png", "test/c.png")
    (root / "train" / "metadata.csv").write_text("file_name,label\na.png,x\nb.png,y\n")
    (root / "test" / "metadata.csv").write_text("file_name,label\nc.png,x\n")
    assert count(imagefolder(root), preprocessor) == 2
    found = read_labelled("x", Task(None, imagefolder(root, "test")), ["y", "x"], preprocessor)
    assert found.labels.tolist() == [1]


def test_metadata_of_parts_that_are_links(tmp_path, preprocessor):
    root = tree(tmp_path / "real", "train/a.png", "train/b.png", "test/c.png")
    (root / "train" / "metadata.csv").write_text("file_name,label\na.png,x\nb.png,y\n")
    (root / "test" / "metadata.csv").write_text("file_name,label\nc.png,x\n")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("train", "test"):
        (linked / name).symlink_to(root / name)
    (linked / "train" / "round").symlink_to(linked)
    for spec in (imagefolder(linked), {"path": str(linked), "split": "train"}):
        assert count(spec, preprocessor) == 2
        found = read_labelled("x", Task(None, {**spec, "split": "test"}), ["y", "x"], preprocessor)
        assert found.labels.tolist() == [1]


@pytest.mark.parametrize(
    "names",
    [
        ("cat/0.png", "cat/train/1.png", "dog/2.png"),
        ("2023/train/0.png", "2024/1.png"),
        ("0.png", "1.png", "train.zip"),
    ],
)
def test_no_part_hides_the_rest(tmp_path, preprocessor, names):
    root = tree(tmp_path / "pics", *[name for name in names if not name.endswith("zip")])
    if "train.zip" in names:
        with zipfile.ZipFile(root / "train.zip", "w") as archive:
            archive.write(picture(tmp_path / "z.png", 9), "z.png")
    with pytest.raises(InputError, match="train: is it a class or a part of the data set.* lies in no such folder"):
        count(imagefolder(root), preprocessor)
    assert count(str(root), preprocessor) == 3 - (names[0].startswith("2023"))


def test_links_in_circles(tmp_path, preprocessor):
    root = tree(tmp_path / "pics", "a.png", "b.png", "c.png")
    for name in ("l1", "l2"):
        os.symlink(root, root / name)
    os.symlink(tree(tmp_path / "more", "d.png"), root / "more")
    assert count(str(root), preprocessor) == count(imagefolder(root), preprocessor) == 4


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_archives_with_classes(tmp_path, preprocessor, ending):
    root = tree(tmp_path / "photos", "cat/0.png", "cat/1.png", "dog/0.png")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._0.png").write_bytes(b"left over")
    archive = tmp_path / f"photos{ending}"

    def pack():
        if ending == ".zip":
            with zipfile.ZipFile(archive, "w") as opened:
                for file in sorted(root.rglob("*")):
                    opened.write(file, f"photos/{file.relative_to(root)}")
                opened.writestr("../../outside.png", (root / "cat" / "0.png").read_bytes())
        else:
            with tarfile.open(archive, f"w{':gz' if ending.endswith('gz') else ''}") as opened:
                opened.add(root, "photos")
                link = tarfile.TarInfo("link.png")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                opened.addfile(link)

    pack()
    spec = {"path": "imagefolder", "data_files": str(archive), "split": "train"}
    expected = 3 + (ending == ".zip")  # the file that would lie outside lies inside
    assert count(spec, preprocessor) == count(str(archive), preprocessor) == expected
    if ending != ".zip":
        found = read_labelled("x", Task(None, str(archive)), ["dog", "cat"], preprocessor)
        assert found.labels.tolist() == [1, 1, 0]
    picture(root / "cat" / "2.png", 7)
    pack()
    assert count(spec, preprocessor) == expected + 1, "the archive's content counts, not its name"


def test_archives_by_part(tmp_path, preprocessor):
    """All parts know the classes of all, so that they can be put together."""
    files = {}
    for part, name in (("train", "cat"), ("test", "dog")):
        files[part] = str(tmp_path / f"{part}.zip")
        with zipfile.ZipFile(files[part], "w") as opened:
            opened.write(picture(tmp_path / part / "0.png", 0), f"{name}/0.png")
    spec = {"path": "imagefolder", "data_files": files}
    assert count({**spec, "split": "train+test"}, preprocessor) == 2
    found = read_labelled("x", Task(None, {**spec, "split": "test"}), ["dog", "cat"], preprocessor)
    assert found.labels.tolist() == [0]


def test_damaged_archives(tmp_path, preprocessor):
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(InputError, match=r"photos.zip cannot be unpacked .*; unpack it, give the folder"):
        count(str(tmp_path / "photos.zip"), preprocessor)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_links_in_archives(tmp_path, preprocessor, caplog, ending):
    """A hard link, a link to it over another one, and such as lead to nothing in the archive."""
    with tarfile.open(tmp_path / f"photos{ending}", f"w{':gz' if ending.endswith('gz') else ''}") as opened:
        for name, kind, target in (
            ("p/dog/3.png", tarfile.SYMTYPE, "../cat/2.png"),
            ("p/cat/2.png", tarfile.LNKTYPE, "p/.store/1.png"),
            ("p/cat/out.png", tarfile.SYMTYPE, str(tmp_path / "1.png")),
            ("p/cat/up.png", tarfile.SYMTYPE, "../../../1.png"),
            ("p/cat/round.png", tarfile.SYMTYPE, "round.png"),
            ("p/all", tarfile.SYMTYPE, "cat"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            opened.addfile(link)
        opened.add(picture(tmp_path / "1.png", 1), "p/.store/1.png")
        opened.add(picture(tmp_path / "2.png", 2), "p/cat/1.png")
    found = read_labelled("x", Task(None, str(tmp_path / f"photos{ending}")), ["dog", "cat"], preprocessor)
    assert found.labels.tolist() == [1, 1, 0] and found.images.pixels([1]).equal(found.images.pixels([2]))
    assert found.images.pixels([0]).ne(found.images.pixels([1])).any()
    assert (
        "3 links in " in caplog.text
        and "lead to no file or visible folder in it, and are passed over: p/" in caplog.text
    )


@pytest.mark.parametrize("names", [("a", "a/b.png"), ("a/b.png", "a"), ("a", "a/b/c.png"), (f"{'n' * 300}.png",)])
def test_archives_with_names_that_no_disk_holds(tmp_path, preprocessor, names):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    with pytest.raises(InputError, match=r"photos.zip cannot be unpacked \(.*; unpack it, give the folder") as error:
        count(str(tmp_path / "photos.zip"), preprocessor)
    assert "free space" not in str(error.value) and "Errno" not in str(error.value) and len(str(error.value)) < 400


def test_archives_that_are_damaged_within(tmp_path, preprocessor):
    noise = np.random.default_rng(0).integers(0, 256, 1_200_000, dtype=np.uint8).tobytes()
    (tmp_path / "x.png").write_bytes(noise)
    with tarfile.open(tmp_path / "p.tar.bz2", "w:bz2") as opened:
        opened.add(tmp_path / "x.png", "x.png")
    content = bytearray((tmp_path / "p.tar.bz2").read_bytes())
    content[1_100_000:1_100_100] = bytes(100)  # in the second block
    (tmp_path / "p.tar.bz2").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be unpacked .*; unpack it, give the folder"):
        count(str(tmp_path / "p.tar.bz2"), preprocessor)


def test_what_network_drives_leave_behind(tmp_path, preprocessor):
    left = ("cat/@eaDir/0.png/SYNOFILE_THUMB_M.png", "$Recycle.Bin/1.png", "#recycle/2.png", "cat/@EADIR/3.png")
    root = tree(tmp_path / "pics", "cat/0.png", "#recycled/4.png", *left)
    with zipfile.ZipFile(tmp_path / "pics.zip", "w") as opened:
        for file in sorted(root.rglob("*.png")):
            if file.is_file():
                opened.write(file, str(file.relative_to(root)))
    for spec in (str(root), str(tmp_path / "pics.zip"), imagefolder(root)):
        assert count(spec, preprocessor) == 2


def test_one_split_needs_no_name(preprocessor, tmp_path):
    data = make_dataset("shade", 4, 0)
    assert count(datasets.DatasetDict(train=data), preprocessor) == 4
    data.to_parquet(tmp_path / "a.parquet")
    parquet = {"path": "parquet", "data_files": str(tmp_path / "a.parquet")}
    assert count(parquet, preprocessor) == 4 and count(parquet | {"take": 3}, preprocessor) == 3
    assert count(parquet | {"take": 3, "streaming": True}, preprocessor) == 3
    metadata = tree(tmp_path / "told", "0.png", "1.png")
    (metadata / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n", encoding="utf-8")
    assert count(imagefolder(metadata) | {"split": None}, preprocessor) == 2
    with pytest.raises(InputError, match="has splits train, test; name one with 'split'"):
        count(datasets.DatasetDict(train=data, test=data), preprocessor)


def test_evaluation_in_folders_of_classes(tmp_path, preprocessor):
    root = tree(tmp_path / "photos", "test/dog/0.png", "test/cat/1.png", "train/cat/2.png")
    for spec in (str(root / "test"), imagefolder(root, "test"), {"path": str(root), "split": "test"}):
        found = read_labelled("x", Task(None, spec), ["dog", "cat"], preprocessor)
        assert found.labels.tolist() == [1, 0], spec


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("https://host/photos", r"https://host/photos: no folder; give the address as {path: FORMAT"),
        ("me/photos", r"a data set of the Hub is {path: me/photos, split: train}"),
        ("~nobody-of-this-name/photos", "no such folder of images"),
        ({"path": 3}, "path must be text, got 3"),
        ({"path": "imagefolder", "data_dir": ["a"]}, r"data_dir must be text, got \['a'\]"),
        (datasets.IterableDatasetDict({}), "the dataset has splits"),
        (None, r"no images are known; give tasks that have some: Task\(unlabelled="),
    ],
)
def test_what_is_no_data_set(preprocessor, spec, said):
    with pytest.raises(InputError, match=said):
        count(spec, preprocessor)


def test_pictures_of_phones_are_counted(tmp_path, preprocessor):
    for number in range(30):
        (tmp_path / f"IMG_{number}.HEIC").write_bytes(b"x")
    for spec in (str(tmp_path), imagefolder(tmp_path)):
        with pytest.raises(InputError, match=r"no images in this folder \(30 .heic; convert HEIC to JPEG\)"):
            count(spec, preprocessor)


def test_relative_paths_of_structs_and_folders_of_tables(tmp_path, preprocessor, monkeypatch):
    """They start at the table, wherever the process works."""
    tree(tmp_path / "p", "0.png")
    other = tree(tmp_path / "elsewhere" / "p", "0.png", "0.png")
    Image.new("RGB", (32, 32)).save(other / "0.png")
    table = tmp_path / "rows.json"
    table.write_text('[{"image": {"path": "p/0.png", "bytes": null}}]', encoding="utf-8")
    (tmp_path / "rows.csv").write_text("image\np/0.png\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for spec in (
        {"path": "json", "data_files": str(table), "split": "train"},
        {"path": "csv", "data_dir": str(tmp_path), "split": "train"},
    ):
        found = read_unlabelled("x", Task(spec), preprocessor)
        assert found.pixels([0]).float().mean() > 50, spec


# Pictures


def test_pictures_in_memory_of_every_mode(tmp_path, preprocessor):
    plain = Image.open(picture(tmp_path / "a.png", 0))
    for mode in ("HSV", "La", "RGBa", "LAB", "YCbCr", "CMYK", "RGBX"):
        item = plain.convert("RGBA").convert(mode) if mode in ("RGBa",) else plain
        item = plain.convert("LA").convert("La") if mode == "La" else plain.convert(mode) if item is plain else item
        assert count([item, plain], preprocessor) == 2, mode


def test_a_damaged_picture_in_a_list_is_a_bad_picture(tmp_path, preprocessor):
    path = tmp_path / "cut.png"
    path.write_bytes(picture(tmp_path / "a.png", 0).read_bytes()[:300])
    items = [Image.open(path), Image.open(tmp_path / "a.png")]
    with pytest.raises(InputError, match="1 of 2 images cannot be read: image 0 of the list"):
        count(items, preprocessor)
    assert count([Image.open(path), Image.open(tmp_path / "a.png")], preprocessor, on_bad_image="skip") == 1


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes of that kind")
def test_pipes_are_not_read(tmp_path, preprocessor):
    os.mkfifo(tmp_path / "a.png")
    for address in (f"file://{tmp_path / 'a.png'}", f"zip://b.png::{tmp_path / 'a.png'}", str(tmp_path / "a.png")):
        with pytest.raises(InputError, match="no regular file"):
            count([address], preprocessor)


def test_transparency_of_deep_gray(tmp_path, preprocessor):
    values = np.full((32, 32), 1000, dtype=np.uint16)
    values[:16] = 0
    Image.fromarray(values).save(tmp_path / "a.png", transparency=0)
    found = read_unlabelled("x", Task([str(tmp_path / "a.png")], image_range=[0, 65535]), preprocessor).pixels([0])
    assert (found[0, :, :12] == 255).all() and (found[0, :, -12:] == 4).all()


def test_dark_sets_are_warned_of(preprocessor, caplog):
    dark = np.random.default_rng(0).integers(0, 16, (12, 32, 32, 3), dtype=np.uint8)
    count(list(dark), preprocessor)
    assert "nearly black as the model sees them: the largest value is 15 of 255" in caplog.text


def test_flat_lists_are_no_pictures(preprocessor):
    rows = datasets.Dataset.from_dict({"image": np.zeros((3, 784), dtype=np.uint8).tolist()})
    with pytest.raises(InputError, match="lists of numbers; make them height x width"):
        count(rows, preprocessor)


def test_addresses_are_shown_without_secrets(tmp_path, preprocessor, monkeypatch):
    paths = [f"https://me:secret@127.0.0.1:9/{number}.png?sig=secret" for number in range(30)]
    with pytest.raises(InputError) as error:
        count(paths, preprocessor)
    rest = str(error.value).split(" more in ")[1].split(";")[0]
    with open(rest, encoding="utf-8") as file:
        assert "secret" not in str(error.value) + file.read() and "127.0.0.1" in str(error.value)


# Labels


def labels(values, names, feature=None, **options):
    data = make_dataset("shade", len(values), 0).remove_columns("label").add_column("label", values)
    data = data if feature is None else data.cast_column("label", feature)
    return data, names, options


def matched(values, names, preprocessor, feature=None, **options):
    data, names, options = labels(values, names, feature, **options)
    return read_labelled("x", Task(None, data, **options), names, preprocessor).labels.tolist()


FOLDERS = datasets.ClassLabel(names=["0", "1", "10", "2"])


def test_numbered_folders_and_numbered_classes_are_told_apart(preprocessor):
    """`datasets` sorts folders as text, and transformers' `LABEL_2` is its third."""
    classes = [f"LABEL_{number}" for number in range(11)]
    with pytest.raises(InputError, match=r"label 2 of the data set is called '10'.*in_order.*'?10'?: LABEL_10"):
        matched([0, 1, 2, 3], classes, preprocessor, FOLDERS)
    assert matched([0, 1, 2, 3], classes, preprocessor, FOLDERS, label_names="in_order") == [0, 1, 2, 3]
    by_name = {name: f"LABEL_{name}" for name in FOLDERS.names}
    assert matched([0, 1, 2, 3], classes, preprocessor, FOLDERS, label_names=by_name) == [0, 1, 10, 2]
    words = [str(number) for number in range(11)]
    assert matched([0, 1, 2, 3], words, preprocessor, FOLDERS) == [0, 1, 10, 2], "exact names leave nothing open"


def test_label_names_are_read_one_way(preprocessor):
    animals = ["cat", "dog", "cow"]
    feature = datasets.ClassLabel(names=["1", "10", "2"])
    numbered = {0: "cat", 1: "dog", 2: "cow"}
    assert matched([0, 1, 2], animals, preprocessor, feature, label_names=numbered) == [0, 1, 2]
    texts = {"1": "cat", "10": "dog", "2": "cow"}
    assert matched([0, 1, 2], animals, preprocessor, feature, label_names=texts) == [0, 1, 2]
    both = datasets.ClassLabel(names=["1", "0"])
    with pytest.raises(InputError, match="put names in quotes"):
        matched([0, 1], animals[:2], preprocessor, both, label_names={0: "cat", 1: "dog"})
    for stated in (["cat", "dog"], "in_order"):  # folders `1`, `10`, `2`: which order is meant?
        with pytest.raises(InputError, match=r"labels as text \(1, 0\): say which .* {0: cat, 1: dog}, if th"):
            matched([0, 1], animals[:2], preprocessor, both, label_names=stated)
    with pytest.raises(InputError, match="'kitten' is no label of the data set"):
        matched([0], animals, preprocessor, feature, label_names={**texts, "kitten": "cat"})


@pytest.mark.parametrize("stated", ["in_order", ["cat", "dog"]])
def test_an_order_that_the_data_sets_names_contradict_is_refused(preprocessor, stated):
    turned = datasets.ClassLabel(names=["Dog", "cat"])
    with pytest.raises(InputError, match=r"order of the classes \(cat, dog\), but the data set calls label 0 'Dog'"):
        matched([0, 1], ["cat", "dog"], preprocessor, turned, label_names=stated)
    assert matched([0, 1], ["cat", "dog"], preprocessor, turned) == [1, 0]
    pairs = {"Dog": "cat", "cat": "dog"}
    assert matched([0, 1], ["cat", "dog"], preprocessor, turned, label_names=pairs) == [0, 1], "each one is stated"
    same = datasets.ClassLabel(names=["Cat", "hound"])
    assert matched([1, 0], ["cat", "dog"], preprocessor, same, label_names=stated) == [1, 0]


def test_words_are_matched_by_name_where_label_names_lists_the_classes(preprocessor):
    assert matched(["dog", "Cat"], ["cat", "dog"], preprocessor, label_names=["cat", "dog"]) == [1, 0]
    with pytest.raises(InputError, match="label 'cow' is none of the classes"):
        matched(["dog", "cow"], ["cat", "dog"], preprocessor, label_names=["cat", "dog"])
    with pytest.raises(InputError, match="label_names: its list: label '2' is no number from 0 to 1"):
        matched([0, 2], ["cat", "dog"], preprocessor, label_names=["cat", "dog"])


def test_words_are_matched_by_name_whatever_list_label_names_is(preprocessor):
    assert matched(["dog", "cat"], ["cat", "dog"], preprocessor, label_names=["dog", "cat"]) == [1, 0]


def test_a_list_of_label_names_goes_by_the_number_that_a_text_holds(preprocessor):
    assert matched(["0", "1"], ["cat", "dog"], preprocessor, label_names=["dog", "cat"]) == [1, 0]
    with pytest.raises(InputError, match="label_names has no name for label '2'"):
        matched(["0", "2"], ["cat", "dog"], preprocessor, label_names=["dog", "cat"])


def test_numbers_that_count_from_another_start_are_in_order(preprocessor):
    """Names that are numbers contradict no order, but where they name the classes, or are sorted as text."""
    counted = datasets.ClassLabel(names=["1", "2", "3", "4"])
    classes = ["0", "1", "2", "3"]
    assert matched([0, 1, 2, 3], classes, preprocessor, counted, label_names="in_order") == [0, 1, 2, 3]
    assert matched([3, 1], classes, preprocessor, counted, label_names=classes) == [3, 1]
    as_text = datasets.ClassLabel(names=["1", "10", "2", "3"])
    for feature, names in ((counted, ["2", "1", "3", "4"]), (as_text, classes), (FOLDERS, ["0", "1", "2", "10"])):
        with pytest.raises(InputError, match="label_names says that labels are in the order of the classes"):
            matched([0, 1, 2, 3], names, preprocessor, feature, label_names="in_order")


def test_numbers_that_two_classes_have_tell_none(preprocessor):
    names = ["label 3", "class 3", "4"]
    with pytest.raises(InputError, match="label '3' is none of the classes"):
        matched(["3", "4"], names, preprocessor)
    assert matched(["Label_3", "4"], names, preprocessor) == [0, 2]


def test_classes_that_differ_in_case_alone(preprocessor):
    names = ["A", "B", "a", "b"]
    assert matched([0, 3, 2], names, preprocessor, label_names="in_order") == [0, 3, 2]
    assert matched([0, 3, 2], names, preprocessor, label_names=names) == [0, 3, 2]
    assert matched(["0", "3"], names, preprocessor, label_names="in_order") == [0, 3]
    stated = {"A": "B", "a": "b"}
    assert matched(["A", "a"], names, preprocessor, label_names=stated) == [1, 3]
    cranes = ["crane", "heron", "crane"]
    assert matched([0, 2], cranes, preprocessor, label_names="in_order") == [0, 2]


def test_proposals_keep_what_matches(preprocessor):
    names = ["airplane", "bird", "cat", "deer", "dog"]
    with pytest.raises(InputError, match=r"label_names: {aeroplane: airplane, ") as error:
        matched(["aeroplane", *names[1:]], names, preprocessor)
    assert "in_order" not in str(error.value) and "bird: bird" in str(error.value)
    with pytest.raises(InputError, match=r'{0: "tench, Tinca tinca", 1: cock}'):
        matched([0, 1], ["tench, Tinca tinca", "cock"], preprocessor)
    numbers = [f"c{letter}" for letter in "abcdefghijk"]
    with pytest.raises(InputError, match=r"{1: ca, 2: cb, 3: cc, 4: cd, 5: ce, 6: cf, ...}"):
        matched(list(range(1, 12)), numbers, preprocessor)


def test_numbered_names_are_placeholders_with_a_sign_too():
    assert no_words(["label -1", "label -2", "label -3"]) == "placeholders"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A-", "A", False),
        ("-0.5", "0.5", False),
        ("temp -5", "temp 5", False),
        ("temp_-5", "Temp -5", True),
        ("covid-19", "Covid 19", True),
        ("Boeing 747 -400", "Boeing 747-400", True),
        ("covid - 19", "covid 19", True),
        ("ice-cream", "Ice_Cream", True),
        ("T - shirt", "t shirt", True),
    ],
)
def test_signs_are_no_hyphens(a, b, same):
    assert (plain_name(a) == plain_name(b)) == same


@pytest.mark.parametrize(
    "names",
    [
        ["", "dog"], ["train", "test", "__MACOSX"], ["train", "val", "test", "unlabeled"],
        ["n01440764", "n01443537", "other"], ["n01440764 tench", "n01443537 goldfish"], ["2023", "2022", "misc"],
        ["IMG_0001", "IMG_0002"], ["-5", "temp", "10 -20"], ["c0", "c1", "c2"], ["fold1", "fold2"],
        ["images", "masks"], ["cat"],
    ],
)  # fmt: skip
def test_names_that_say_nothing(names):
    assert no_words(names)


@pytest.mark.parametrize("names", [["train", "car", "bus"], ["Boeing 737", "A320"], ["class a", "class b"]])
def test_names_that_say_something(names):
    assert no_words(names) is None


def test_two_classes_of_one_text_are_refused(clip_pool):
    with pytest.raises(InputError, match="two classes are called 'cat', whose texts are the same"):
        build_head("shade", Task(None, class_names=["cat", "dog", "Cat"]), clip_pool)


# Python


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MdftTrainingArguments(max_steps="ten", use_cpu=True), "max_steps must be a whole number, got 'ten'"),
        (lambda: MdftTrainingArguments(images_per_task="4", use_cpu=True), "images_per_task must be a whole number"),
        (lambda: MdftTrainingArguments(train_heads="true", use_cpu=True), "train_heads must be true or false"),
        (lambda: SpecializeArguments(images="all", use_cpu=True), "images must be a whole number"),
        (lambda: ModelPool.from_pretrained(None, {}), "a model must be str or PathLike, got None"),
        (lambda: Recipe.load(None), "the recipe must be str or Path, got None"),
        (lambda: Task(None, class_names=3), "class_names must list at least two names"),
    ],
)
def test_values_of_a_wrong_type(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_numbers_of_numpy_are_numbers():
    args = MdftTrainingArguments(max_steps=np.int64(3), learning_rate=np.float32(0.5), use_cpu=True)
    assert args.max_steps == 3 and type(args.max_steps) is int and args.learning_rate == 0.5
    assert Task(None, class_names=np.array(["a", "b"])).class_names == ["a", "b"]


def test_tasks_and_baselines_of_a_wrong_type(clip_done, tmp_path):
    with pytest.raises(InputError, match="tasks must be str or Iterable, got int"):
        clip_done.specialize(tasks=3)
    with pytest.raises(InputError, match="baselines must be Mapping, got str"):
        clip_done.evaluate("x")
    args = SpecializeArguments(output_dir=str(tmp_path), use_cpu=True)
    assert MetaMerger.specialize(clip_done, args, tasks=[]) == {}, "no task is not every task"


# What is shown


def test_lines_are_plain_and_without_secrets():
    line = "cannot load http://me:p@ss/w@host/a.zip?sig=x&y=z, hf://datasets/me/x@main/a hf_abcDEFghi123"
    assert without_secrets(line) == "cannot load http://host/a.zip, hf://datasets/me/x@main/a hf_..."
    assert one_line("a\nb\u202ec\x1b[31m") == "a b\\u202ec\\u001b[31m" and len(one_line("x" * 9999)) < 4100
    assert is_plain("مرحبا é 猫") and not is_plain("a\u202eb") and not is_plain("a\tb")
    assert str(InputError("two\nlines hf_secretsecret")) == "two lines hf_..."


def test_warnings_are_on_the_page(clip_paths, tmp_path, monkeypatch, capsys):
    tree(tmp_path / "photos", "a.png", "b.png")
    (tmp_path / "photos" / "c.heic").write_bytes(b"x")
    recipe = edited(write_recipe(tmp_path, clip_paths), lambda c: c["tasks"]["shade"].update(unlabelled="photos"))
    page = tmp_path / "check.html"
    code, out, _ = call(["check", recipe, "--page", page], monkeypatch, capsys)
    assert code == 0 and "minute" in out
    text = page.read_text(encoding="utf-8")
    assert "To know" in text and "1 .heic; convert HEIC to JPEG" in text


def as_datasets(spec):
    """Number of rows, and names of classes, that `load_dataset` finds."""
    found = datasets.load_dataset(**spec)
    return len(found), getattr(found.features.get("label"), "names", None)


CARD = """---
configs:
- config_name: clean
  data_files: clean/**
- config_name: mixed
  data_files:
  - split: train
    path: clean/**
  - split: test
    path: noisy/**
---
"""


@pytest.mark.parametrize(
    "options",
    [
        {"data_dir": "clean"},
        {"name": "clean"},
        {"name": "mixed"},
        {"name": "mixed", "split": "test"},
        {"data_dir": "clean", "drop_labels": True},
    ],
)
def test_a_part_of_a_local_folder_is_what_datasets_takes(tmp_path, options):
    root = tree(tmp_path / "pics", *[f"{part}/{c}/{n}.png" for part in ("clean", "noisy") for c in "ab" for n in "12"])
    picture(root / "noisy" / "b" / "3.png", 9)
    if "name" in options:
        (root / "README.md").write_text(CARD)
    spec = {"path": str(root), "split": "train", **options}
    found = open_dataset(spec, "x")
    assert (len(found), getattr(found.features.get("label"), "names", None)) == as_datasets(spec)
    assert len(found) == (5 if options.get("split") == "test" else 4)


def test_a_card_that_names_no_files_changes_nothing(tmp_path, preprocessor):
    root = tree(tmp_path / "pics", "cat/0.png", "dog/train_1.png")
    for text in ("# Pictures", "---\nlicense: mit\n---\n"):
        (root / "README.md").write_text(text)
        assert count({"path": str(root), "split": "train"}, preprocessor) == 2


@pytest.mark.parametrize("names", [("train", "test"), ("part-1", "part-2")])
def test_tables_of_a_folder_keep_their_parts(tmp_path, names):
    for number, name in enumerate(names):
        data = {"image": [Image.new("RGB", (8, 8), (number, row, 0)) for row in range(3 + number)]}
        dataset = datasets.Dataset.from_dict(data, features=datasets.Features({"image": datasets.Image()}))
        dataset.to_parquet(tmp_path / "tables" / f"{name}-00000-of-00001.parquet")
    (tmp_path / "tables" / "README.md").write_text("a note beside them")
    spec = {"path": "parquet", "data_dir": str(tmp_path / "tables"), "split": "train"}
    assert len(open_dataset(spec, "x")) == (3 if "train" in names else 7)
    if "train" in names:
        assert len(open_dataset({**spec, "split": "test"}, "x")) == 4


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("validation/train/0.png", "validation/car/0.png"), ["car", "train"]),
        (("bullet_train/0.png", "tram/0.png", "test_tube/0.png"), ["bullet_train", "test_tube", "tram"]),
        (("train/cat/0.png", "test/dog/0.png"), ["cat", "dog"]),
        (("cat/train/0.png", "dog/test/0.png"), ["cat", "dog"]),
        (("train/train/0.png", "test/test/0.png"), None),
        (("train/0.png", "test/0.png"), None),
        (("cat/images/0.png", "dog/images/0.png"), ["cat", "dog"]),
        (("train/cat/images/0.png", "train/dog/images/0.png", "val/images/0.png"), ["cat", "dog"]),
        (("cat/images/0.png", "cat/images/1.png"), ["images"]),
        (("north/cat/0.png", "south/cat/0.png"), ["cat"]),
        (("cat/images/0.png", "dog/labels/0.png"), ["images", "labels"]),
        (("train/images/0.png", "test/images/0.png"), ["images"]),
    ],
)
def test_classes_whose_names_are_words_of_parts(tmp_path, names, classes):
    root = tree(tmp_path / "pics", *names)
    assert getattr(open_dataset(str(root), "x").features.get("label"), "names", None) == classes
    if names[0].startswith("validation"):
        spec = imagefolder(root, "validation")
        found = open_dataset(spec, "x")
        assert (len(found), found.features["label"].names) == as_datasets(spec)


@pytest.mark.parametrize("form", ["text", "imagefolder", "zip"])
def test_a_folder_of_pictures_within_that_of_each_class(tmp_path, preprocessor, form):
    """Unless the last one is called as a class."""
    root = tree(tmp_path / "pics", "cat/images/0.png", "dog/images/1.png", "dog/images/2.png")
    spec = str(root) if form == "text" else imagefolder(root)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "pics.zip", "w") as file:
            for path in root.rglob("*.png"):
                file.write(path, str(path.relative_to(root)))
        spec = {"path": "imagefolder", "data_files": str(tmp_path / "pics.zip"), "split": "train"}
    assert read_labelled("x", Task(None, spec), ["dog", "cat"], preprocessor).labels.tolist() == [1, 0, 0]
    assert read_labelled("x", Task(None, spec), ["texts", "Images"], preprocessor).labels.tolist() == [1, 1, 1]


def test_links_and_equal_archives(tmp_path, preprocessor):
    real = tree(tmp_path / "real", "cat/0.png", "dog/1.png")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(real / name)
    (linked / "dog" / "round").symlink_to(linked)
    for spec in (str(linked), {"path": str(linked), "split": "train"}, imagefolder(linked)):
        assert count(spec, preprocessor) == 2
    for name in ("cat", "dog"):
        (tmp_path / "zips").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "zips" / f"{name}.zip", "w") as file:
            file.writestr("0.png", (real / "cat" / "0.png").read_bytes())
    assert open_dataset(str(tmp_path / "zips"), "x")["label"][:] == [0, 1]
