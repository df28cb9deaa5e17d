"""From stored rows to samples: the decoded image with the people that can be learned or scored."""

from __future__ import annotations

from collections import Counter

import numpy as np

from das.camera import ASSUMED_FOV_DEGREES, intrinsics_from_fov
from das.sample import Sample
from das.skeleton import skeleton_named
from das.transforms import inside, tight_boxes
from pipeline.data.record import UNLABELLED, Record, decode_image, left_out


def to_sample(record: Record, image: np.ndarray | None = None) -> tuple[Sample, Counter[str]]:
    """The decoded image with the people that can be learnt or scored, in the record's own joint set.

    A joint is visible when it is labelled (occluded joints are) and inside the image. The root is the mean of the
    skeleton's root joints. People have depth when the record has ``joints_cam``. An image without K gets intrinsics
    with a field of view of ``ASSUMED_FOV_DEGREES``. Of people who are left out, the tight boxes of visible joints
    are ``masked``.

    Args:
        record: the stored row.
        image: (H, W, 3) uint8 RGB to use instead of decoding the record's image.

    Returns:
        the sample, and the number of people left out by reason (``left_out``).

    Raises:
        ValueError: from ``decode_image``.
    """
    if image is None:
        image = decode_image(record)
    skeleton = skeleton_named(record.skeleton)
    labelled = record.state > UNLABELLED
    root = list(skeleton.root_indices)
    reasons = left_out(record)
    keep = reasons == ""
    seen = labelled & inside(record.joints_uv, record.height, record.width)
    uv = record.joints_uv[keep].astype(np.float64)
    cam, K = record.joints_cam, record.K
    if K is None:
        # An unknown camera (COCO): its people have no depth, so the guess decides nothing that is supervised.
        K = intrinsics_from_fov(record.width, record.height, ASSUMED_FOV_DEGREES)
    depth = np.zeros(uv.shape[:2]) if cam is None else cam[keep, :, 2].astype(np.float64)
    sample = Sample(
        key=record.key,
        skeleton=skeleton,
        image=image,
        K=K,
        distortion=np.zeros(5) if record.distortion is None else record.distortion,
        joints_uv=uv,
        joints_depth=depth,
        visible=seen[keep],
        root_uv=uv[:, root].mean(axis=1),
        root_depth=depth[:, root].mean(axis=1),
        has_depth=np.full(len(uv), cam is not None),
        masked=tight_boxes(record.joints_uv[~keep].astype(np.float64), seen[~keep]),
    )
    return sample, Counter(reasons[~keep].tolist())
