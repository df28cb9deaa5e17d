"""The one check of intrinsics: a photo's camera file, the Python API, data sources and stored rows all use it."""

from __future__ import annotations

import numpy as np

# Focal lengths in lengths of the image's longer side: from a field of view of 169 degrees to one of 0.6. Intrinsics of
# normalised coordinates are far below.
SHORTEST, LONGEST = 0.05, 100.0


def intrinsics_fault(K: np.ndarray, size: tuple[int, int] | None = None) -> tuple[str, str] | None:
    """What is wrong with intrinsics, as (found, wanted); None for those of a camera.

    Args:
        K: (3, 3) pixels. It may be that of a turned image.
        size: (height, width) of the image, pixels; without it focal lengths only have to be above 0.
    """
    if K.shape != (3, 3):
        return f"shape {K.shape}", "3 x 3 numbers"
    if not np.isfinite(K).all():
        return "NaN or infinity", "finite numbers"
    if not np.array_equal(K[2], (0, 0, 1)):
        row = " ".join(f"{value:g}" for value in K[2])
        transposed = np.array_equal(K[:, 2], (0, 0, 1))
        hint = " (this is the transpose, as MATLAB writes it)" if transposed else ""
        return f"last row {row}{hint}", "0 0 1"
    found = f"focal lengths {K[0, 0]:g} and {K[1, 1]:g}"
    # Singular values are fx and fy whatever the image's rotation.
    longer, shorter = np.linalg.svd(K[:2, :2], compute_uv=False)
    if np.linalg.det(K) <= 0:
        return found, "both above 0 (no image is mirrored)"
    if size is not None:
        longest = max(size)
        shortest_focal, longest_focal = SHORTEST * longest, LONGEST * longest
        if not (shortest_focal <= shorter and longer <= longest_focal):
            return found, f"{shortest_focal:g} to {longest_focal:g} px for an image {longest} px long"
    return None


def check_intrinsics(K: np.ndarray, size: tuple[int, int] | None = None, where: str = "") -> None:
    """Refuses what ``intrinsics_fault`` finds: a ValueError that begins with ``where``."""
    if (fault := intrinsics_fault(K, size)) is not None:
        raise ValueError(f"{where and f'{where}: '}K has {fault[0]}, wanted {fault[1]}")


def outside_remark(K: np.ndarray, size: tuple[int, int]) -> str:
    """A sentence where the principal point is outside the image, which is rare for a whole image; else ""."""
    height, width = size
    x, y = K[:2, 2]
    if 0 <= x <= width - 1 and 0 <= y <= height - 1:
        return ""
    return (
        f"the principal point ({x:g}, {y:g}) is outside the image of {width}x{height} pixels: is it a part of another?"
    )
