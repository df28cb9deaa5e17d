"""`das predict`: detects people on photos and videos and writes their poses and overlays.

predict holds the command, rescale that of the same name. A photo or frame passes

    inputs, live         which files; frames of a camera or stream
    pictures             an image with its camera, several through the network at a time
    cameras, camera_file a calibration, EXIF data or an assumed field of view
    photos, frames       photos one by one; videos and live sources frame by frame (videos reads and writes them)
    results, collectors  files of one photo or video; tables and page of a whole run

explain draws a model's inner maps (`--inside`), photo_predictor is the room's door for Python, ``load_predictor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.predict.photo_predictor import PhotoPredictor, load_predictor

__all__ = ["PhotoPredictor", "load_predictor"]


def __getattr__(name: str) -> Any:
    """The door for Python, imported on first use: the commands of this room need to be quick."""
    if name in __all__:
        from pipeline.predict import photo_predictor

        return getattr(photo_predictor, name)
    raise AttributeError(f"module 'pipeline.predict' has no attribute {name!r}")
