"""Links in archives, and names that are no text, give what the unpacked folder gives."""

from __future__ import annotations

import io
import logging
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from hf_mdft import InputError
from hf_mdft.tasks.archives import unpacked
from hf_mdft.tasks.folders import files_in, pictures_in
from hf_mdft.tasks.source import open_dataset


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def pack(path, files, links, mode="w"):
    """An archive of files by name, and symbolic links by name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
            for name, target in links.items():
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                opened.writestr(info, target)
        return path
    with tarfile.open(path, mode) as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            opened.addfile(info)
    return path


def found_in(archive):
    """Contents by name within the archive."""
    root = unpacked(archive, "x")
    return {os.path.relpath(found.path, root): Path(found.path).read_bytes() for found in pictures_in(root, "x")}


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_links_give_what_they_lead_to(tmp_path, caplog, ending):
    """Also over links, through linked folders, and to hidden files."""
    files = {"real/1.png": png("red"), ".store/2.png": png("blue")}
    links = {
        "alias": "real",
        "x/1.png": "../alias/1.png",
        "y/1.png": "../x/1.png",
        "z/2.png": "../.store/2.png",
        "w/2.png": "../z/2.png",
    }
    archive = pack(tmp_path / f"a.{ending}", files, links, "w:gz" if ending.endswith("gz") else "w")
    red, blue = files.values()
    assert found_in(archive) == {
        "real/1.png": red,
        "x/1.png": red,
        "y/1.png": red,
        "z/2.png": blue,
        "w/2.png": blue,
    }
    assert not caplog.records


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_links_of_archives_lead_nowhere_else(tmp_path, caplog, ending):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "2.png").write_bytes(png("blue"))
    links = {
        "out": str(tmp_path / "outside"),
        "up": "../" * 20 + str(tmp_path / "outside"),
        "out/3.png": "../cat/1.png",
        "a": "b",
        "b": "a",
        "a/4.png": "../cat/1.png",
        "none": "hidden/.x",
    }
    archive = pack(tmp_path / f"a.{ending}", {"cat/1.png": png("red"), "hidden/.x/1.png": png("red")}, links)
    assert found_in(archive) == {"cat/1.png": png("red")}
    assert f"7 links in {archive} lead to no file or visible folder in it" in caplog.text


def test_contents_of_compressed_archives_are_read_in_order(tmp_path, monkeypatch):
    """To go back is to read all anew: once for hidden files, not once for each second link."""
    hidden = {f".store/{n}.png": png((n, 0, 0)) for n in range(9)}
    links = {f"{kind}/{n}.png": f"../.store/{n}.png" for kind in ("a", "b", "c") for n in range(9)}
    archive = pack(tmp_path / "a.tar.gz", hidden, links, "w:gz")
    back = []
    extract = tarfile.TarFile.extractfile

    def watched(self, member):
        back.append(member.offset_data)
        return extract(self, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", watched)
    assert found_in(archive) == {f"{name[0]}/{n}.png": png((n, 0, 0)) for name in ("a", "b", "c") for n in range(9)}
    assert len(back) == 9 and back == sorted(back)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_second_name_of_a_folder_changes_nothing(tmp_path, form):
    if form == "archive":
        root = pack(tmp_path / "a.tar", {"cat/1.png": png("red"), "dog/2.png": png("blue")}, {"all": "cat"})
    else:
        root = tmp_path / "a"
        for name in ("cat/1.png", "dog/2.png"):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(png("red"))
        (root / "all").symlink_to("cat")
        assert [os.path.relpath(name, root) for name in files_in(root)] == ["cat/1.png", "dog/2.png"]
    found = open_dataset(str(root), "x")
    assert found.features["label"].names == ["cat", "dog"] and found["label"][:] == [0, 1]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@pytest.mark.parametrize("form", ["archive", "folder", "imagefolder"])
def test_names_that_are_no_text_are_told(tmp_path, form, caplog):
    if form == "archive":
        root = tmp_path / "a.tar"
        with tarfile.open(root, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as opened:
            info = tarfile.TarInfo("caf\xe9/1.png")
            info.size = len(png("red"))
            opened.addfile(info, io.BytesIO(png("red")))
    else:
        root = tmp_path / "a"
        os.makedirs(os.fsencode(root) + b"/caf\xe9")
        with open(os.fsencode(root) + b"/caf\xe9/1.png", "wb") as file:
            file.write(png("red"))
    spec = {"path": form, "data_dir": str(root), "split": "train"} if form == "imagefolder" else str(root)
    with pytest.raises(InputError, match=r"x: .*/a(\.tar)?: the name b'caf\\xe9/1.png' is no UTF-8; rename it"):
        open_dataset(spec, "x")
    with pytest.raises(InputError, match="image 0 of the list, str, makes no picture"):
        open_dataset([os.fsdecode(b"caf\xe9.png")], "x")


def test_files_that_are_no_pictures_may_have_any_name(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "1.png").write_bytes(png("red"))
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb"):
        pass
    assert len(open_dataset(str(tmp_path), "x")) == 1 and "caf\\udce9.txt" in caplog.text


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_links_to_folders_that_cannot_be_made_are_passed_over(tmp_path, caplog, ending):
    """The archive holds files in the link's place, or nothing that is shown in the folder that it leads to."""
    files = {"cat/1.png": png("red"), "dog/1.png": png("blue"), ".hidden/1.png": png("green")}
    archive = pack(tmp_path / f"photos.{ending}", files, {"dog": "cat", "bird": ".hidden"})
    assert found_in(archive) == {name: content for name, content in files.items() if name[0] != "."}
    assert "2 links" in caplog.text
