"""VOC folders as people have them: lists of every form, encodings, broken files, corners and flags, no lists at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from detlab.data.datamodule import DetectionData
from detlab.data.formats.voc import voc
from detlab.errors import DataError
from tests.data.writing import counts, picture, read, voc_xml

AUTO = dict.fromkeys(("train", "val", "test"), "auto")
CAT = [("cat", (5, 5, 30, 30))]
BOX = [[4, 4, 30, 30, "cat"]]


def data_of(root: Path, **options: Any) -> DetectionData:
    return voc(**({"root": str(root), "sets": AUTO, "size": 40, "cache_dir": None} | options))


def make(root: Path, stems: list[str], listing: str | bytes | None, suffix: str = ".jpg") -> Path:
    """Images and annotations of these names, and a train list of these contents."""
    for stem in stems:
        picture(root / "JPEGImages" / f"{stem}{suffix}")
        voc_xml(root / "Annotations" / f"{stem}.xml", CAT)
    if listing is not None:
        path = root / "ImageSets" / "Main" / "train.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(listing if isinstance(listing, bytes) else listing.encode())
    return root


@pytest.mark.parametrize(
    ("stems", "listing"),
    [
        (["a", "b"], "a\r\n\r\nb\r\n"),
        (["a", "b"], "\ufeffa\nb"),
        (["a", "b"], "a\nb\n".encode("utf-16")),
        (["Ä"], "Ä".encode("utf-16-le")),  # two bytes
        (["img 1", "img (3)"], "img 1\nimg (3)\n"),
        (["img 1", "img 0"], "img 1\nimg 0\n"),
        (["a", "b"], "a -1\nb  1\n"),
        (["a", "b"], "a 0\nb\t1\n"),
        (["my img", "b"], "my img -1\nb  1\n"),
        (["a", "b"], "a.jpg\nb.JPG\n"),
        (["a", "b"], "a.xml\nb.xml\n"),
        (["a.v2", "b"], "a.v2\nb\n"),
        (["a.v2", "b"], "a.v2.jpg\nb.jpg\n"),
        (["a", "b"], "./a\n.\\b\n"),
        (["a", "b"], "JPEGImages/a.jpg\nset\\JPEGImages\\b.jpg\n"),
        (["a", "b"], "/home/me/VOC/JPEGImages/a.jpg\nC:\\VOC\\b\n"),
        (["a", "b"], "./JPEGImages/a.jpg ./Annotations/a.xml\n./JPEGImages/b.jpg ./Annotations/b.xml\n"),
        (["sub/a", "sub/deep/b"], "sub/a\nsub/deep/b\n"),
        (["Ä", "猫"], "Ä\n猫\n"),
    ],
    ids=repr,
)
def test_lists_of_every_form(tmp_path: Path, stems: list[str], listing: str | bytes) -> None:
    data = data_of(make(tmp_path, stems, listing))
    assert read(data) == {f"{Path(stem).name}.jpg": BOX for stem in stems}
    assert counts(data) == {}


def test_a_list_that_repeats_and_names_what_is_not_there(tmp_path: Path) -> None:
    data = data_of(make(tmp_path, ["a"], "a\na\nb\n../../etc/passwd\n"))
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"image listed twice": 1, "missing annotation": 1, "image outside the root": 1}


@pytest.mark.parametrize("suffix", [".JPG", ".jfif", ".webp", ".PNG", ".bmp", ".ppm"])
def test_images_of_any_extension(tmp_path: Path, suffix: str) -> None:
    assert read(data_of(make(tmp_path, ["a"], "a\n", suffix))) == {f"a{suffix}": BOX}


def test_of_two_images_of_one_stem_the_annotation_decides(tmp_path: Path) -> None:
    root = make(tmp_path, ["a"], "a\n", ".png")
    picture(root / "JPEGImages" / "a.bmp")
    text = (root / "Annotations" / "a.xml").read_text()
    for name in ("a.png", "a.bmp"):
        (root / "Annotations" / "a.xml").write_text(text.replace("a.jpg", name))
        assert list(read(data_of(root))) == [name]


XML = (
    "<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size><object><name>Käfer</name>"
    "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    ("content", "guessed"),
    [
        (b"\xef\xbb\xbf" + XML.encode(), False),
        (XML.encode("utf-16"), False),
        (('<?xml version="1.0" encoding="utf-16"?>' + XML).encode("utf-16-be"), False),
        (('<?xml version="1.0" encoding="utf-16"?>' + XML).encode(), False),  # what .NET writes
        (('<?xml version="1.0" encoding="ISO-8859-1"?>' + XML).encode("latin-1"), False),
        (('<?xml version="1.0" encoding="windows-1252" standalone="yes"?>\r\n' + XML).encode("cp1252"), False),
        (('\n  <?xml version="1.0" encoding="UTF-8"?>\n' + XML + "\n\0\n").encode(), False),
        (('<?xml version="1.0" encoding="no-such"?>' + XML).encode(), False),
        (('<?xml version="1.0" encoding="utf-8"?>' + XML).encode("latin-1"), True),
        (XML.encode("latin-1"), True),
    ],
)
def test_encodings(tmp_path: Path, content: bytes, guessed: bool) -> None:
    root = make(tmp_path, ["a"], "a\n")
    (root / "Annotations" / "a.xml").write_bytes(content)
    data = data_of(root)
    assert read(data) == {"a.jpg": [[4, 4, 30, 30, "Käfer"]]}
    assert counts(data) == ({"text not in UTF-8": 1} if guessed else {})


def test_a_multi_byte_encoding_as_declared(tmp_path: Path) -> None:
    root = make(tmp_path, ["a"], "a\n")
    text = '<?xml version="1.0" encoding="gbk"?>' + XML.replace("Käfer", "猫")
    (root / "Annotations" / "a.xml").write_bytes(text.encode("gbk"))
    assert read(data_of(root)) == {"a.jpg": [[4, 4, 30, 30, "猫"]]}


@pytest.mark.parametrize(
    "content", [b"", b"   \n", XML.encode()[:100], b"<html><body/></html>", b"\x00\x01\x02", b"<a>" * 1000, None]
)
def test_broken_annotations_are_dropped_and_counted(tmp_path: Path, content: bytes | None) -> None:
    root = make(tmp_path, ["a", "b"], "a\nb\n")
    (root / "Annotations" / "b.xml").unlink()
    if content is None:
        os.mkfifo(root / "Annotations" / "b.xml")
    else:
        (root / "Annotations" / "b.xml").write_bytes(content)
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"broken annotation": 1}
    with pytest.raises(DataError, match=r"'broken annotation' \(1, such as b\.xml .*data\.on_error=drop"):
        data_of(root, on_error="raise").setup()


def with_object(root: Path, inner: str, size: str = "<size><width>60</width><height>40</height></size>") -> Path:
    make(root, ["a"], "a\n")
    text = f"<annotation><filename>a.jpg</filename>{size}<object><name>cat</name>{inner}</object></annotation>"
    (root / "Annotations" / "a.xml").write_text(text)
    return root


def corners(*values: object) -> str:
    keys = zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True)
    return "<bndbox>" + "".join(f"<{k}>{v}</{k}>" for k, v in keys) + "</bndbox>"


@pytest.mark.parametrize(
    ("values", "box"),
    [
        ((5, 5, 5, 5), [4, 4, 5, 5]),
        ((5, 5, 5, 9), [4, 4, 5, 9]),
        ((5, 7, 9, 7), [4, 6, 9, 7]),
        (("5.5", " 6 ", "1e1", "20.25"), [4.5, 5, 10, 20.25]),
        ((1, 1, 60, 40), [0, 0, 60, 40]),
    ],
)
def test_corners_count_from_one(tmp_path: Path, values: tuple, box: list[float]) -> None:
    data = data_of(with_object(tmp_path, corners(*values)))
    assert read(data) == {"a.jpg": [[*box, "cat"]]}
    assert counts(data) == {}


@pytest.mark.parametrize(
    ("inner", "rule"),
    [
        ("", "malformed box"),
        ("<bndbox><xmin>1</xmin></bndbox>", "malformed box"),
        (corners("a", 1, 2, 3), "malformed box"),
        (corners("nan", 1, 20, 30), "malformed box"),
        (corners(9, 5, 5, 9), "degenerate box"),
        (corners(70, 5, 90, 9), "box outside the image"),
        (corners(0, 5, 20, 9), "corner at 0"),
        (corners(2, 5, 20, 9) + "<difficult>perhaps</difficult>", "unclear flag"),
    ],
)
def test_odd_objects_are_counted(tmp_path: Path, inner: str, rule: str) -> None:
    assert counts(data_of(with_object(tmp_path, inner)))[rule] == 1


@pytest.mark.parametrize("value", ["1", " 1 ", "True", "true", "yes", "1.0"])
def test_difficult_however_written(tmp_path: Path, value: str) -> None:
    data = data_of(with_object(tmp_path, corners(5, 5, 30, 30) + f"<difficult>{value}</difficult>"))
    data.required = ()
    assert data.records("train")[0].difficult.tolist() == [True]


@pytest.mark.parametrize("value", ["0", "False", "no", "", "Unspecified"])
def test_not_difficult_however_written(tmp_path: Path, value: str) -> None:
    data = data_of(with_object(tmp_path, corners(5, 5, 30, 30) + f"<difficult>{value}</difficult>"))
    data.required = ()
    assert data.records("train")[0].difficult.tolist() == [False]
    assert counts(data) == {}


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size><width/></size>"])
def test_a_size_that_is_not_given_is_the_image_s(tmp_path: Path, size: str) -> None:
    data = data_of(with_object(tmp_path, corners(5, 5, 30, 30), size))
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {}


def test_repeated_objects_are_counted_and_one_kept(tmp_path: Path) -> None:
    root = make(tmp_path, ["a"], "a\n")
    voc_xml(root / "Annotations" / "a.xml", [*CAT, *CAT, ("dog", (5, 5, 30, 30))])
    data = data_of(root)
    assert read(data) == {"a.jpg": [*BOX, [4, 4, 30, 30, "dog"]]}
    assert counts(data) == {"duplicate box": 1}


def test_names_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.names names two classes 'cat'"):
        data_of(make(tmp_path, ["a"], "a\n"), names=["cat", "dog", "cat"])


def test_images_and_annotations_without_lists(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.jpg")
    for name in ("a", "b"):
        voc_xml(tmp_path / "annotations" / f"{name}.xml", CAT)
    for options in ({}, {"images": "images", "annotations": "annotations"}):
        data = data_of(tmp_path, **options)
        assert read(data) == {"a.jpg": BOX, "b.jpg": BOX}
        assert counts(data) == {"missing annotation": 1}
        assert "c.jpg has no XML file" in str(data.report)
        assert any("all 2 annotations" in note for note in data.notes)


def test_images_beside_their_annotations(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    voc_xml(tmp_path / "a.xml", CAT)
    assert read(data_of(tmp_path)) == {"a.jpg": BOX}


@pytest.mark.parametrize("places", [("{}", "{}"), ("images/{}", "annotations/{}")])
def test_splits_in_folders(tmp_path: Path, places: tuple[str, str]) -> None:
    for folder in ("train", "valid", "test"):
        picture(tmp_path / places[0].format(folder) / f"{folder}.jpg")
        voc_xml(tmp_path / places[1].format(folder) / f"{folder}.xml", CAT)
    data = data_of(tmp_path)
    assert [read(data, split) for split in ("train", "val", "test")] == [
        {"train.jpg": BOX},
        {"valid.jpg": BOX},
        {"test.jpg": BOX},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "pictures"}, "data.images=pictures is not a folder of .*; it has Annotations, ImageSets, JPEG"),
        ({"annotations": "xmls"}, "data.annotations=xmls is not a folder"),
        ({"images": "../other"}, "data.images=../other leaves .*data.outside_root=true"),
        ({"sets": {"train": "nothing"}}, "data.sets.train=nothing has no list .*it has train"),
        ({"sets": {"train": "../../../other"}}, "has no list"),
    ],
)
def test_folders_that_are_not_there(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=message):
        data_of(make(tmp_path / "root", ["a"], "a\n"), **options).setup()


def test_a_whole_set_of_broken_files_names_the_largest_loss(tmp_path: Path) -> None:
    root = make(tmp_path, ["a", "b"], "a\nb\n")
    for name in "ab":
        (root / "Annotations" / f"{name}.xml").write_text("")
    with pytest.raises(DataError, match=r"largest loss is 'broken annotation' \(2 in train, such as a.xml is empty"):
        data_of(root).setup()


@pytest.mark.parametrize(("prefix", "given"), [("", "xmlns"), ("v:", "xmlns:v")])
def test_namespaces(tmp_path: Path, prefix: str, given: str) -> None:
    root = make(tmp_path, ["a"], "a\n")
    file = root / "Annotations" / "a.xml"
    text = re.sub(r"(</?)", rf"\1{prefix}", file.read_text())
    file.write_text(text.replace("annotation>", f'annotation {given}="http://x.org/voc">', 1))
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {}


@pytest.mark.parametrize("places", [("{}", "{}"), ("images/{}", "annotations/{}")])
def test_images_of_a_split_folder_without_an_annotation_are_counted(tmp_path: Path, places: tuple[str, str]) -> None:
    for folder in ("train", "valid"):
        for name in ("a", "b", "sub/a"):
            picture(tmp_path / places[0].format(folder) / f"{name}.jpg")
        voc_xml(tmp_path / places[1].format(folder) / "a.xml", CAT)
    data = data_of(tmp_path)
    assert read(data) == read(data, "val") == {"a.jpg": BOX}
    assert data.report.counts("train") == data.report.counts("val") == {"missing annotation": 2}


def test_xml_files_in_capitals_belong_to_their_folder_s_split(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        for name in ("a.xml", "b.XML"):
            picture(tmp_path / folder / f"{name[0]}.jpg")
            voc_xml(tmp_path / folder / name, CAT)
    data = data_of(tmp_path)
    assert read(data) == read(data, "val") == {"a.jpg": BOX, "b.jpg": BOX}


def test_names_with_spaces_and_the_extension_of_xml_files(tmp_path: Path) -> None:
    data = data_of(make(tmp_path, ["img 1", "b"], "img 1.xml\nb.xml\n"))
    assert read(data) == {"img 1.jpg": BOX, "b.jpg": BOX}


def test_a_name_that_ends_in_a_number_is_no_column_of_flags(tmp_path: Path) -> None:
    root = make(tmp_path, ["img 0"], "img 0\n")
    (root / "Annotations" / "img 0.xml").rename(root / "Annotations" / "img 0.XML")
    assert read(data_of(root)) == {"img 0.jpg": BOX}


@pytest.mark.parametrize("gone", ["image", "annotation"])
def test_a_file_of_the_same_name_in_another_folder_is_not_taken(tmp_path: Path, gone: str) -> None:
    root = make(tmp_path, ["sub/a", "a"], "sub/a\na\n")
    (root / ("JPEGImages/sub/a.jpg" if gone == "image" else "Annotations/sub/a.xml")).unlink()
    data = data_of(root)
    assert [item.path for item in _records(data)] == [root / "JPEGImages" / "a.jpg"]
    assert counts(data) == {f"missing {gone}": 1}
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    (root / "ImageSets/Main/val.txt").write_text("sub/a\n")
    assert counts(data_of(root)).get("missing image", 0) == (gone == "image")


def test_the_image_of_a_subfolder_whose_kind_the_annotation_names(tmp_path: Path) -> None:
    root = make(tmp_path, ["sub/a"], "sub/a\n", ".png")
    picture(root / "JPEGImages" / "sub" / "a.bmp")
    file = root / "Annotations" / "sub" / "a.xml"
    file.write_text(file.read_text().replace("a.jpg", "a.png"))
    assert list(read(data_of(root))) == ["a.png"]


def _records(data: DetectionData) -> list:
    data.required = ()
    return data.records("train")


def test_an_image_of_two_lists_with_paths_of_another_machine_stays_in_both(tmp_path: Path) -> None:
    root = make(tmp_path, ["a"], "/home/me/VOC/JPEGImages/a.jpg\n")
    (root / "ImageSets/Main/val.txt").write_text("/home/me/VOC/JPEGImages/a.jpg\n")
    data = data_of(root)
    assert read(data) == read(data, "val") == {"a.jpg": BOX}
    assert counts(data) == {"image also in train": 1}
