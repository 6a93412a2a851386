"""Mutations after which a data set must be refused in one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.data.mutated import coco, csv_tables
from tests.data.mutated.facts import Facts
from tests.data.mutated.shared import Mutation


def refused(name: str, pattern: str, change: Callable[[Facts, random.Random], Any]) -> Mutation:
    """A mutation that makes the data set unusable."""

    def mutation(facts: Facts, draw: random.Random) -> bool:
        if change(facts, draw) is False:
            return False
        facts.refused = pattern
        return True

    mutation.__name__ = name
    return mutation


def _set(**options: Any) -> Callable[[Facts, random.Random], None]:
    return lambda facts, draw: facts.options.update(options)


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Facts, random.Random], None]:
    """Change the document of one COCO file; a value that is returned takes its place."""

    def apply(facts: Facts, draw: random.Random) -> None:
        facts.style["edit"] = {draw.choice(list(facts.splits)): lambda d: change(d) or d}

    return apply


def _json_text(*contents: bytes) -> Callable[[Facts, random.Random], None]:
    def apply(facts: Facts, draw: random.Random) -> None:
        facts.files[coco.json_of(facts, draw.choice(list(facts.splits)))] = draw.choice(contents)

    return apply


def _pop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key) and None


def _twin(document: dict[str, Any]) -> None:
    first = document["categories"][0]
    document["categories"].append(first | {"name": first["name"] + " too"})


def _namesake(document: dict[str, Any]) -> None:
    document["categories"].append(document["categories"][0] | {"id": 4444})


COCO: list[Mutation] = [
    refused(
        "json_that_is_none",
        "is not readable as json",
        _json_text(b"", b"{", b'{"images": [1,]}', b"\xff\xd8\xff\xe0", b"[1 2]"),
    ),
    refused(
        "json_of_another_kind",
        "not a COCO object|no list of objects",
        _json_text(b"[]", b"3", b'"x"', b"{}", b'{"images": 3}'),
    ),
    refused("key_twice", "twice in one object", _json_text(b'{"images": [{"id": 1, "id": 2}]}')),
    refused("deep", "nested too deep", _json_text(b"[" * 50_000, b'{"a":' * 50_000)),
    refused("no_annotations", "no list of objects under 'annotations'", _edit(_pop("annotations"))),
    refused(
        "no_categories",
        "names no class|no list of objects under 'categories'",
        _edit(lambda d: d["categories"].clear()),
    ),
    refused("null_row", "no list of objects", _edit(lambda d: d["annotations"].append(None))),
    refused("two_names_of_an_id", "have the same id", _edit(_twin)),
    refused("two_ids_of_a_name", "two categories are named", _edit(_namesake)),
    refused("class_without_name", "needs a name", _edit(lambda d: d["categories"][0].pop("name") and None)),
    refused(
        "class_without_id", "needs a name, and a whole number", _edit(lambda d: d["categories"][0].pop("id") and None)
    ),
    refused("image_without_id", "is no whole number", _edit(lambda d: d["images"][0].update(id=None))),
    refused(
        "no_such_file",
        "is not a file under data.root",
        _set(annotations={"train": "gone.json"}),
    ),
    refused("json_outside", "leaves data.root", _set(annotations={"train": "/etc/passwd"})),
    refused("no_such_folder", "is not a folder of", _set(images={"train": "gone"})),
    refused("no_root", "data.root=.* is not a folder", _set(root="gone")),
]


def _xml(change: Callable[[str], str]) -> Callable[[Facts, random.Random], bool]:
    """Change the text of one annotation of a VOC folder."""

    def apply(facts: Facts, draw: random.Random) -> bool:
        free = [p for _, p in facts.photos() if "text" not in p.written]
        if free:
            draw.choice(free).written["text"] = lambda text: change(text).encode()
        return bool(free)

    return apply


def _all_broken(facts: Facts, draw: random.Random) -> bool:
    if "names" in facts.options:
        return False
    for _, photo in facts.photos():
        photo.written["text"] = lambda text: b"<annotation>"
    return True


def _nothing(facts: Facts, draw: random.Random) -> None:
    for _, photo in facts.photos():
        photo.written["text"] = lambda text: None
    facts.options.pop("sets", None)
    facts.layout = "no lists"


VOC: list[Mutation] = [
    refused("nothing_annotated", "has no annotations|No object is annotated|is not a folder", _nothing),
    refused("all_broken", r"No object is annotated .*'broken annotation'|has no usable image", _all_broken),
    refused("dtd", "declares a DTD", _xml(lambda text: '<!DOCTYPE annotation [<!ENTITY a "b">]>' + text)),
    refused("no_such_list", "has no list ImageSets/Main/gone.txt", _set(sets={"train": "gone"})),
    refused("list_outside", "has no list", _set(sets={"train": "../../../gone"})),
    refused("no_lists_wanted", "data.sets names no list", _set(sets={"train": None, "val": None})),
    refused("no_such_folder", "data.images=gone is not a folder", _set(images="gone")),
    refused("no_such_notes", "data.annotations=gone is not a folder", _set(annotations="gone")),
    refused("folder_outside", "leaves .*data.outside_root=true", _set(images="..")),
    refused("names_twice", "data.names names two classes 'cat'", _set(names=["cat", "dog", " cat"])),
    refused("no_root", "data.root=.* is not a folder", _set(root="gone")),
]


def _yaml(*lines: str) -> Callable[[Facts, random.Random], None]:
    def apply(facts: Facts, draw: random.Random) -> None:
        facts.files["data.yaml"] = draw.choice(lines).encode()
        facts.options["root"] = draw.choice(("", "data.yaml"))

    return apply


def _names_file(facts: Facts, draw: random.Random) -> None:
    facts.files |= {"data.yaml": b"train: .\nnames: names.txt\n", "names.txt": b"cat\r\n\r\ndog\r\n"}


def _no_labels(facts: Facts, draw: random.Random) -> None:
    for _, photo in facts.photos():
        facts.removed.append(photo.written["label"])


YOLO: list[Mutation] = [
    refused(
        "yaml_that_is_none",
        "is not readable YAML",
        _yaml("names: [cat\n", "names: {0: cat\n", "train: a: b\n", "\t- x: ?\n  y"),
    ),
    refused("yaml_of_another_kind", "holds no keys", _yaml("[1, 2]\n", "cat\n", "", "# nothing\n", "---\n")),
    refused("alias", "uses an alias", _yaml("train: &a images/train\nval: *a\nnames: [cat]\n")),
    refused(
        "key_twice",
        "twice in one mapping",
        _yaml("names: [cat]\ntrain: x\nnames: [dog]\n", "names: {0: a, 0: b}\ntrain: x\n"),
    ),
    refused("python", "tag .* is not allowed", _yaml("names: !!python/object/apply:os.system [ls]\ntrain: x\n")),
    refused(
        "no_names",
        "'names'",
        _yaml("train: .\n", "train: .\nnames: []\n", "train: .\nnames: 3\n", "train: .\nnames: [[a]]\n"),
    ),
    refused(
        "names_twice",
        "names two classes 'cat'",
        _yaml("train: .\nnames: [cat, dog, cat]\n", "train: .\nnames: [cat, ' cat']\n"),
    ),
    refused(
        "name_missing", "has no name", _yaml("train: .\nnames: [cat, '']\n", "train: .\nnames:\n- cat\n- \n- dog\n")
    ),
    refused("name_missing_in_a_file", "class 1 has no name", _names_file),
    refused("another_count", "'nc' is 3, but 'names' has 1", _yaml("train: .\nnames: [cat]\nnc: 3\n")),
    refused("one_number_twice", "one number to two classes", _yaml("train: .\nnames: {0: cat, 00: dog}\n")),
    refused("no_splits", "has no 'train'", _yaml("names: [cat]\n", "names: [cat]\ntrain:\nval: null\n")),
    refused(
        "no_such_entry",
        "neither a folder nor a list",
        _yaml("names: [cat]\ntrain: gone\n", "names: [cat]\ntrain: {a: b}\n"),
    ),
    refused(
        "entry_outside",
        "leaves .*data.outside_root=true",
        _yaml("names: [cat]\ntrain: ../../../gone\n", "names: [cat]\ntrain: /etc\n"),
    ),
    refused(
        "no_key_points",
        "kpt_shape must be",
        _yaml("names: [cat]\ntrain: .\nkpt_shape: [17]\n", "names: [cat]\ntrain: .\nkpt_shape: x\n"),
    ),
    refused("no_root", "data.root=.* is neither", _set(root="gone")),
    refused(
        "no_labels", "None of the .* has a label file|has no usable image|data.labels=.* is not a folder", _no_labels
    ),
]


def _table(*contents: bytes) -> Callable[[Facts, random.Random], None]:
    def apply(facts: Facts, draw: random.Random) -> None:
        facts.files[csv_tables.table_of(facts, draw.choice(list(facts.splits)))] = draw.choice(contents)

    return apply


def _no_tables(facts: Facts, draw: random.Random) -> bool:
    if "root" in facts.options:
        return False
    facts.removed += [csv_tables.table_of(facts, split) for split in facts.splits]
    return True


CSV: list[Mutation] = [
    refused("table_that_is_empty", "is empty", _table(b"", b"\n \n", b"\xef\xbb\xbf")),
    refused(
        "titles_missing",
        "has the columns .*; it needs the titles filename, class",
        _table(b"filename,class\na.png,cat\n", b"a.png cat 1 2 3 4\n", b"a.png,cat,1,2,3,4\n", b"{}"),
    ),
    refused(
        "shares_of_a_corner_or_centre",
        "may be a corner or the centre",
        _table(b"path;x;y;w;h;class\na;,1;,1;,5;,5;b\n"),
    ),
    refused(
        "split_of_another_name",
        "split 'holdout', which is not",
        _table(b"path,x,y,w,h,class,set\na,1,1,9,9,b,holdout\n"),
    ),
    refused("endless_quote", "field larger than", _table(b'path,x,y,w,h,class\n"' + b"a" * 200_000)),
    refused("no_tables", "data.annotations names no file|is not a file under", _no_tables),
    refused("no_such_file", "is not a file under data.root", _set(root="", annotations={"train": "gone.csv"})),
    refused("table_outside", "leaves data.root", _set(root="", annotations={"train": "/etc/passwd"})),
    refused("no_such_folder", "data.images=gone is not a folder", _set(images="gone")),
    refused("folder_outside", "leaves .*data.outside_root=true", _set(images="..")),
    refused("names_twice", "data.names names two classes 'cat'", _set(names=["cat", "dog", " cat"])),
    refused("no_root", "data.root=.* is not a folder", _set(root="gone")),
]


def _no_train(facts: Facts, draw: random.Random) -> bool:
    """No image of train can be read; `detlab data` shows that, training refuses it."""
    if "in_train_too" in facts.done:
        return False  # the file is another photo's, too
    facts.training = True
    for photo in facts.splits["train"]:
        photo.content = b"no image"
    return True


FOR_ALL = [refused("nothing_to_train_on", "^The train split has no usable image|^No object is|^None of the", _no_train)]
OF = {kind: [*own, *FOR_ALL] for kind, own in {"coco": COCO, "csv": CSV, "voc": VOC, "yolo": YOLO}.items()}
