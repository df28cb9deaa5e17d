"""One image with its people, and a batch of such images.

Transforms map a ``Sample`` to a ``Sample``; ``collate`` packs several into a ``Batch``. Masks mark absent values, zeros
never do: ``visible`` for joints, ``has_depth`` for people annotated in 2D only, ``person_mask`` for padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from das.skeleton import Skeleton

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from das.assign import Targets


@dataclass
class Sample:
    """One image and its N usable people; arrays are NumPy, geometry is float64.

    Attributes:
        key: source/sequence/camera/frame, the identity of the image.
        skeleton: the joint set of the J joints below.
        image: (H, W, 3) uint8, RGB.
        K: (3, 3) intrinsics of this image, pixels; general after image transforms.
        distortion: (5,) or (12,) in OpenCV's order (``das.camera``); zeros for none.
        joints_uv: (N, J, 2) pixels in this (distorted) image; anything where not visible.
        joints_depth: (N, J) Z in mm, camera frame; anything where not visible or without depth.
        visible: (N, J) bool, joint is labelled (occluded joints included) and inside the image.
        root_uv: (N, 2) pixels; the skeleton's root joint, or the mean of both hips.
        root_depth: (N,) Z of the root in mm.
        has_depth: (N,) bool, person is annotated in 3D.
        masked: (M, 4) pixels, x0 y0 x1 y1: areas of visible people who are not among the N; no background either.
    """

    key: str
    skeleton: Skeleton
    image: np.ndarray
    K: np.ndarray
    distortion: np.ndarray
    joints_uv: np.ndarray
    joints_depth: np.ndarray
    visible: np.ndarray
    root_uv: np.ndarray
    root_depth: np.ndarray
    has_depth: np.ndarray
    masked: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))

    def __post_init__(self) -> None:
        n, j = self.visible.shape
        wanted = {
            "K": (3, 3),
            "distortion": (12,) if len(self.distortion) == 12 else (5,),
            "joints_uv": (n, j, 2),
            "joints_depth": (n, j),
            "root_uv": (n, 2),
            "root_depth": (n,),
            "has_depth": (n,),
            "masked": (len(self.masked), 4),
        }
        for name, shape in wanted.items():
            assert getattr(self, name).shape == shape, (self.key, name, getattr(self, name).shape, shape)
        assert j == len(self.skeleton), (self.key, j, self.skeleton.name)
        assert self.image.ndim == 3 and self.image.dtype == np.uint8, (self.key, self.image.dtype)

    def select(self, people: np.ndarray) -> Sample:
        """The same image with a subset of people; ``people`` is a bool mask (N,) or indices."""
        per_person = ("joints_uv", "joints_depth", "visible", "root_uv", "root_depth", "has_depth")
        return replace(self, **{name: getattr(self, name)[people] for name in per_person})


@dataclass
class Batch:
    """B images padded to one size, with people padded to the largest N; torch tensors.

    Attributes:
        keys: B sample keys.
        images: (B, 3, H, W) uint8 RGB, zero outside each image's own size; H and W are multiples of 32.
        sizes: (B, 2) int64, height and width of each image before padding.
        K: (B, 3, 3) float32, pixels of the network input. distortion: (B, 5) float32, (B, 12) if a lens has 12.
        joints_uv: (B, N, J, 2) float32 pixels. joints_depth: (B, N, J) float32 mm. visible: (B, N, J) bool.
        root_uv: (B, N, 2) float32 pixels. root_depth: (B, N) float32 mm.
        has_depth: (B, N) bool. person_mask: (B, N) bool, False for padding.
        masked: (B, M, 4) float32 pixels, x0 y0 x1 y1, areas that are no background; padding contains no point.
        targets: what the losses of one model need from the people (``das.assign.with_targets``), or None.
    """

    keys: list[str]
    images: Tensor
    sizes: Tensor
    K: Tensor
    distortion: Tensor
    joints_uv: Tensor
    joints_depth: Tensor
    visible: Tensor
    root_uv: Tensor
    root_depth: Tensor
    has_depth: Tensor
    person_mask: Tensor
    masked: Tensor
    targets: Targets | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``, all but the targets' counts."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which ``to`` copies while the GPU computes."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = [f.name for f in fields(self) if f.name not in ("keys", "targets")]
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, targets=self.targets and self.targets.map(change), **changed)


def collate(samples: list[Sample], pad_to: int = 32) -> Batch:
    """Packs samples of one skeleton into a ``Batch``; images keep their pixels, padded right and below."""
    import torch  # here: transforms of samples, as `das prepare` uses them, do without (it takes over a second)

    assert samples, "collate needs at least one sample"
    n = max(len(s.has_depth) for s in samples)
    j = len(samples[0].skeleton)
    assert all(s.skeleton == samples[0].skeleton for s in samples), "one batch, one joint set"
    height, width = (-(-max(s.image.shape[i] for s in samples) // pad_to) * pad_to for i in (0, 1))
    b = len(samples)
    # Channels last in memory, as images come and convolutions like it; copying to planes costs more than decoding.
    images = np.zeros((b, height, width, 3), np.uint8)
    for i, s in enumerate(samples):
        images[i, : s.image.shape[0], : s.image.shape[1]] = s.image

    def people(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        out = torch.zeros(b, n, *shape, dtype=dtype)
        for i, s in enumerate(samples):
            value = getattr(s, name)
            # Unlabelled values may be NaN. The masks mark them; a NaN would still spread through masked sums.
            out[i, : len(value)] = torch.from_numpy(np.nan_to_num(value)).to(dtype)
        return out

    terms = max(len(s.distortion) for s in samples)
    mask = torch.zeros(b, n, dtype=torch.bool)
    for i, s in enumerate(samples):
        mask[i, : len(s.has_depth)] = True
    boxes = max(len(s.masked) for s in samples)
    masked = torch.tensor([torch.inf, torch.inf, -torch.inf, -torch.inf]).repeat(b, boxes, 1)
    for i, s in enumerate(samples):
        masked[i, : len(s.masked)] = torch.from_numpy(s.masked)
    return Batch(
        keys=[s.key for s in samples],
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        sizes=torch.tensor([s.image.shape[:2] for s in samples]),
        K=torch.stack([torch.from_numpy(s.K) for s in samples]).float(),
        distortion=torch.from_numpy(
            np.stack([np.pad(s.distortion, (0, terms - len(s.distortion))) for s in samples])
        ).float(),
        joints_uv=people("joints_uv", (j, 2), torch.float32),
        joints_depth=people("joints_depth", (j,), torch.float32),
        visible=people("visible", (j,), torch.bool),
        root_uv=people("root_uv", (2,), torch.float32),
        root_depth=people("root_depth", (), torch.float32),
        has_depth=people("has_depth", (), torch.bool),
        person_mask=mask,
        masked=masked,
    )
