"""The focal length in pixels that a photo's EXIF data state, without a table of sensors.

Two ways, the first that is there:

- FocalLengthIn35mmFilm, f35: the lens of the same field of view on 35 mm film. The EXIF standard does not say along
  which side; CIPA's guideline (DCG-001), which makers follow, compares diagonals. That of film is
  sqrt(36^2 + 24^2) = 43.27 mm, so the focal length is f35 / 43.27 of the picture's diagonal in pixels, however it was
  turned or scaled.
- FocalLength (mm) x FocalPlaneXResolution (pixels per unit of the sensor), scaled as the picture was since it had
  PixelXDimension pixels.

A crop keeps these tags. It is seen where PixelXDimension and PixelYDimension have another aspect ratio than the
pixels; then nothing is believed. A crop of the same aspect ratio cannot be seen.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

FILM_DIAGONAL_MM = math.hypot(36, 24)
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
_EXIF_IFD = 0x8769
_FOCAL_LENGTH, _IN_35MM, _WIDTH, _HEIGHT = 0x920A, 0xA405, 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_SAME_ASPECT = 0.01
"""Relative difference of aspect ratios that rounding to whole pixels may explain."""


@dataclass(frozen=True)
class ExifFocal:
    """What EXIF data say of the focal length.

    Attributes:
        focal_px: in pixels of the file's picture; None if they do not say it, or are not believed.
        numbers: what it was computed from: ``focal_length_35mm``, or ``focal_length_mm`` and ``pixels_per_mm``.
        fault: why they are not believed; "" if there is nothing to say.
    """

    focal_px: float | None
    numbers: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""


def exif_focal(data: bytes, size: tuple[int, int]) -> ExifFocal:
    """The focal length in pixels.

    Args:
        data: of an image file; formats other than JPEG, PNG, WebP and TIFF have no EXIF data here.
        size: (height, width) of its picture, pixels, turned or as stored.
    """
    try:
        tags = _tags(data)
    except Exception as error:  # of any kind: a photo that can be seen is not refused for what else is in its file
        return ExifFocal(None, fault=f"EXIF not used: it cannot be read ({type(error).__name__})")
    described = tuple(_number(tags, tag) for tag in (_HEIGHT, _WIDTH))
    if all(described) and _cropped(size, described):
        found, wanted = (f"{round(width)}x{round(height)}" for height, width in (size, described))
        return ExifFocal(None, fault=f"EXIF not used: it describes {wanted} pixels and the file has {found}, a crop")
    if film := _number(tags, _IN_35MM):
        return ExifFocal(film / FILM_DIAGONAL_MM * math.hypot(*size), {"focal_length_35mm": film})
    focal, per_unit = _number(tags, _FOCAL_LENGTH), _number(tags, _PLANE_RESOLUTION)
    unit = _UNIT_MM.get(round(_number(tags, _PLANE_UNIT)) or 2)
    if not (focal and per_unit and unit):
        return ExifFocal(None)
    # Along the longer side, which stays the longer one when the picture is turned.
    scale = max(size) / max(described) if all(described) else 1.0
    per_mm = scale * per_unit / unit
    return ExifFocal(focal * per_mm, {"focal_length_mm": focal, "pixels_per_mm": per_mm})


def _tags(data: bytes) -> dict[int, object]:
    """The camera's EXIF tags; none of a file without them. Damaged ones raise what Pillow stumbles over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on damaged tags, and on pictures that are large to decode: none is decoded
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:
            return {}
        with image:
            return dict(image.getexif().get_ifd(_EXIF_IFD))


def _number(tags: Mapping[int, Any], tag: int) -> float:
    """A tag's value; 0, which stands for unknown, where it is missing or no positive number."""
    try:
        value = float(tags.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if 0 < value < math.inf else 0.0


def _cropped(size: tuple[float, ...], described: tuple[float, ...]) -> bool:
    """Whether the aspect ratios differ; a picture that was turned has the same."""
    found, wanted = (max(sides) / min(sides) for sides in (size, described))
    return abs(found / wanted - 1) > _SAME_ASPECT
