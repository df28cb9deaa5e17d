"""What is there of CMU Panoptic: sequence by sequence, calibration, pose files, and images per camera."""

from __future__ import annotations

import re

from pipeline.data.check.base import Inventory, Trouble, View, archives, spread, view_of
from pipeline.data.check.listing import Tree
from pipeline.data.check.videos import add_film
from pipeline.data.sources import panoptic as reader
from pipeline.data.sources.base import Source
from pipeline.data.sources.panoptic import read_bodies, read_calibrated_camera
from pipeline.data.splits import Part, SplitManifest

TITLE = "CMU Panoptic"
LAYOUT = "a folder for each sequence, such as 160224_haggling1, with calibration_*.json, hdPose3d_*, hdImgs or hdVideos"
PAGE = "docs/data/panoptic.md"
SOURCE: Source = reader

_POSE_FILE = re.compile(r"body3DScene_(\d{8})\.json")
# (folder, field, joints), the preferred one first.
_POSES = (("hdPose3d_stage1_coco19", "joints19", 19), ("hdPose3d_stage1", "joints15", 15))
# Pose files of a sequence that are read, unless all are.
_POSES_READ = 16
# Another source that ships this layout.
_STUDIO = "studio_"


def recognises(tree: Tree) -> bool:
    """Whether some folder in it looks like a recorded sequence."""
    return any(is_sequence(tree, name) for name in tree.folders() if not name.startswith(_STUDIO))


def is_sequence(tree: Tree, folder: str) -> bool:
    """Whether a folder holds parts of a sequence."""
    parts = ("hdImgs", "hdVideos", *(name for name, _, _ in _POSES))
    calibrated = f"calibration_{folder.rpartition('/')[2]}.json" in tree.names(folder)
    return calibrated or any(name in parts for name in tree.folders(folder))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every sequence of the split manifest, and those that it does not know."""
    here = [name for name in tree.folders() if is_sequence(tree, name)]
    found = inventory_of(tree, splits, here, thorough)
    for part in splits.parts:
        if part.sequence not in here:
            how = f"no folder; the toolbox's scripts/getData.sh {part.sequence} 0 31 gets it"
            found.absent.append(Trouble(f"{part.sequence} ({part.split})", how))
    return found


def inventory_of(tree: Tree, splits: SplitManifest, here: list[str], thorough: bool) -> Inventory:
    """The sequences that are ``here``, in the layout of Panoptic, whoever made them."""
    found = Inventory()
    parts = {part.sequence: part for part in splits.parts}
    for name in here:
        if name not in parts:
            found.strangers.append(f"{name}: {_contents(tree, name)}")
    read = 0
    for part in (part for part in splits.parts if part.sequence in here):
        frames, broken, looked = _poses(tree, part.sequence, found, thorough)
        read += looked
        for camera in splits.cameras:
            found.views.append(_view(tree, part, camera, frames, broken, splits, found))
        found.notes += archives(tree, [part.sequence])
    found.read = f"{read} pose files"
    return found


def _poses(tree: Tree, sequence: str, found: Inventory, thorough: bool) -> tuple[list[int], dict[int, Trouble], int]:
    """Frames with a pose file; those of them whose file cannot be used; how many files were opened."""
    kind = next((kind for kind in _POSES if kind[0] in tree.folders(sequence)), None)
    if kind is None:
        found.troubles.append(Trouble(f"{sequence}/{_POSES[0][0]}", "no pose files: no such folder"))
        return [], {}, 0
    folder, field, joints = kind
    files = {}
    for name, size in tree.files(f"{sequence}/{folder}").items():
        if match := _POSE_FILE.fullmatch(name):
            files[int(match[1])] = size
    if not files:
        found.troubles.append(Trouble(f"{sequence}/{folder}", "no body3DScene_*.json in it"))
    frames = sorted(files)
    paths = {frame: f"{sequence}/{folder}/body3DScene_{frame:08d}.json" for frame in frames}
    broken = {frame: Trouble(paths[frame], "empty file") for frame in frames if not files[frame]}
    some = frames if thorough else [int(frame) for frame in spread([str(f) for f in frames], _POSES_READ)]
    for frame in some:
        if frame not in broken:
            try:
                read_bodies(tree.root / paths[frame], field, joints)
            except ValueError as error:
                broken[frame] = Trouble(paths[frame], _without_path(error))
    return frames, broken, len(some)


def _view(
    tree: Tree,
    part: Part,
    camera: str,
    frames: list[int],
    broken: dict[int, Trouble],
    splits: SplitManifest,
    found: Inventory,
) -> View:
    """The line of one camera of a sequence."""
    folder = f"{part.sequence}/hdImgs/{camera}"
    name = re.compile(rf"{re.escape(camera)}_(\d{{8}})\.jpg")
    imaged = {int(match[1]) for file in tree.names(folder) if (match := name.fullmatch(file))}
    size = _resolution(tree, part.sequence, camera, found)
    view = view_of(
        tree,
        part,
        camera,
        frames,
        splits,
        lambda frame: f"{folder}/{camera}_{frame:08d}.jpg",
        lambda _: size,
        len(imaged - set(frames)),
    )
    # The cameras run before and after what is annotated; in between every image has its pose file.
    between = (f for f in sorted(imaged - set(frames)) if frames and frames[0] < f < frames[-1])
    view.strays = [f"{folder}/{camera}_{frame:08d}.jpg" for frame in between]
    taken = splits.select(part, frames)
    lost = {frame: broken[frame] for frame in taken if frame in broken}
    view.damaged += lost.values()
    view.pictures = [p for p in view.pictures if int(p.path[-12:-4]) not in lost]
    film = f"{part.sequence}/hdVideos/hd_{camera}.mp4"
    if tree.size(film) is not None:
        if camera in tree.folders(f"{part.sequence}/hdImgs"):
            found.notes.append(f"{part.sequence} has images and a video of {camera}: the images are read")
        else:
            add_film(view, tree, film, [frame for frame in taken if frame not in lost], size)
            holes = sorted({*range(min(frames, default=0), max(frames, default=0))} - {*frames})
            view.strays = [f"{film} (frame {frame})" for frame in holes]
    if size is None:
        view.blocked = "no calibration of the camera: nothing can be projected"
    if not imaged and any(n.endswith(".png") for n in tree.names(folder)):
        found.troubles.append(Trouble(folder, "PNG files; wanted the JPEG files that hdImgsExtractor.sh makes"))
    return view


def _resolution(tree: Tree, sequence: str, camera: str, found: Inventory) -> tuple[int, int] | None:
    """(height, width) of the camera's images from the calibration; None when that is missing or damaged."""
    path = f"{sequence}/calibration_{sequence}.json"
    try:
        return read_calibrated_camera(tree.root / path, camera).size
    except ValueError as error:
        trouble = Trouble(path, _without_path(error))
        if trouble not in found.troubles:
            found.troubles.append(trouble)
        return None


def _contents(tree: Tree, sequence: str) -> str:
    """What a sequence holds that no split takes."""
    poses = sum(len(tree.names(f"{sequence}/{folder}")) for folder, _, _ in _POSES)
    cameras = tree.folders(f"{sequence}/hdImgs")
    return f"{poses} pose files, images of {len(cameras)} cameras; not in the split manifest, so not converted"


def _without_path(error: ValueError) -> str:
    """The message of an error that begins with the absolute path of its file, without that."""
    text = " ".join(str(error).split())
    return text.partition(".json: ")[2] or text
