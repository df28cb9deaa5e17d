"""The page of a run, people.html: photos and videos to choose from, their people in 3D, videos over time.

It loads no other file. Of a long video a part of the frames is kept, evenly spaced, and fewer pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from das.draw.top_view import level_axes
from pipeline.infra.html.page import render_page
from pipeline.infra.html.pictures import data_uri
from pipeline.infra.html.scene import scene_skeleton, upright_joints, view_corners
from pipeline.infra.images import encode_image
from pipeline.predict.pictures import Picture
from pipeline.predict.results import draw_prediction

if TYPE_CHECKING:
    from das.predictor import Prediction
    from das.skeleton import Skeleton

MOST_CLIPS = 500
"""Most photos and videos on a page; the others are only in their own files."""
MOST_FRAMES = 3000
"""Most frames of a video on a page."""
MOST_PICTURES = 100
"""Most pictures of a video on a page."""
_PICTURE_WIDTH = 640
_PICTURE_BYTES = 40_000


class Thinned:
    """A list that keeps at most so many of the items that are added, evenly spaced: every first, second, fourth, ..."""

    def __init__(self, most: int) -> None:
        self.items: list[Any] = []
        self.step = 1
        self._most = most
        self._seen = 0

    def wants_next(self) -> bool:
        """Whether the next item will be kept for now."""
        return self._seen % self.step == 0

    def add(self, item: Any) -> None:
        """Adds the next item."""
        if self.wants_next():
            if len(self.items) == self._most:
                self.items = self.items[::2]
                self.step *= 2
            if self.wants_next():
                self.items.append(item)
        self._seen += 1


@dataclass
class _Clip:
    """A photo or video: its frames, and pictures with the number of the frame that they show."""

    name: str
    camera: str
    frames: Thinned = field(default_factory=lambda: Thinned(MOST_FRAMES))
    pictures: Thinned = field(default_factory=lambda: Thinned(MOST_PICTURES))
    count: int = 0


@dataclass(frozen=True)
class PeoplePage:
    """The content of templates/people.html."""

    title: str
    subtitle: str
    mark: str
    notes: Sequence[str]
    names: Sequence[str]
    cameras: Mapping[str, str]
    scene: Mapping[str, Any]


class PageBuilder:
    """Gathers photos and frames for the page."""

    def __init__(self) -> None:
        self._clips: list[_Clip] = []
        self._left_out = 0
        self._last: str | None = None
        self._skeleton: Skeleton | None = None
        self._most_people = 0

    def add(self, picture: Picture, prediction: Prediction) -> None:
        """Adds a photo, or the next frame of a video."""
        if str(picture.path) != self._last:
            self._last = str(picture.path)
            source = prediction.source
            words = source.text(prediction.K) + (f"; {source.remark}" if source.remark else "")
            if len(self._clips) < MOST_CLIPS:
                self._clips.append(_Clip(picture.path.name, words))
            else:
                self._left_out += 1
        if self._left_out:
            return
        clip = self._clips[-1]
        self._skeleton = prediction.skeleton
        self._most_people = max(self._most_people, len(prediction.people))
        if clip.pictures.wants_next():
            (overlay,) = draw_prediction(picture, prediction, ("overlay",))
            clip.pictures.add((clip.count, _small(overlay)))
        else:
            clip.pictures.add(None)
        clip.frames.add((clip.count, _frame(picture, prediction)))
        clip.count += 1

    def render(self) -> str:
        """The page as one HTML file."""
        frames: list[dict[str, Any]] = []
        images: list[str] = []
        spans: list[tuple[int, int]] = []
        notes = [f"{self._left_out} more photos and videos are not on this page."] if self._left_out else []
        for clip in self._clips:
            begin, shown = len(frames), clip.pictures.items
            for number, frame in clip.frames.items:
                latest = sum(at <= number for at, _ in shown) - 1
                frames.append({**frame, "image": len(images) + latest})
            images += [uri for _, uri in shown]
            spans.append((begin, len(frames)))
            if clip.frames.step > 1:
                notes.append(f"{clip.name}: one frame of {clip.frames.step} is shown.")
        cameras: dict[str, list[str]] = {}
        for clip in self._clips:
            cameras.setdefault(clip.camera, []).append(clip.name)
        assert self._skeleton is not None, "a page is made of at least one photo"
        scene = scene_skeleton(self._skeleton, self._most_people)
        page = PeoplePage(
            title="People in 3D",
            subtitle=f"Photos and videos: {len(self._clips)}. Moments in all: {len(frames)}.",
            mark="",
            notes=notes,
            names=[clip.name for clip in self._clips],
            cameras={_few(names): camera for camera, names in cameras.items()},
            scene={**scene, "frames": frames, "clips": spans, "images": images},
        )
        return render_page("pipeline.predict", "people.html", page)


def _few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _frame(picture: Picture, prediction: Prediction) -> dict[str, Any]:
    people, axes = prediction.people, level_axes(picture.camera.down)
    height, width = prediction.image_size
    return {
        "time": picture.about.get("time_ms", 0),
        "view": view_corners(prediction.K, height, width, axes),
        "people": [
            {
                "joints": upright_joints(people.joints_cam[i], prediction.valid, axes),
                "score": round(float(people.scores[i]), 3),
                "note": f"{people.root_cam[i, 2] / 1000:.2f} m",
            }
            for i in range(len(people))
        ],
    }


def _small(image: np.ndarray) -> str:
    """The picture as a data: URI, at most 640 pixels wide and 40 kB."""
    scale = min(1.0, _PICTURE_WIDTH / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return data_uri(encode_image(small, ".jpg"), _PICTURE_BYTES)
