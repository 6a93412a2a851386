"""The page in a real browser: no error on the console, no request, tables sort, plots and pictures show, also on a
narrow screen."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from detlab.commands.report import main
from tests.report.folders import write_sweep

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=3000""".split()  # noqa: SIM905
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
PROBE = """<script>
window.addEventListener("load", () => {
  const out = {}, table = document.querySelector("#results"), button = (n) => table.tHead.rows[0].cells[n].firstChild;
  const column = (n) => [...table.tBodies[0].rows].map((r) => r.cells[n].textContent);
  const metric = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "mAP");
  out.before = column(metric);
  button(metric).click(); out.down = column(metric);
  button(metric).click(); out.up = column(metric);
  button(0).click(); out.words = column(0);
  out.plots = [...document.querySelectorAll("svg.plot")].map((s) => s.getBoundingClientRect().width > 200);
  out.pictures = [...document.querySelectorAll("img")].map((i) => i.src.startsWith("data:image/jpeg"));
  out.wide = document.documentElement.scrollWidth > window.innerWidth;
  out.requests = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
  const note = document.createElement("pre"); note.id = "probe"; note.textContent = JSON.stringify(out);
  document.body.append(note);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    assert main([str(folder), "resamples=50"]) == 0
    return folder / "report" / "index.html"


def browse(page: Path, width: int) -> tuple[str, str]:
    """(DOM after scripts, what the console said)."""
    profile = page.parent / f"profile-{page.stem}"
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("width", [1280, 500])  # 500 px: the narrowest window that chromium opens
def test_the_page_works_in_a_browser(page: Path, width: int) -> None:
    probed = page.with_name(f"probed-{width}.html")
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    dom, console = browse(probed, width)
    assert console == ""
    assert '<pre id="probe">' in dom
    out = json.loads(dom.split('<pre id="probe">')[1].split("</pre>")[0])
    assert out["down"] == sorted(out["before"], reverse=True)
    assert out["up"] == sorted(out["before"])
    assert out["words"] == sorted(out["words"], reverse=True)
    assert len(out["plots"]) == 4  # intervals, learning, precision over recall, error shares; none of cost: all equal
    assert all(out["plots"])
    assert out["pictures"] == [True] * 4
    assert out["requests"] == []
    assert not out["wide"], "the page scrolls sideways"


def test_a_broken_script_would_be_seen(page: Path) -> None:
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace('"use strict";', "nonsense();"))
    assert "nonsense is not defined" in browse(broken, 1280)[1]
