"""Scenes on disk in the layout of PASCAL VOC 2007, which any VOC reader takes.

JPEGImages, Annotations (boxes count pixels from 1, both ends included), SegmentationClass and SegmentationObject
(palette PNG, 255 on borders), ImageSets/Main with a file for each class, ImageSets/Segmentation, and labels.txt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from ssl_inpaint.data.scene_objects import CLASSES
from ssl_inpaint.data.scenes import Scene, SceneObject
from ssl_inpaint.images import voc_palette

YEAR = "2007"
FOLDERS = (
    "JPEGImages",
    "Annotations",
    "SegmentationClass",
    "SegmentationObject",
    "ImageSets/Main",
    "ImageSets/Segmentation",
)
JPEG_QUALITY = 92


def write_scene(folder: Path, name: str, scene: Scene) -> None:
    """Writes image, annotation and both masks of one scene below `folder` (VOC2007), whose folders exist."""
    from PIL import Image

    Image.fromarray(scene.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY)
    palette = voc_palette().tobytes()
    for kind, mask in (("SegmentationClass", scene.classes()), ("SegmentationObject", scene.instances)):
        picture = Image.fromarray(mask)
        picture.putpalette(palette)
        picture.save(folder / kind / f"{name}.png")
    tree = ElementTree.ElementTree(_annotation(name, scene))
    ElementTree.indent(tree, "\t")
    tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")


def write_sets(folder: Path, sets: Mapping[str, Sequence[tuple[str, Sequence[SceneObject]]]]) -> None:
    """Writes the lists of images: set name -> (image name, its objects) in order."""
    main, segmentation = folder / "ImageSets" / "Main", folder / "ImageSets" / "Segmentation"
    for name, members in sets.items():
        for place in (main, segmentation):
            _write_lines(place / f"{name}.txt", [image for image, _ in members])
        for label, class_name in enumerate(CLASSES):
            lines = [f"{image} {presence(objects, label):2d}" for image, objects in members]
            _write_lines(main / f"{class_name}_{name}.txt", lines)
    _write_lines(folder / "labels.txt", CLASSES)


def presence(objects: Sequence[SceneObject], label: int) -> int:
    """1 where the class is present, 0 where all its objects are difficult, -1 where it is absent: VOC's convention."""
    found = [thing.is_difficult for thing in objects if thing.label == label]
    if not found:
        return -1
    return 0 if all(found) else 1


def _annotation(name: str, scene: Scene) -> ElementTree.Element:
    height, width, depth = scene.image.shape
    root = ElementTree.Element("annotation")
    _fill(root, {"folder": f"VOC{YEAR}", "filename": f"{name}.jpg"})
    _fill(ElementTree.SubElement(root, "source"), {"database": "ssl_inpaint shapes"})
    _fill(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": depth})
    _fill(root, {"segmented": 1})
    for thing in scene.objects:
        element = ElementTree.SubElement(root, "object")
        _fill(element, {"name": CLASSES[thing.label], "pose": "Unspecified"})
        _fill(element, {"truncated": int(thing.is_truncated), "occluded": int(thing.is_occluded)})
        _fill(element, {"difficult": int(thing.is_difficult)})
        left, top, right, bottom = thing.box
        box = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        _fill(ElementTree.SubElement(element, "bndbox"), box)
    return root


def _fill(element: ElementTree.Element, values: Mapping[str, object]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(element, tag).text = str(value)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
