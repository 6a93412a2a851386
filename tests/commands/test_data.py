"""detlab data: tables of images, boxes and sizes, the sheet of pictures, and the page in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detlab.commands.data import look
from detlab.config.compose import compose_config, plain_config
from detlab.data.counts import by_class, by_size, chosen, without_boxes
from detlab.drawing.pictures import PALETTE
from tests.data.writing import picture
from tests.report.test_page import BROWSER, browse

EVIL = "</script><img src=x onerror=alert(1)>"
PROBE = """<script>
window.addEventListener("load", () => {
  const out = {}, shown = () => [...document.querySelectorAll("figure")].filter((f) => !f.hidden)
    .map((f) => f.querySelector("img").alt.split("/").pop());
  const set = (values) => {
    for (const select of document.querySelectorAll("select")) {
      select.value = values[select.name] ?? "";
      select.dispatchEvent(new Event("change"));
    }
    return shown();
  };
  out.all = set({});
  out.dog = set({ class: "2" });
  out.faint = document.querySelectorAll("figure:not([hidden]) rect.other").length;
  out.large = set({ size: "2" });
  out.largeDog = set({ class: "2", size: "2" });
  out.empty = set({ class: "none" });
  out.val = set({ split: "val" });
  out.clean = set({ dirt: "clean" });
  out.clipped = set({ dirt: "=box across the border" });
  out.wrong = [...document.querySelectorAll("select")].filter((s) => s.selectedIndex < 0).length;
  out.options = [...document.querySelectorAll("select[name=class] option")].map((o) => o.textContent);
  out.images = [...document.querySelectorAll("img")].map((i) => i.naturalWidth);
  out.wide = document.documentElement.scrollWidth > window.innerWidth;
  out.requests = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
  const note = document.createElement("pre"); note.id = "probe"; note.textContent = JSON.stringify(out);
  document.body.append(note);
});
</script>"""
ROWS = [
    "a.png,cat,4,5,24,15,train",
    "a.png,dog,0,0,60,40,train",
    "b.png,dog,-9,5,24,15,train",
    "c.png,cat,4,5,24,15,val",
    f"c.png,{EVIL},4,15,24,35,val",
    "d.png,,,,,,train",
]


def config_of(out: Path, *overrides: str) -> dict[str, Any]:
    return plain_config(compose_config("data", [f"paths.run_dir={out}", "name=x", "data.cache_dir=null", *overrides]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in "abcd":
        picture(folder / f"{name}.png", (40, 60))
    picture(folder / "d.png", (40, 60), mode="L")
    (folder / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax,split\n" + "\n".join(ROWS))
    return folder


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    look(config_of(root / "out", "data=csv", f"data.root={root}", "data.size=160"))
    return root / "out" / "data.html"


def test_the_command_prints_its_tables_and_its_folder_last(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = look(config_of(tmp_path, "data=csv", f"data.root={root}", "data.size=160", "model=retinanet", "pictures=0"))
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"results     {tmp_path}"
    assert list(tmp_path.iterdir()) == []
    assert "seen: by the network, shorter side 160 px, at most 1333" in " ".join(said.split())
    assert re.search(r"has sizes from 32 to 813 px; 0\.0% of the boxes are smaller than half the smallest", said)
    rows = {row.name: row for row in by_class(data)}
    assert rows["all"].images == {"train": 3, "val": 1}
    assert rows["all"].boxes == {"train": 3, "val": 2}
    assert rows["dog"].images == {"train": 2, "val": 0}
    assert rows[EVIL].boxes == {"train": 0, "val": 1}
    assert without_boxes(data) == {"train": 1, "val": 0}
    sizes = {row.name: row for row in by_size(data)}
    assert sizes["dog"].original == (1, 1, 0)  # 24 x 10 px, and 60 x 40
    assert sizes["dog"].seen == (0, 1, 1)  # four times as long
    assert sizes["cat"].sides == pytest.approx((4 * 200**0.5,) * 3)
    assert sizes["all"].original == (4, 1, 0)


def test_families_without_anchors_and_with_scales_refer_to_detlab_anchors(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look(config_of(tmp_path, "data=csv", f"data.root={root}", "model=ssd", "pictures=0"))
    said = capsys.readouterr().out
    assert "anchors     detlab anchors model=x data=... measures how well" in said
    assert "warp 800 x 800 px" in " ".join(said.split())  # the family's own way
    look(config_of(tmp_path, "data=csv", f"data.root={root}", "model=rcnn", "pictures=0"))
    assert "anchors  " not in capsys.readouterr().out


def test_the_sheet_shows_every_split_and_class(page: Path) -> None:
    sheet = np.asarray(Image.open(page.with_name("data_sheet.png"))).astype(int)
    assert sheet.shape[1] == 4 * (400 + 6)
    for colour in PALETTE[:3]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(sheet - wanted) < 3).all(axis=2).sum() > 100


def test_the_page_needs_nothing_else_and_escapes_names(page: Path) -> None:
    text = page.read_text()
    assert text.count("</script>") == 2
    assert "<img src=x" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    content = json.loads(re.search(r'id="content">(.*?)</script>', text)[1])
    assert content["classes"] == [EVIL, "cat", "dog"]
    assert [p["file"] for p in content["pictures"]] == ["a.png", "b.png", "d.png", "c.png"]
    assert [p["dirt"] for p in content["pictures"]] == [
        [],
        ["box across the border"],
        ["grayscale image", "image without boxes"],
        [],
    ]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 500])  # 500 px: the narrowest window that chromium opens
def test_the_page_filters_in_a_browser(page: Path, width: int) -> None:
    probed = page.with_name(f"probed-{width}.html")
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    dom, console = browse(probed, width)
    assert console == ""
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    out = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">"))
    assert out["all"] == ["a.png", "b.png", "d.png", "c.png"]
    assert out["dog"] == ["a.png", "b.png"]
    assert out["faint"] == 1  # the cat of a.png
    assert out["large"] == out["largeDog"] == ["a.png"]
    assert out["empty"] == ["d.png"]
    assert out["val"] == ["c.png"]
    assert out["clean"] == ["a.png", "c.png"]
    assert out["clipped"] == ["b.png"]
    assert out["wrong"] == 0
    assert out["options"] == ["any", EVIL, "cat", "dog", "(no box)"]
    assert out["images"] == [60] * 4
    assert out["wide"] is False
    assert out["requests"] == []


def test_of_many_images_some_of_every_kind_are_chosen(tmp_path: Path) -> None:
    rows = ["filename,class,xmin,ymin,xmax,ymax\n"]
    for i in range(60):
        picture(tmp_path / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{'rare' if i == 37 else 'common'},4,5,24,{90 if i == 11 else 15}\n")
    (tmp_path / "boxes.csv").write_text("".join(rows))
    data = look(
        config_of(tmp_path / "out", "data=csv", f"data.root={tmp_path}", "data.val_fraction=0.2", "pictures=10")
    )
    picked = chosen(data, 10)
    assert len(picked) == 10
    assert [split for split, _ in picked].count("val") == 2
    assert {"37.png", "11.png"} <= {item.name for _, item in picked}
    assert len({item.name for _, item in picked}) == 10
    assert len(chosen(data, 100)) == 60
    content = re.search(r'id="content">(.*?)</script>', (tmp_path / "out" / "data.html").read_text())
    assert len(json.loads(content[1])["pictures"]) == 10
