"""Inventory of CMU Panoptic: for each sequence its calibration, its pose files, and the images of each camera."""

from __future__ import annotations

from pipeline.data.check.base import (
    CameraInventory,
    Inventory,
    Problem,
    archives,
    camera_inventory,
    evenly_spaced,
    problem_of,
)
from pipeline.data.check.listing import Tree
from pipeline.data.check.videos import add_video
from pipeline.data.sources.panoptic_files import (
    POSE_FORMATS,
    VIDEO_RATE,
    calibration_file,
    existing_image,
    image_folder,
    imaged_frames,
    pose_file,
    posed_frames,
    read_bodies,
    read_calibrated_camera,
    video_file,
)
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import inside

TITLE = "CMU Panoptic"
LAYOUT = "a folder for each sequence, such as 160224_haggling1, with calibration_*.json, hdPose3d_*, hdImgs or hdVideos"
PAGE = "docs/data/panoptic.md"

# Pose files of a sequence that are read, unless all are.
_POSES_READ = 16
# Sequences of the studio have the same layout and are another source.
_STUDIO = "studio_"
# Endings of images that are not read.
_OTHER_ENDINGS = (".webp", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
# Folders of a sequence.
_PARTS = ("hdImgs", "hdVideos", *(form.folder for form in POSE_FORMATS))


def recognises(tree: Tree) -> bool:
    """Whether a folder in it looks like a recorded sequence."""
    return any(is_sequence(tree, name) for name in tree.folders() if not name.startswith(_STUDIO))


def is_sequence(tree: Tree, folder: str) -> bool:
    """Whether a folder has parts of a sequence."""
    if folder in _PARTS:
        return False  # a folder of poses that was unpacked into another of the same name
    calibrated = calibration_file(folder).rpartition("/")[2] in tree.names(folder)
    return calibrated or any(name in _PARTS for name in tree.folders(folder))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every sequence of the split manifest, and folders of sequences that are not in it."""
    here = [name for name in tree.folders() if is_sequence(tree, name)]
    found = inventory_of_sequences(tree, splits, here, thorough)
    for part in splits.parts:
        if part.sequence not in here:
            if part.sequence in tree.folders(part.sequence):
                inner = f"{part.sequence}/{part.sequence}"
                found.problems.append(Problem(part.sequence, f"unpacked too deep: {_move(inner, part.sequence)}"))
                continue
            how = f"no folder; the toolbox's scripts/getData.sh {part.sequence} 0 31 gets it"
            found.absent.append(Problem(f"{part.sequence} ({part.split})", how))
    return found


def inventory_of_sequences(tree: Tree, splits: SplitManifest, here: list[str], thorough: bool) -> Inventory:
    """The sequences in the folders ``here``, of any source that has Panoptic's layout."""
    found = Inventory()
    parts = {part.sequence: part for part in splits.parts}
    for name in here:
        if name not in parts:
            found.unknown.append(f"{name}: {_contents(tree, name)}")
    read = 0
    for part in (part for part in splits.parts if part.sequence in here):
        frames, unusable, looked = _poses(tree, part.sequence, found, thorough)
        read += looked
        for camera in splits.cameras:
            found.cameras.append(_camera(tree, part, camera, frames, unusable, splits, found, thorough))
        found.notes += archives(tree, [part.sequence])
    found.read = f"{read} pose files"
    return found


def _poses(tree: Tree, sequence: str, found: Inventory, thorough: bool) -> tuple[list[int], dict[int, Problem], int]:
    """Frames with a pose file; problems of those files that cannot be used, by frame; how many files were opened."""
    form = next((form for form in POSE_FORMATS if form.folder in tree.folders(sequence)), None)
    if form is None:
        found.problems.append(Problem(f"{sequence}/{POSE_FORMATS[0].folder}", "no pose files: no such folder"))
        return [], {}, 0
    folder = f"{sequence}/{form.folder}"
    files = tree.files(folder)
    frames = posed_frames(files)
    if not frames:
        below = (f"{folder}/{name}" for name in tree.folders(folder) if posed_frames(tree.names(f"{folder}/{name}")))
        deep = next(below, None)
        why = "no body3DScene_*.json in it" + (f"; unpacked too deep: {_move(deep, folder)}" if deep else "")
        found.problems.append(Problem(folder, why))
    empty = [frame for frame in frames if not files[pose_file(frame)]]
    unusable = {frame: Problem(f"{folder}/{pose_file(frame)}", "empty file") for frame in empty}
    read = frames if thorough else [frames[i] for i in evenly_spaced(len(frames), _POSES_READ)]
    for frame in read:
        if frame not in unusable:
            try:
                read_bodies(inside(tree.root, f"{folder}/{pose_file(frame)}"), form.field, len(form.skeleton))
            except ValueError as error:
                unusable[frame] = problem_of(tree, error)
    return frames, unusable, len(read)


def _move(inner: str, folder: str) -> str:
    return f"they are in {inner}: move its content to {folder}"


def _camera(
    tree: Tree,
    part: Part,
    camera: str,
    frames: list[int],
    unusable: dict[int, Problem],
    splits: SplitManifest,
    found: Inventory,
    thorough: bool,
) -> CameraInventory:
    """The inventory of one camera of a sequence; problems of the whole sequence are added to ``found``."""
    folder, video = image_folder(part.sequence, camera), video_file(part.sequence, camera)
    imaged = imaged_frames(tree.names(folder), camera)

    def image(frame: int) -> str:
        return existing_image(part.sequence, camera, frame, lambda path: tree.size(path) is not None)

    size = _resolution(tree, part.sequence, camera, found)
    line = camera_inventory(
        tree,
        part,
        camera,
        frames,
        splits,
        image,
        lambda _: size,
        len(imaged - set(frames)),
    )
    # The cameras run before and after what is annotated; in between every image has its pose file.
    between = (f for f in sorted(imaged - set(frames)) if frames and frames[0] < f < frames[-1])
    line.lost_annotations = [image(frame) for frame in between]
    taken = splits.select(part, frames)
    lost = {frame: unusable[frame] for frame in taken if frame in unusable}
    line.damaged += lost.values()
    without_pose = {image(frame) for frame in lost}
    line.images = [file for file in line.images if file.path not in without_pose]
    if tree.size(video) is not None:
        if camera in tree.folders(f"{part.sequence}/hdImgs"):
            found.notes.append(f"{part.sequence} has images and a video of {camera}: the images are read")
        else:
            wanted, last = [frame for frame in taken if frame not in lost], max(frames, default=-1)
            add_video(line, tree, video, wanted, last, size, thorough, VIDEO_RATE)
            gaps = sorted({*range(min(frames, default=0), max(frames, default=0))} - {*frames})
            line.lost_annotations = [f"{video} (frame {frame})" for frame in gaps]
    if size is None:
        line.blocked = "no calibration of the camera: nothing can be projected"
    if not imaged and tree.size(video) is None:
        others = [name for name in tree.names(folder) if name.lower().endswith(_OTHER_ENDINGS)]
        deep = next((f for f in _below(tree, part.sequence, camera) if imaged_frames(tree.names(f), camera)), None)
        if deep:
            found.problems.append(Problem(folder, f"no images in it; unpacked too deep: {_move(deep, folder)}"))
        elif others:
            found.problems.append(Problem(f"{folder}/{others[0]}", f"wanted {camera}_00000000.jpg or .png"))
    return line


def _below(tree: Tree, sequence: str, camera: str) -> list[str]:
    """Folders that hold a camera's images if they were unpacked too deep."""
    folder, images = image_folder(sequence, camera), f"{sequence}/hdImgs"
    return [*(f"{folder}/{name}" for name in tree.folders(folder)), f"{images}/hdImgs/{camera}"]


def _resolution(tree: Tree, sequence: str, camera: str, found: Inventory) -> tuple[int, int] | None:
    """(height, width) of the camera's images from the calibration; None when that is missing or damaged."""
    try:
        return read_calibrated_camera(inside(tree.root, calibration_file(sequence)), camera).size
    except ValueError as error:
        problem = problem_of(tree, error)
        if problem not in found.problems:
            found.problems.append(problem)
        return None


def sequence_cameras(tree: Tree, sequence: str) -> list[str]:
    """Names of the cameras of which a sequence has a folder of images or a video."""
    videos = [name for name in tree.names(f"{sequence}/hdVideos") if name.startswith("hd_") and name.endswith(".mp4")]
    return sorted({*tree.folders(f"{sequence}/hdImgs"), *(name[3:-4] for name in videos)})


def _contents(tree: Tree, sequence: str) -> str:
    """The contents of a sequence that is in no split."""
    poses = sum(len(tree.names(f"{sequence}/{form.folder}")) for form in POSE_FORMATS)
    cameras = sequence_cameras(tree, sequence)
    return f"{poses} pose files, images of {len(cameras)} cameras; not in the split manifest, so not converted"
