"""Detectors from darknet's published weight files: `detlab.from_darknet("yolov3.weights")`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detlab.config.compose import build_detector
from detlab.detectors import YOLO
from detlab.errors import ConfigError
from detlab.model.backbones.darknet_file import DarknetFile
from detlab.model.heads import YOLOHead
from detlab.model.necks import YOLOFPN

OPTION = "from_darknet"
PUBLISHED: dict[str, list[str]] = {  # {start of the file's name: overrides}; longer names first
    "yolov3": ["model=yolo", "model/backbone=darknet53", "data.size=416"],
    "yolov2-voc": ["model=yolov2", "model/backbone=darknet19", "data.size=416"],
    "yolov2": ["model=yolov2", "model/backbone=darknet19", "model/anchors=yolo2_coco", "data.size=416"],
    "yolov1": ["model=yolov1", "model/backbone=extraction", "data.size=448"],
}


def from_darknet(path: str | Path, num_classes: int | None = None, overrides: Sequence[str] | None = None) -> YOLO:
    """Build the detector that a darknet weight file belongs to, and load all of the file's numbers.

    Args:
        path: yolov1.weights (20 classes), yolov2-voc.weights (20), yolov2.weights (80), yolov3.weights (80), or a file
            of one of these networks trained on other classes.
        num_classes: K; None: 20 for files named yolov1 or ...-voc, else 80.
        overrides: config of another network, such as ["model=yolo", "model/backbone=darknet53",
            "model.neck.widths=[64, 128, 256]"]; None: chosen by the file's name.

    Returns:
        The detector in evaluation mode. Labels are indices into the list of names that belongs to the file
        (coco.names: COCO's categories by ascending id).

    Raises:
        ConfigError: the file's name is unknown and `overrides` is None.
        WeightsError: the file does not exist, or holds fewer or more numbers than the network.
    """
    name = Path(path).name
    if overrides is None:
        known = [start for start in PUBLISHED if name.startswith(start)]
        if not known or "tiny" in name or "spp" in name:
            raise ConfigError(
                f"{OPTION}: the name {name} is none of {', '.join(PUBLISHED)}; give the network's choices, such as "
                f"overrides=['model=yolo', 'model/backbone=darknet53']."
            )
        overrides = PUBLISHED[known[0]]
    if num_classes is None:
        num_classes = 20 if "-voc" in name or name.startswith("yolov1") else 80
    file = DarknetFile(path, OPTION)
    detector = build_detector(overrides, num_classes=num_classes)
    if not isinstance(detector, YOLO):
        raise ConfigError(
            f"{OPTION} fills YOLO alone, not {type(detector).__name__}; give model=yolo, yolov2 or yolov1."
        )
    for module in file_order(detector):
        file.into(module)
    file.finish()
    return detector.eval()


def file_order(detector: YOLO) -> list[nn.Module]:
    """A detector's modules in the order of darknet's .cfg file.

    YOLOv3 lists its levels from coarse to fine: convs and outputs of a level, then the 1x1 conv to the next level.
    """
    trunk = [module for _, module in detector.backbone.stages()]
    neck, head = detector.neck, detector.head
    if not isinstance(neck, YOLOFPN) or not isinstance(head, YOLOHead):
        return [*trunk, neck, head]
    made: list[nn.Module] = []
    for name in reversed(neck.names):
        if name in neck.up:
            made.append(neck.up[name])
        made += [neck.convs[name], head.conv[name], head.out[name]]
    return [*trunk, *made]
