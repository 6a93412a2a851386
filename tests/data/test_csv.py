"""Tables of boxes: columns by name in any order, other separators, splits, and what cannot be read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from detlab.data.datamodule import DetectionData
from detlab.data.formats.csv_boxes import csv_boxes
from detlab.data.formats.voc import voc
from detlab.errors import DataError
from tests.data.writing import counts, picture, read

AUTO = dict.fromkeys(("train", "val", "test"), "auto")
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
BOX = [[4, 5, 24, 15, "cat"]]


def data_of(root: Path, **options: Any) -> DetectionData:
    given = {"root": str(root), "annotations": AUTO, "size": 40, "cache_dir": None, "val_fraction": 0.0}
    return csv_boxes(**(given | options))


def write(root: Path, text: str | bytes, name: str = "annotations.csv") -> Path:
    picture(root / "images" / "a.png")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a.png,60,40,cat,4,5,24,15\n",
        "\ufeff" + HEADER.replace("\n", "\r\n") + "a.png,60,40,cat,4,5,24,15\r\n\r\n",
        (HEADER + "a.png,60,40,cat,4,5,24,15\n").encode("utf-16"),
        "class,ymax,xmax,ymin,xmin,filename\ncat,15,24,5,4,a.png\n",
        "image_path,x1,y1,x2,y2,label\nimages/a.png,4.0,5.0,24.0,15.0,cat\n",
        "sep=;\r\nfilename;class;xmin;ymin;xmax;ymax\r\na.png;cat;4,0;5;24;15\r\n",  # Excel's
        '"sep=,"\nfilename,class,xmin,ymin,xmax,ymax\na.png,cat,4,5,24,15\n',
        "sep=\t\nfilename\tclass\txmin\tymin\txmax\tymax\na.png\tcat\t4\t5\t24\t15\n",
        "Image Name;X Min;Y Min;X Max;Y Max;Class Name\na.png;4,0;5,0;24,0;15,0;cat\n",
        "filename\tleft\ttop\tright\tbottom\tlabel\na.png\t4\t5\t24\t15\tcat\n",
        "filename,x,y,w,h,label\na.png,4,5,20,10,cat\n",
        'file,xmin,ymin,xmax,ymax,class\n"a.png","4","5","24","15"," cat "\n',
        "a.png,4,5,24,15,cat\n",
        "C:\\me\\images\\a.png,4,5,24,15,cat\n",
        "me,too/a.png;4,0;5,0;24,0;15,0;cat\n",  # as many commas as semicolons
        HEADER + "a.png,60,40,cat,4,5,24,15\n" + HEADER + ",,,,,,,\na.png,60,40,NA,NA,NA,NA,NA\n",
        "filename,x,y,width,height,label\na.png,4,5,20,10,cat\n",
        ",path,left,top,width,height,class\n0,a.png,4,5,20,10,cat\n",
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\ncat,4,5,20,10,a.png,60,40\n",
        "image|x_center|y_center|width|height|name\na.png|14|10|20|10|cat\n",
        "ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0.0666666666667,0.4,0.125,0.375\n",
        "filename,cx,cy,w,h,label\na.png,0.233333333333,0.25,0.333333333333,0.25,cat\n",
        "TRAIN,gs://bucket/images/a.png,cat,0.0666666666667,0.125,,,0.4,0.375,,\n",
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, text: str | bytes) -> None:
    data = data_of(write(tmp_path, text))
    assert {name: [[*map(round, box[:4]), box[4]] for box in boxes] for name, boxes in read(data).items()} == {
        "a.png": BOX
    }
    assert data.class_names == ("cat",)


def test_regions_of_vgg_image_annotator(tmp_path: Path) -> None:
    shapes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "rect", "x": 4, "y": 5, "width": 20, "height": 10}, {"label": "cat"}),
        ({"name": "polygon", "all_points_x": [4, 24, 9], "all_points_y": [30, 6, 9]}, {"size": "big", "Class": "dog"}),
        ({"name": "circle", "cx": 30, "cy": 20, "r": 5}, {"kind": {"cat": False, "dog": True}}),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 5, "ry": 2.5}, {"kind": "dog"}),
        ({"name": "rect", "x": 4, "y": None, "width": 20, "height": 10}, {"label": "cat"}),
    ]
    rows = [["a.png", "9", "{}", "4", str(i), json.dumps(s), json.dumps(a)] for i, (s, a) in enumerate(shapes)]
    rows.append(["b.png", "9", "{}", "0", "0", "{}", "{}"])
    rows.append(["b.png", "9", "{}", "0", "0", "[no json", "{}"])
    titles = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    with (tmp_path / "via.csv").open("w", newline="") as file:
        csv.writer(file).writerows([titles.split(","), *rows])
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    data = data_of(tmp_path)
    dogs = [[4, 6, 24, 30, "dog"], [25, 15, 35, 25, "dog"], [25, 17.5, 35, 22.5, "dog"]]
    assert read(data) == {"a.png": [*BOX, *dogs], "b.png": []}
    assert counts(data) == {"malformed box": 2, "image without boxes": 1}


def test_one_based_corners(tmp_path: Path) -> None:
    root = write(tmp_path, HEADER + "a.png,60,40,cat,5,6,24,15\n")
    assert read(data_of(root, one_based=True)) == {"a.png": BOX}
    assert read(data_of(root / "annotations.csv", one_based=True)) == {"a.png": BOX}


def test_images_without_boxes_and_rows_that_are_none(tmp_path: Path) -> None:
    rows = "a.png,60,40,cat,4,5,24,15\n" * 2 + "b.png,60,40,,,,,\na.png,60,40,cat,x,5,24,15\na.png,60,40,cat,4\n"
    root = write(tmp_path, HEADER + rows)
    picture(root / "images" / "b.png")
    data = data_of(root)
    assert read(data) == {"a.png": BOX, "b.png": []}
    assert counts(data) == {"duplicate box": 1, "malformed box": 2, "image without boxes": 1}


NEXT = [[3, 4, 20, 30, "dog"]]
NONE = {"image without boxes": 1}


@pytest.mark.parametrize(
    ("row", "boxes", "found"),
    [
        ("a.png,60,40,cat,4,5,24,15,\n", BOX, {}),
        ("a.png,60,40,dog,4\na.png,60,40,dog\n", [], {"malformed box": 2} | NONE),
        ("a.png,60,40,big,cat,4,5,24,15\n", [], {"malformed box": 1} | NONE),
        ("a.png,60,40,cat,3,4,5,24,15\n", [], {"malformed box": 1} | NONE),
        ('a.png,60,40,"cat,4,5,24,15\n', [], {"malformed box": 1} | NONE),
        ('a.png,"60,40,cat\na.png,60,40,cat,"4,5,24,15\n', [], {"malformed box": 2} | NONE),
        ('a.png,60,40,"cat,1\na.png,60,40,"dog",4,5,2,1\n', [], {"malformed box": 1, "degenerate box": 1} | NONE),
        ('a.png,60,40,"ca\n\nt",4,5,24,15\n', [[4, 5, 24, 15, "ca\\nt"]], {}),
        ('a.png,60,40,"ca\nt",4,5,24,15,\n', [[4, 5, 24, 15, "ca\\nt"]], {}),  # and a separator at the end
        ('a.png,60,40,cat,"4,5\na.png,60,40,cat",4,5,24,15\n', [[4, 5, 24, 15, 'cat"']], {"malformed box": 1}),
        ('a.png,60,40,3" cat,4,5,24,15\n', [[4, 5, 24, 15, '3" cat']], {}),
        ("a.png,60,40,c\u2028a\x85t,4,5,24,15\n", [[4, 5, 24, 15, "c\\u2028a\\x85t"]], {}),
    ],
)
def test_a_broken_row_takes_no_other_with_it(
    tmp_path: Path, row: str, boxes: list[list[Any]], found: dict[str, int]
) -> None:
    """Commas and quotes that nobody closed; a row of too many cells would be a box at another place."""
    root = write(tmp_path, HEADER + row + 'b.png,60,40,"dog",3,4,20,30\n')
    picture(root / "images" / "b.png")
    assert read(data_of(root)) == {"a.png": boxes, "b.png": NEXT}
    assert counts(data_of(root)) == found


def test_a_broken_row_keeps_the_split_of_its_image(tmp_path: Path) -> None:
    """Its column has another place; by the word found there, the table would be refused, or the row be train's."""
    rows = "a.png,cat,4,5,24,15,val\na.png,cat,4,5,24,15,9,val\na.png,dog,4\nb.png,dog,3,4,20,30,train\n"
    root = write(tmp_path, "filename,class,xmin,ymin,xmax,ymax,split\n" + rows)
    picture(root / "images" / "b.png")
    data = data_of(root)
    assert (read(data), read(data, "val")) == ({"b.png": NEXT}, {"a.png": BOX})
    assert data.report.counts("val") == {"malformed box": 2}


def test_shares_with_a_box_far_outside_and_with_the_image_s_size(tmp_path: Path) -> None:
    """One number above 1 must not turn all shares into pixels; a size that is not the image's is counted."""
    rows = "a.png,60,40,cat,0.066666667,0.125,0.4,0.375\n" * 2 + "a.png,60,40,cat,0.2,0.2,20,0.5\n"
    root = write(tmp_path, HEADER + rows + "b.png,61,40,cat,0.2,0.2,0.5,0.5\n")
    picture(root / "images" / "b.png")
    data = data_of(root)
    assert {name: [[*map(round, b[:4]), b[4]] for b in boxes] for name, boxes in read(data).items()} == {
        "a.png": [*BOX, [12, 8, 60, 20, "cat"]]
    }
    assert counts(data) == {
        "duplicate box": 1,
        "box across the border": 1,
        "image size differs from annotation": 1,
    }


def test_rows_of_an_image_that_is_gone_are_not_another_one_s(tmp_path: Path) -> None:
    """sub/a.png is not a.png, which other rows name; ../images/a.png is."""
    rows = "a.png,60,40,cat,4,5,24,15\nsub/a.png,60,40,cat,1,1,9,9\n../images/a.png,60,40,cat,3,4,20,30\n"
    data = data_of(write(tmp_path, HEADER + rows, "data/train_labels.csv"))
    assert read(data) == {"a.png": [*BOX, [3, 4, 20, 30, "cat"]]}
    assert counts(data) == {"missing image": 1}


def test_splits_of_files_and_of_a_column(tmp_path: Path) -> None:
    root = write(tmp_path / "files", HEADER + "a.png,60,40,cat,4,5,24,15\n", "train/_annotations.csv")
    picture(root / "train" / "a.png")
    picture(root / "valid" / "v.png")
    write(root, HEADER + "v.png,60,40,cat,4,5,24,15\n", "valid/_annotations.csv")
    data = data_of(root)
    assert (read(data), read(data, "val")) == ({"a.png": BOX}, {"v.png": BOX})
    text = "split," + HEADER + "train,a.png,60,40,cat,4,5,24,15\nVALIDATION,b.png,60,40,cat,4,5,24,15\n"
    root = write(tmp_path / "column", text)
    picture(root / "images" / "b.png")
    data = data_of(root)
    assert (read(data), read(data, "val")) == ({"a.png": BOX}, {"b.png": BOX})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (
            "filename,class\na.png,cat\n",
            "has the columns filename, class; it needs the titles filename, class",
        ),
        ("filename,x,y,w,h,label\na.png,0.1,0.2,0.4,0.5,cat\n", "x, y, w, h as shares of the image"),
        ("a.png,cat,4,5,24,15\n", "has the columns a.png, cat, 4, 5, 24, 15; it needs the titles"),
        (HEADER + "a.png,60,40,,,,,\n", "annotations.csv has no row with a box and a class"),
        (HEADER + '"' + "a" * 200_000, "field larger than field limit"),
        ("split," + HEADER + "holdout,a.png,60,40,cat,4,5,24,15\n", "a row of the split 'holdout', which is not known"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(write(tmp_path, text)).setup()


def test_unlisted_images_count_as_empty_only_where_the_data_says_so(tmp_path: Path) -> None:
    root = write(tmp_path, HEADER + "a.png,60,40,cat,4,5,24,15\nlost.png,60,40,cat,4,5,24,15\n")
    picture(root / "images" / "b.png")
    picture(root / "elsewhere" / "c.png")
    data = data_of(root)
    assert read(data) == {"a.png": BOX}
    assert counts(data) == {"missing image": 1, "image without a row": 1}
    data = data_of(root, unlisted="empty")
    assert read(data) == {"a.png": BOX, "b.png": []}
    assert counts(data) == {"missing image": 1, "unlisted image": 1, "image without boxes": 1}
    assert len({item.id for item in data.records("train")}) == 2
    assert set(read(data_of(root, unlisted="empty", images="elsewhere"))) == {"c.png"}
    with pytest.raises(DataError, match="data.unlisted=all is not known; use one of ignore, empty"):
        data_of(root, unlisted="all")


def test_images_of_a_split_lie_in_its_folder(tmp_path: Path) -> None:
    """The layout of TensorFlow's tutorials; an unlisted image belongs to the split of its folder."""
    root = tmp_path
    for split in ("train", "test"):
        for name in ("a.png", f"{split}.png", f"un{split}.png"):
            picture(root / "images" / split / name)
        rows = f"a.png,60,40,cat,4,5,24,15\n{split}.png,60,40,cat,4,5,24,15\n"
        (root / f"{split}_labels.csv").write_text(HEADER + rows)
    data = data_of(root, unlisted="empty")
    assert set(read(data)) == {"a.png", "train.png", "untrain.png"}
    assert set(read(data, "test")) == {"a.png", "test.png", "untest.png"}
    assert counts(data) == {"unlisted image": 2, "image without boxes": 2}
    assert data.source.notes == ("data.annotations.train=train_labels.csv", "data.annotations.test=test_labels.csv")


def test_rows_of_one_file_and_their_flags(tmp_path: Path) -> None:
    rows = (
        "a.png,10,4,5,24,15,1,0\nimages/a.png,9,6,5,24,15,0,1\na.png,9,8,5,30,15,maybe,-1\n,9,8,5,24,15,0,0\n"
        "../far.png,9,8,5,24,15,0,0\n"
    )
    data = data_of(write(tmp_path, "filename,class,xmin,ymin,xmax,ymax,iscrowd,difficult\n" + rows))
    assert counts(data) == {
        "crowd box": 1,
        "unclear flag": 2,  # -1 is Open Images' word for unknown
        "annotation without image": 1,
        "image outside the root": 1,
    }
    only = data.records("train")
    assert len(only) == 1
    assert data.class_names == ("9", "10")  # by value
    assert (only[0].labels.tolist(), only[0].crowd.tolist()) == ([1, 0, 0], [True, False, False])
    assert only[0].difficult.tolist() == [False, True, False]


def test_the_audit_is_that_of_other_formats(tmp_path: Path) -> None:
    rows = (
        "a.png,60,40,cat,4,5,24,15\na.png,60,40,cat,30,5,30,15\na.png,60,40,cat,90,5,99,15\na.png,60,40,cat,-9,5,9,9\n"
        "b.png,61,40,cat,4,5,24,15\nbroken.png,60,40,cat,4,5,24,15\n"
    )
    root = write(tmp_path, HEADER + rows)
    picture(root / "images" / "b.png")
    (root / "images" / "broken.png").write_bytes(b"nothing")
    data = data_of(root)
    assert read(data) == {"a.png": [*BOX, [0, 5, 9, 9, "cat"]]}
    assert counts(data) == {
        "degenerate box": 1,
        "box outside the image": 1,
        "box across the border": 1,
        "image size differs from annotation": 1,
        "unreadable image": 1,
    }
    with pytest.raises(DataError, match="data.on_error=drop"):
        data_of(root, on_error="raise").setup()


def test_shares_are_drawn_where_there_is_one_table(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,60,40,cat,4,5,24,15\n" for i in range(20))
    for i in range(20):
        picture(tmp_path / f"{i}.png")
    (tmp_path / "all.csv").write_text(HEADER + rows)
    data = data_of(tmp_path, val_fraction=0.2, test_fraction=0.1)
    assert [len(data.records(s)) for s in ("train", "val", "test")] == [14, 4, 2]
    for split in ("val", "test"):  # a command that reads one split only finds the same images
        again = data_of(tmp_path, val_fraction=0.2, test_fraction=0.1)
        again.required = (split,)
        assert [r.name for r in again.records(split)] == [r.name for r in data.records(split)]


def test_classes_of_one_s_own(tmp_path: Path) -> None:
    root = write(tmp_path, HEADER + "a.png,60,40,cat,4,5,24,15\na.png,60,40,cow,4,5,9,9\n")
    data = data_of(root, names=["dog", "cat"])
    assert read(data) == {"a.png": BOX}
    assert data.class_names == ("dog", "cat")
    assert counts(data) == {"unknown class": 1, "class without boxes": 1}


def test_paths_that_leave_the_root(tmp_path: Path) -> None:
    write(tmp_path / "other", HEADER + "a.png,60,40,cat,4,5,24,15\n")
    root = tmp_path / "root"
    root.mkdir()
    given = {"train": "../other/annotations.csv", "val": None, "test": None}
    with pytest.raises(DataError, match=r"leaves data\.root=.*; set data\.outside_root=true"):
        data_of(root, annotations=given).setup()
    assert read(data_of(root, annotations=given, outside_root=True)) == {"a.png": BOX}
    for images, message in (("../other", "leaves"), ("nope", "is not a folder of")):
        (root / "train.csv").write_text(HEADER + "a.png,60,40,cat,4,5,24,15\n")
        with pytest.raises(DataError, match=f"data.images={images} {message}"):
            data_of(root, images=images).setup()
    with pytest.raises(DataError, match=r"data\.annotations\.train=none\.csv is not a file under"):
        data_of(root, annotations="none.csv").setup()


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.annotations\.train=FILE\.csv"):
        data_of(tmp_path).setup()


def test_the_real_photographs_as_a_table(bccd_root: Path, tmp_path: Path) -> None:
    """The VOC files of BCCD as TensorFlow's tutorials write them: the same boxes, classes and dirt as by data=voc."""
    rows = []
    for path in sorted((bccd_root / "Annotations").glob("*.xml"))[280:330]:  # with two boxes without area
        root = ElementTree.parse(path).getroot()
        width, height = root.findtext("size/width"), root.findtext("size/height")
        for item in root.iter("object"):
            box = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
            rows.append(f"{path.stem}.jpg,{width},{height},{item.findtext('name')},{','.join(map(str, box))}\n")
    (tmp_path / "blood.csv").write_text(HEADER + "".join(rows))
    images = str(bccd_root / "JPEGImages")
    table = data_of(tmp_path, images=images, outside_root=True, one_based=True, check_images="header")
    folders = voc(root=str(bccd_root), sets=AUTO, size=40, cache_dir=None, val_fraction=0.0, check_images="header")
    read_by_table = read(table)
    read_by_folder = {name: boxes for split in AUTO for name, boxes in read(folders, split).items()}
    assert len(read_by_table) == 50
    assert {name: read_by_folder[name] for name in read_by_table} == read_by_table
    assert table.class_names == folders.class_names
    from_zero = data_of(tmp_path, images=images, outside_root=True, check_images="header")
    assert counts(from_zero)["degenerate box"] == 2  # a single pixel as VOC counts, which has no area from 0
