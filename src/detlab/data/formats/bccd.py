"""BCCD: 364 photographs of blood cells (Shenggan/BCCD_Dataset, MIT licence), a VOC folder with its own splits."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Collection
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from detlab.data.audit import AuditReport, names
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS, Source, Splits
from detlab.data.formats.voc import Voc
from detlab.data.records import Classes
from detlab.errors import DataError
from detlab.ranges import OptionsOf

URL = "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip"
CACHE = "~/.cache/detlab"
TIMEOUT_S = 60
LARGEST_FILE = 5_000_000  # bytes; larger entries are not unpacked (the archive's pictures have 10 to 30 kB)


class Bccd(Source):
    """The VOC folder at root, or one downloaded into the cache and checked against the shipped manifest.

    Args:
        root: the folder that holds Annotations; null to download.
        cache_dir: folder of the download; None for ~/.cache/detlab.
        url: of the archive.
    """

    def __init__(self, *, root: str | None, cache_dir: str | Path | None, url: str = URL) -> None:
        self.root, self.url = root, url
        self.cache = Path(cache_dir or CACHE).expanduser() / "bccd"

    def prepare(self) -> None:
        """Download and check the archive, unless a root is given or the cache holds an earlier download.

        Raises:
            DataError: the download failed, or files differ from the manifest.
        """
        if self.root is not None or self.cache.is_dir():
            return
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache.parent) as work:
            archive = Path(work) / "bccd.zip"
            try:
                with urllib.request.urlopen(self.url, timeout=TIMEOUT_S) as answer, archive.open("wb") as out:
                    shutil.copyfileobj(answer, out)
                files = _unpack(archive, Path(work) / "bccd")
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(
                    f"data=bccd could not download {self.url} ({error}); fetch the repository elsewhere and give its "
                    f"BCCD folder, data.root=PATH."
                ) from error
            wrong = sorted(name for name, digest in manifest().items() if files.get(name) != digest)
            if wrong:
                raise DataError(
                    f"data=bccd: {len(wrong)} files of {self.url} are missing or differ from the manifest "
                    f"({names(wrong)}); give a folder you trust, data.root=PATH."
                )
            (Path(work) / "bccd").replace(self.cache)

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        self.prepare()
        root = self.root or self.cache
        return Voc(root=root, sets={split: split for split in SPLITS}, point_boxes=False).read(report, wanted)


def bccd(
    *,
    root: str | None = None,
    cache_dir: str | None = CACHE,
    url: str = URL,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """The BCCD data set; `loading` goes to `DetectionData`."""
    return DetectionData(source=Bccd(root=root, cache_dir=cache_dir, url=url), cache_dir=cache_dir, **loading)


def manifest() -> dict[str, str]:
    """SHA-256 of every file of the data set by its path, from the list shipped with the package."""
    text = resources.files("detlab.data.formats").joinpath("bccd.sha256").read_text()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in text.splitlines())}


def _unpack(archive: Path, target: Path) -> dict[str, str]:
    """Write the archive's BCCD folder into target; returns the SHA-256 of every file by its path."""
    found = {}
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            parts = PurePosixPath(entry.filename).parts
            if entry.is_dir() or "BCCD" not in parts or ".." in parts or entry.file_size > LARGEST_FILE:
                continue
            inner = PurePosixPath(*parts[parts.index("BCCD") + 1 :])
            content = bundle.read(entry)
            path = target / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            found[str(inner)] = hashlib.sha256(content).hexdigest()
    return found
