"""VOC annotations that say one thing twice: counted, and not one of both chosen in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detlab.data.formats.voc import voc
from tests.data.writing import counts, read, simple_voc, voc_xml

BOX = (5, 5, 30, 30)
RIGHT = [[4.0, 4.0, 30.0, 30.0, "cat"]]


def data_of(root: Path) -> Any:
    sets = dict.fromkeys(("train", "val", "test"), "auto")
    return voc(root=str(root), sets=sets, size=40, cache_dir=None)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("</bndbox>", "</bndbox><bndbox><xmin>1</xmin></bndbox>", "malformed box"),
        ("<xmin>", "<xmin>9</xmin><xmin>", "malformed box"),
        ("<xmax>3", "<xmax>3<b/>", "malformed box"),
        ("</name>", "</name><name>dog</name>", "unknown class"),
    ],
)
def test_a_field_that_an_object_has_twice(tmp_path: Path, old: str, new: str, rule: str) -> None:
    file = simple_voc(tmp_path) / "Annotations" / "a.xml"
    voc_xml(file, [("cat", BOX), ("cat", BOX)])
    text = file.read_text()
    assert text.count(old) == 2
    file.write_text(text.replace(old, new, 1))
    assert read(data_of(tmp_path))["a.jpg"] == RIGHT
    assert counts(data_of(tmp_path)) == {rule: 1}


def test_a_file_of_several_images(tmp_path: Path) -> None:
    """Their boxes would all lie on one."""
    file = simple_voc(tmp_path) / "Annotations" / "a.xml"
    text = file.read_text()
    file.write_text(f"<all>{text}</all>")
    assert counts(data_of(tmp_path)) == {}
    file.write_text(f"<all>{text}{text}</all>")
    assert "a.jpg" not in read(data_of(tmp_path))
    assert counts(data_of(tmp_path)) == {"broken annotation": 1, "class without boxes": 1}
