"""Pixels of every kind: deep, float, palette, alpha, CMYK, rotated; scaled or refused, never black."""

from __future__ import annotations

import os
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detlab.commands.predict import find_images
from detlab.data.file_checks import facts_of
from detlab.data.images import ImageError, hush_pillow, inspect, list_images, read_image, suffixes
from detlab.errors import ConfigError
from tests.data.writing import picture

RAMP = np.linspace(0, 1, 64).reshape(8, 8)  # from black to white


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", (RAMP * 65535).astype(np.uint16)),
        ("12bit.png", (RAMP * 4095).astype(np.uint16)),
        ("10bit.tif", (RAMP * 1023).astype(np.uint16)),
        ("8in16.png", (RAMP * 255).astype(np.uint16)),
        ("unit.tif", RAMP.astype(np.float32)),
        ("grey.tif", (RAMP * 255).astype(np.float32)),
        ("any.tif", (RAMP * 4000 - 1000).astype(np.float32)),
        ("small.tif", (RAMP * 2).astype(np.float32)),
        ("whole.tif", (RAMP * 1_000_000).astype(np.int32)),
        ("signed.tif", (RAMP * 2000 - 1000).astype(np.int32)),
    ],
)
def test_deep_greys_keep_their_range(tmp_path: Path, name: str, array: np.ndarray) -> None:
    image = read_image(saved(tmp_path / name, array))
    assert image.shape == (3, 8, 8)
    torch.testing.assert_close(image[1].double(), torch.from_numpy(RAMP * 255), atol=2.0, rtol=0)


def test_floats_that_are_no_numbers_count_as_zero(tmp_path: Path) -> None:
    array = RAMP.astype(np.float32)
    array[0, 0], array[0, 1], array[0, 2] = np.nan, np.inf, -np.inf
    image = read_image(saved(tmp_path / "a.tif", array))
    assert image[0, 0, :3].tolist() == [0, 0, 0]
    assert image.max() == 255


@pytest.mark.parametrize("full", [65535, 4095])
def test_deep_colours_are_read_or_refused(tmp_path: Path, full: int) -> None:
    """Pillow keeps the upper byte: of 12 bits in 16 that is black."""
    values = np.repeat((RAMP * full).astype(">u2")[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    if full == 65535:
        assert read_image(file).float().std() > 50
        inspect(file, decode=True)
        return
    for look in (lambda: read_image(file), lambda: inspect(file, decode=True)):
        with pytest.raises(ImageError, match="12 bits"):
            look()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB"])
def test_other_modes_look_like_their_picture(tmp_path: Path, mode: str) -> None:
    kind = "tif" if mode in ("CMYK", "YCbCr", "LAB", "PA") else "png"
    original = Image.fromarray(np.repeat((RAMP * 255).astype(np.uint8)[..., None], 3, axis=2))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.applyTransform(original, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        converted = original.convert(mode, dither=Image.Dither.NONE)
    converted.save(tmp_path / f"a.{kind}")
    image = read_image(tmp_path / f"a.{kind}").double()
    spread = {"1": 128, "P": 27, "PA": 27}.get(mode, 12)
    assert (image - torch.from_numpy(RAMP * 255)).abs().max() <= spread


def test_ink_on_a_transparent_ground_is_seen(tmp_path: Path) -> None:
    drawing = np.zeros((8, 8, 4), np.uint8)
    drawing[2:4, 2:4, 3] = 255  # black ink, all else transparent
    image = read_image(saved(tmp_path / "ink.png", drawing))
    assert image[0, 2, 2] == 0
    assert image[0, 0, 0] == 255
    light = np.full((8, 8, 4), 200, np.uint8)
    light[0, 0, 3] = 0
    image = read_image(saved(tmp_path / "light.png", light))
    assert image[0, 0, 0] == 0
    light[..., 3] = 0  # transparent everywhere: its colours are the picture
    assert (read_image(saved(tmp_path / "none.png", light)) == 200).all()


def test_of_a_moving_picture_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert inspect(tmp_path / "a.gif", decode=True).several
    assert not inspect(picture(tmp_path / "b.gif"), decode=True).several
    assert read_image(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


def test_many_pictures_in_a_file_are_not_counted(tmp_path: Path) -> None:
    """Pillow counts in quadratic time: 7 seconds for these 1 MB."""
    size = (8, 8)
    tags = [(256, size[1]), (257, size[0]), (258, 8), (259, 1), (262, 1), (273, 8), (279, size[0] * size[1])]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    places = range(8, 8 + 10_000 * (len(entries) + 4), len(entries) + 4)
    chain = b"".join(entries + struct.pack("<I", place) for place in [*places[1:], 0])
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + chain)
    start = time.process_time()
    facts = inspect(tmp_path / "a.tif", decode=True)
    assert (facts.size, facts.several) == (size, True)
    assert time.process_time() < start + 2


def test_pillow_s_warnings_stay_inside(tmp_path: Path) -> None:
    """Also in threads, which may not use `catch_warnings`; others are shown as before."""
    for i in range(40):
        file = picture(tmp_path / f"{i}.tif", compression="tiff_lzw", exif=b"MM\0*\0\0\0\x08\0\x05" + b"\xff" * 20)
        file.write_bytes(file.read_bytes()[:-30])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hush_pillow()
        before = list(warnings.filters)
        paths = [str(path) for path in tmp_path.iterdir()] * 8  # threads take 64 at once
        facts_of(paths, decode=True, max_pixels=10**6, cache_dir=None, title="x")
        assert warnings.filters == before
        warnings.warn("of others", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["of others"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / "a.jpg", size=(16, 24), exif=exif)
    facts = inspect(tmp_path / "a.jpg", decode=True)
    assert facts.rotated == (orientation > 1)
    assert facts.size == ((24, 16) if orientation > 4 else (16, 24))
    assert tuple(read_image(tmp_path / "a.jpg").shape[1:]) == facts.size


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)).resize((61, 47))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "4:4:4": {"subsampling": 0, "quality": 100},
    "4:2:2": {"subsampling": 1, "quality": 30},
    "progressive": {"progressive": True},
    "RGB inside": {"keep_rgb": True},
    "restarts": {"restart_marker_blocks": 2},
    "grey": {"mode": "L"},
    "ink": {"mode": "CMYK"},
    "upside down": {"exif": {0x0112: 3}},
    "on its side": {"exif": {0x0112: 6}},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("rotate", [True, False])
def test_jpegs_have_pillow_s_pixels(tmp_path: Path, name: str, rotate: bool) -> None:
    options = dict(KINDS[name])
    exif = Image.Exif()
    exif.update(options.pop("exif", {}))
    file = tmp_path / "x.jpg"
    PHOTO.convert(options.pop("mode", "RGB")).save(file, **options, exif=exif)
    with Image.open(file) as opened:
        expected = np.asarray((ImageOps.exif_transpose(opened) if rotate else opened).convert("RGB"))
    assert np.array_equal(read_image(file, rotate=rotate).permute(1, 2, 0).numpy(), expected)


def test_cut_jpegs_are_judged_by_pillow(tmp_path: Path) -> None:
    """Some cuts leave a picture that it completes, others none; an error or pixels, never a torchvision error."""
    file = tmp_path / "x.jpg"
    PHOTO.save(file)
    whole = file.read_bytes()
    for end in range(len(whole) - 200, len(whole), 7):
        file.write_bytes(whole[:end])
        try:
            with Image.open(file) as opened:
                expected = np.asarray(opened)
        except OSError:
            with pytest.raises(ImageError, match="truncated or damaged"):
                read_image(file)
        else:
            assert np.array_equal(read_image(file).permute(1, 2, 0).numpy(), expected)


def test_a_limit_above_pillow_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png", max_pixels=1600).shape == (3, 40, 40)
    with pytest.raises(ImageError, match="data.max_pixels=1599"):
        read_image(tmp_path / "a.png", max_pixels=1599)


def test_pipes_devices_and_folders_return_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    for path in (tmp_path / "a.jpg", tmp_path / "b.jpg", Path("/dev/zero")):
        with pytest.raises(ImageError, match="regular file"):
            read_image(path)


def test_predict_reads_the_same_files_as_data_sets(tmp_path: Path) -> None:
    for name in ("a.gif", "b.ppm", "sub/c.bmp"):
        picture(tmp_path / name)
    (tmp_path / "film.mp4").write_bytes(b"\0" * 20)
    (tmp_path / "notes.txt").write_text("x")
    assert find_images(str(tmp_path)) == list_images(tmp_path)
    assert [path.name for path in find_images(str(tmp_path)).images] == ["a.gif", "b.ppm", "c.bmp"]
    assert [path.name for path in find_images(str(tmp_path)).skipped] == ["film.mp4"]
    with pytest.raises(ConfigError, match="is not there"):
        find_images(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="folder without images"):
        find_images(str(tmp_path / "empty"))


def test_no_format_that_runs_other_programs() -> None:
    assert not suffixes() & {".eps", ".ps", ".mpg", ".h5"}
    assert suffixes() >= {".jpg", ".jfif", ".jpe", ".gif", ".ppm", ".jp2", ".mpo", ".webp", ".bmp", ".tif"}
