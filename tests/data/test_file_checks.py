"""Headers of JPEGs read without Pillow, and the cache of checks: what it keeps, and what it does not trust."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detlab.data import file_checks
from detlab.data.file_checks import ROW, FactsCache, Unusable, facts_of
from detlab.data.images import ImageError, ImageFacts, inspect
from detlab.data.jpeg_header import plain_jpeg_facts

FACT = ImageFacts((3, 4), (4, 3), "I;16", True, True)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_headers_are_read_as_pillow_reads_them_or_not_at_all(tmp_path: Path, mode: str) -> None:
    file, rng, read = tmp_path / "x.jpg", random.Random(0), 0
    for options in ({}, {"progressive": True}, {"icc_profile": b"x" * 99}, {"dpi": (2, 3)}, {"comment": b"x"}):
        buffer = io.BytesIO()
        PHOTO.convert(mode).save(buffer, "JPEG", **options)
        for number in range(40):
            data = bytearray(buffer.getvalue())
            for _ in range(min(number, rng.randint(1, 3))):
                data[rng.randrange(min(len(data), 700))] = rng.randrange(256)
            file.write_bytes(data[: rng.randrange(len(data))] if number % 5 == 4 else data)
            found = plain_jpeg_facts(str(file), 10_000)
            read += found is not None
            assert found is None or found == inspect(file, decode=False)
    assert (read > 50) == (mode != "CMYK")


def test_a_header_is_not_read_through_the_limit_of_pixels(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "x.jpg")
    assert plain_jpeg_facts(str(tmp_path / "x.jpg"), 20 * 31 - 1) is None
    with pytest.raises(ImageError, match=r"more than data\.max_pixels=619"):
        inspect(tmp_path / "x.jpg", decode=False, max_pixels=20 * 31 - 1)


def test_rows_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    cache = FactsCache(tmp_path, True, 100)
    keys = [bytes([i]) * 16 for i in range(3)]
    for key in keys:
        cache.put(key, FACT)
    cache.append()
    assert [FactsCache(tmp_path, True, 100).get(key) for key in keys] == [FACT] * 3
    assert FactsCache(tmp_path, False, 100).get(keys[0]) is None
    assert cache.path is not None
    data = bytearray(cache.path.read_bytes())
    data[ROW.size + 20] ^= 1
    cache.path.write_bytes(data[:-5])  # as a process leaves it that is killed while it writes
    torn = FactsCache(tmp_path, True, 100)
    assert [torn.get(key) for key in keys] == [FACT, None, None]
    torn.put(keys[2], FACT)
    torn.append()
    assert [FactsCache(tmp_path, True, 100).get(key) for key in keys] == [FACT, None, FACT]


def test_an_interrupted_check_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str | None] = []
    for i in range(200):
        paths.append(str(tmp_path / f"{i}.png"))
        PHOTO.save(paths[-1])  # type: ignore[arg-type]
    looked: list[Path] = []

    def stopping(path: Path, *, decode: bool, max_pixels: int) -> ImageFacts:
        looked.append(path)
        if len(looked) == 150:
            raise KeyboardInterrupt
        return inspect(path, decode=decode, max_pixels=max_pixels)

    options = {"decode": True, "max_pixels": 10_000, "cache_dir": tmp_path / "cache", "title": "train"}
    monkeypatch.setattr(file_checks, "inspect", stopping)
    monkeypatch.setattr(file_checks, "_threads", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        facts_of(paths, **options)
    before = len(looked)
    facts = facts_of([*paths, None, str(tmp_path / "gone.png")], **options)
    assert len(looked) - before < 200 - 100
    assert facts == [ImageFacts((20, 31), (20, 31), "RGB", False)] * 200 + [None, Unusable("missing image")]


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "x.png")
    (tmp_path / "x.jpg").write_bytes(b"no image")
    paths = [str(tmp_path / "x.png"), str(tmp_path / "x.jpg"), str(tmp_path)]
    found = facts_of(paths, decode=False, max_pixels=10_000, cache_dir=None, title="train")
    assert isinstance(found[0], ImageFacts)
    assert [fact.rule for fact in found[1:] if isinstance(fact, Unusable)] == ["unreadable image"] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.jpg", "x.png"]


@pytest.mark.parametrize(
    ("waits", "decode", "alone"), [(False, False, range(320)), (True, False, range(64)), (False, True, ())]
)
def test_threads_are_used_where_they_help(
    monkeypatch: pytest.MonkeyPatch, waits: bool, decode: bool, alone: Sequence[int]
) -> None:
    """Not while headers are read from memory; facts come in the order of the files in any case."""
    seen = {}

    def one(self: object, path: str) -> Unusable:
        time.sleep(0.001 if waits else 0)
        seen[int(path)] = threading.current_thread() is threading.main_thread()
        return Unusable(path)

    monkeypatch.setattr(file_checks._Looker, "_one", one)
    monkeypatch.setattr(file_checks, "WAITING_S", 0.01 if waits else 10.0)
    facts = facts_of([str(i) for i in range(320)], decode=decode, max_pixels=9, cache_dir=None, title="train")
    assert [fact.rule for fact in facts if isinstance(fact, Unusable)] == [str(i) for i in range(320)]
    assert [i for i in range(320) if seen[i]] == list(alone)
