"""From a stored image to a network input: one 2x3 matrix A, then colour.

Resize, flip, and a rotated, scaled, shifted window multiply into A, which moves pixels, ``u' = A (u, v, 1)``,
and intrinsics, ``K' = A K``, together. Camera-space joints do not change, so neither do depths: a picture at
half its size shows the same people at the same distance through half the focal length, and the codec, which
divides depth by the focal length of K', needs nothing else. The release carries no K; it divides depth by the
focal length once and corrects it in every transform. One of these corrections reaches the first person only:
``depth_scaled_for``.

Convention: pixel (0, 0) is the centre of the top left pixel and resizing is plain scaling, ``u' = s u``, as
in the release. The image is warped by that very matrix, so joints and pixels agree exactly; ``cv2.resize``
aligns the images' corners instead and would disagree by up to half a pixel.

After a flip K' has a negative determinant: what is back-projected with it is the un-mirrored person whose
left and right *names* are swapped, because the network must call left what looks left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from das.camera import transform_intrinsics
from das.recipe import InputSize, RecipeConfig
from das.sample import Sample
from das.skeleton import COCO19, Conversion, Skeleton, conversion

# ImageNet's mean, RGB: after normalisation, pixels outside the image are nearly 0.
BORDER_COLOUR = (123.675, 116.28, 103.53)


# Matrices: all are (2, 3) float64 and map pixels (u, v, 1) of one picture to pixels of the next.


def compose(*steps: np.ndarray) -> np.ndarray:
    """One matrix for several (2, 3), applied in the order given."""
    total = np.eye(3)
    for A in steps:
        total = np.vstack([A, [0, 0, 1]]) @ total
    return total[:2]


def scale_matrix(sx: float, sy: float) -> np.ndarray:
    """Plain scaling, ``u' = sx u, v' = sy v``."""
    return np.array([[sx, 0.0, 0.0], [0.0, sy, 0.0]])


def resize_matrix(height: int, width: int, size: InputSize) -> tuple[np.ndarray, tuple[int, int]]:
    """Scales an image of height x width pixels to ``size``: A (2, 3) and the new (height, width)."""
    new_height, new_width = size.fit(height, width)
    return scale_matrix(new_width / width, new_height / height), (new_height, new_width)


def flip_matrix(width: int) -> np.ndarray:
    """Mirrors an image left to right, ``u' = width - 1 - u``."""
    return np.array([[-1.0, 0, width - 1], [0, 1, 0]])


# From an image of half the size to the full one: pixel i covers 2 i and 2 i + 1, so its centre is at 2 i + 0.5.
FROM_HALF = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]])


def window_matrix(height: int, width: int, scale: float, rotation: float, shift: tuple[float, float]) -> np.ndarray:
    """A window becomes the whole picture: ``x' = R (x - c) / scale + (w/2, h/2)``.

    Args:
        height: of the image, pixels; also of the new picture.
        width: likewise.
        scale: the window's size relative to the image; above 1 the picture shrinks.
        rotation: radians; positive turns the picture counter-clockwise.
        shift: puts the window's centre at ``c = (w/2 (1 + shift[0]), h/2 (1 + shift[1]))``.
    """
    middle = np.array([width / 2, height / 2])
    cos, sin = np.cos(rotation) / scale, np.sin(rotation) / scale
    R = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([R, middle - R @ (middle * (1 + np.asarray(shift)))])


def warp(image: np.ndarray, A: np.ndarray, height: int, width: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The image (h, w, 3) uint8 RGB seen through A: (height, width, 3), bilinear, mean colour outside.

    Bilinear interpolation reads 4 pixels, so a picture at less than half its size would alias; its pixels are
    first averaged in blocks, as large as the wanted size allows.
    """
    block = int(abs(np.linalg.det(A[:, :2])) ** -0.5)
    if block > 1:
        h, w = image.shape[:2]
        small = cv2.resize(image, (max(w // block, 1), max(h // block, 1)), interpolation=cv2.INTER_AREA)
        # One pixel of margin: the centres of the outermost blocks are further inside than the image's own outermost
        # pixels, and bilinear reading would mix them with the border colour.
        image = cv2.copyMakeBorder(small, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        sx, sy = small.shape[1] / w, small.shape[0] / h
        # Blocks align corners, so the centre of block (0, 0) is at ((1/sx - 1)/2, (1/sy - 1)/2).
        into_small = np.array([[sx, 0, (sx - 1) / 2 + 1], [0, sy, (sy - 1) / 2 + 1]])
        A = compose(cv2.invertAffineTransform(into_small), A)
    return cv2.warpAffine(
        image, A, (width, height), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=BORDER_COLOUR
    )


def test_transform(image: np.ndarray, K: np.ndarray, size: InputSize) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image as the network sees it at test time: only resized.

    Args:
        image: (H, W, 3) uint8, RGB.
        K: (3, 3) intrinsics of the image, pixels.
        size: what it must fit in.

    Returns:
        The resized image (h, w, 3) uint8, A (2, 3) from original to resized pixels, and K' = A K (3, 3).
    """
    A, (height, width) = resize_matrix(image.shape[0], image.shape[1], size)
    return warp(image, A, height, width, cv2.BORDER_REPLICATE), A, transform_intrinsics(A, K)


# Colour.


def jitter_colour(
    image: np.ndarray,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
) -> np.ndarray:
    """Gray values x contrast + brightness, then hue (degrees) and saturation in HSV; (H, W, 3) uint8 RGB."""
    values = np.arange(256.0)
    if brightness != 0 or contrast != 1:
        image = cv2.LUT(image, np.clip(np.rint(values * contrast + brightness), 0, 255).astype(np.uint8))
    if saturation != 1 or hue != 0:
        turned = np.rint(values + hue / 2) % 180  # OpenCV keeps hue in units of 2 degrees
        richer = np.clip(np.rint(values * saturation), 0, 255)
        table = np.stack([turned, richer, values], axis=-1).astype(np.uint8)[None]
        image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    return image


# Samples.


@dataclass(frozen=True)
class DroppedSample:
    """A sample that is left out. ``reason`` is one of a few fixed texts, so that drops can be counted by it."""

    key: str
    reason: str


def recipe_conversion(source: Skeleton, target: Skeleton, recipe: RecipeConfig) -> Conversion:
    """How each target joint is supervised by the source's, as the recipe has it."""
    table = conversion(source, target, recipe.synthesised_joints)
    if source == COCO19 and not recipe.coco19_nose_is_head:
        nose = COCO19.index("nose")
        table = replace(table, index=tuple(-1 if i == nose else i for i in table.index))
    return table


def convert_labels(known: np.ndarray, table: Conversion) -> np.ndarray:
    """(N, K) bool of the source's joints -> (N, J) of the target's; a mixture is known when all its parts are."""
    index = np.array(table.index)
    converted = known[:, index] & (index >= 0)
    for k, parts in table.mixtures:
        converted[:, k] = known[:, [i for i, _ in parts]].all(axis=1)
    return converted


def convert_values(values: np.ndarray, table: Conversion) -> np.ndarray:
    """(N, K, ...) of the source's joints -> (N, J, ...) of the target's, 0 where the source has none."""
    index = np.array(table.index)
    converted = values[:, index]
    converted[:, index < 0] = 0
    for k, parts in table.mixtures:
        converted[:, k] = sum(weight * values[:, i] for i, weight in parts)
    return converted


def convert_joints(sample: Sample, target: Skeleton, recipe: RecipeConfig) -> Sample:
    """The sample with the joints of another set (das/skeleton.py); joints the source lacks are invisible.

    Root position and depth stay the source's: people of COCO have a root, the middle of both hips, even where
    the target set has no such joint.
    """
    table = recipe_conversion(sample.skeleton, target, recipe)
    return replace(
        sample,
        skeleton=target,
        joints_uv=convert_values(sample.joints_uv, table),
        joints_depth=convert_values(sample.joints_depth, table),
        visible=convert_labels(sample.visible, table),
    )


def inside(uv: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether pixels (..., 2) are on the image, whose border is half a pixel beyond the outermost centres."""
    return np.all((uv >= -0.5) & (uv < np.array([width, height]) - 0.5), axis=-1)


def tight_boxes(uv: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Boxes x0 y0 x1 y1 of the visible (N, J) joints (N, J, 2) of every person who has any: (M, 4) pixels."""
    seen = visible.any(axis=1)
    hidden = ~visible[seen][..., None]
    low = np.where(hidden, np.inf, uv[seen]).min(axis=1)
    high = np.where(hidden, -np.inf, uv[seen]).max(axis=1)
    return np.hstack([low, high])


def move_boxes(boxes: np.ndarray, A: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (M, 4) seen through A (2, 3): those around the moved corners, cut to the new image, without empty ones."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ A[:, :2].T + A[:, 2]
    low, high = corners.min(axis=1).clip(min=-0.5), corners.max(axis=1).clip(max=np.array([width, height]) - 0.5)
    return np.hstack([low, high])[(low <= high).all(axis=1)]


def move(
    sample: Sample, A: np.ndarray, height: int, width: int, mirrored: bool = False, seen: np.ndarray | None = None
) -> Sample:
    """The sample seen through A (2, 3): image, positions and masked boxes move, ``K' = A K``, depths stay.

    Joints that leave the new image of height x width pixels become invisible; people stay, wherever they are.
    ``mirrored`` says that A mirrors the picture: left and right names are swapped. ``seen`` is the new image, where it
    was made from other pixels than the sample's.
    """
    names = np.array(sample.skeleton.flip_permutation) if mirrored else np.arange(len(sample.skeleton))
    joints_uv = sample.joints_uv[:, names] @ A[:, :2].T + A[:, 2]
    return replace(
        sample,
        image=warp(sample.image, A, height, width) if seen is None else seen,
        K=transform_intrinsics(A, sample.K),
        joints_uv=joints_uv,
        joints_depth=sample.joints_depth[:, names],
        visible=sample.visible[:, names] & inside(joints_uv, height, width),
        root_uv=sample.root_uv @ A[:, :2].T + A[:, 2],
        masked=move_boxes(sample.masked, A, height, width),
    )


@dataclass(frozen=True)
class Draw:
    """The drawn augmentation of one image; fields as in ``Augmentation``."""

    size: tuple[int, int]
    """Height and width of the network input, pixels."""
    flip: bool = False
    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def matrix(self, height: int, width: int) -> np.ndarray:
        """A (2, 3) from an image of height x width pixels to the network input: resize, flip, window."""
        h, w = self.size
        steps = [scale_matrix(w / width, h / height)]
        if self.flip:
            steps.append(flip_matrix(w))
        return compose(*steps, window_matrix(h, w, self.scale, self.rotation, self.shift))


def draw(recipe: RecipeConfig, has_depth: bool, height: int, width: int, rng: np.random.Generator) -> Draw:
    """Draws the augmentation of an image of height x width pixels, annotated in 3D or not."""
    ranges = recipe.with_depth if has_depth else recipe.without_depth
    short_side = int(rng.integers(*recipe.train_short_side, endpoint=True))

    def colour(low: float, high: float, neutral: float) -> float:
        value = float(rng.uniform(low, high))
        return value if rng.random() < ranges.colour_probability else neutral

    return Draw(
        size=InputSize(recipe.train_long_side, short_side).fit(height, width),
        flip=bool(rng.random() < recipe.flip_probability),
        scale=float(rng.uniform(*ranges.scale)),
        rotation=float(rng.uniform(-ranges.rotation, ranges.rotation)),
        shift=(float(rng.normal(0, ranges.shift)), float(rng.normal(0, ranges.shift))),
        brightness=colour(-ranges.brightness, ranges.brightness, 0.0),
        contrast=colour(*ranges.contrast, 1.0),
        saturation=colour(*ranges.saturation, 1.0),
        hue=colour(-ranges.hue, ranges.hue, 0.0),
    )


Decode = Callable[[bool], tuple[np.ndarray, bool]]
"""Gives the pixels of an image: at half the size, if True is asked for and it can be done, and whether it was."""


def augment(sample: Sample, drawn: Draw, recipe: RecipeConfig, decode: Decode | None = None) -> Sample | DroppedSample:
    """The sample under one drawn augmentation; people whose root leaves the image are removed.

    Where they are still visible, their area is masked, if the recipe masks at all. With ``decode`` pixels come from
    there, and the sample's own image says only how large it is.
    """
    (h, w), (height, width) = sample.image.shape[:2], drawn.size
    A = drawn.matrix(h, w)
    stay = inside(sample.root_uv @ A[:, :2].T + A[:, 2], height, width)
    if stay.sum() < recipe.min_people:  # checked before the warp, the most expensive step
        return DroppedSample(sample.key, "too few people after augmentation")
    seen = None if decode is None else _seen(decode, A, height, width, recipe.scaled_decoding)
    moved = move(sample, A, height, width, drawn.flip, seen)
    if recipe.depth_scaled_for == "first_person":
        moved = _scale_first_person_only(moved, drawn.scale)
    masked = np.concatenate([moved.masked, tight_boxes(moved.joints_uv[~stay], moved.visible[~stay])])
    moved = replace(moved.select(stay), masked=masked[: None if recipe.mask_people_without_root else 0])
    image = jitter_colour(moved.image, drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
    if image is not moved.image:
        # Pixels outside the source image keep the border colour: they carry no information and must not vary.
        # On HD images cv2.copyTo is about 30 times as fast as np.where.
        border = np.full_like(image, np.rint(BORDER_COLOUR))
        image = cv2.copyTo(image, _covered(A, h, w, height, width), border)
    return replace(moved, image=image)


def _seen(decode: Decode, A: np.ndarray, height: int, width: int, scaled: bool) -> np.ndarray:
    """The image seen through A, which is for its full size, decoded at half of it where nothing is lost."""
    image, half = decode(scaled and bool(abs(np.linalg.det(A[:, :2])) <= 0.25))
    return warp(image, compose(FROM_HALF, A) if half else A, height, width)


def _covered(A: np.ndarray, h: int, w: int, height: int, width: int) -> np.ndarray:
    """Which pixels of the new picture, (height, width) uint8 0 or 1, show something of the h x w image under A."""
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) - 0.5
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.rint((corners @ A[:, :2].T + A[:, 2]) * 16).astype(np.int32), 1, shift=4)
    return mask


def _scale_first_person_only(sample: Sample, scale: float) -> Sample:
    """Makes depths what the release trains on after a window of ``scale``.

    With the focal length f' = f / scale of K', the normalised depth Z / f' of every person is scale x Z / f. The
    release multiplies it for person 0 only, and that person's relative joint depths too; the others keep Z / f,
    which is (Z / scale) / f'.
    """
    first = np.arange(len(sample.root_depth)) == 0
    root = np.where(first, sample.root_depth, sample.root_depth / scale)
    relative = (sample.joints_depth - sample.root_depth[:, None]) * np.where(first, scale, 1.0)[:, None]
    return replace(sample, root_depth=root, joints_depth=root[:, None] + relative)


def train_transform(
    sample: Sample, recipe: RecipeConfig, rng: np.random.Generator, decode: Decode | None = None
) -> Sample | DroppedSample:
    """An augmented training sample at network size, or the reason why it was dropped.

    Args:
        sample: one image with its usable people, joints already converted to the model's.
        recipe: ranges and rules.
        rng: source of all random draws; the same state gives the same sample.
        decode: gives the pixels, as in ``augment``; an image is decoded only where it is used.
    """
    if sample.visible.sum() < recipe.min_visible_joints:
        return DroppedSample(sample.key, "too few visible joints")
    if len(sample.root_uv) < recipe.min_people:
        return DroppedSample(sample.key, "too few people")
    height, width = sample.image.shape[:2]
    return augment(sample, draw(recipe, bool(sample.has_depth.any()), height, width, rng), recipe, decode)
