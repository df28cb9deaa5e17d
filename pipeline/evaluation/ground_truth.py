"""Ground truth of each protocol from rows of prepared data: which people, which joints, which pixels.

The protocols differ in all three, so each has a function here. Frame i of a table is records[i].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from das.camera import back_project
from das.metrics.bootstrap import SECONDS, Clusters, blocks
from das.metrics.panoptic import annotated, release_truth
from das.metrics.tables import Predictions, Truth, required
from das.skeleton import COCO17, COCO19, MPI15, PANOPTIC15, Skeleton, conversion, skeleton_named
from das.transforms import inside
from das.uncertainty import joint_scales
from pipeline.data.record import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.evaluation.annotations import ImageIndex
from pipeline.evaluation.protocols.sums import Cells

if TYPE_CHECKING:
    from das.decode import People

# Sources in Panoptic's layout, on which its published evaluators are defined.
_PANOPTIC_SOURCES = ("panoptic", "synthetic")
# The release drops people with fewer annotated joints.
_LEAST_JOINTS = 3
# Frame numbers per second of recordings. Photos get a rate so low that each is a block of its own.
_RATES = {"panoptic": 29.97, "synthetic": 29.97, "coco": 1 / SECONDS}
# For recordings of unpublished rate, Hz. Blocks of 5 s at this rate last at least 5 s at any lower one.
_ASSUMED_RATE = 60.0


def image_clusters(index: ImageIndex) -> Clusters:
    """Blocks of neighbouring images, which show nearly the same scene: the units that intervals draw again."""
    several = len(np.unique(index.sources)) > 1
    names = index.sources + "/" + index.sequences if several else index.sequences
    return clusters_of(index.sources, names, index.frames)


def image_cells(index: ImageIndex) -> Cells:
    """The cells in which sums over images are kept."""
    return Cells.cut(image_clusters(index), index.sequences, index.activities)


def clusters_of(sources: np.ndarray, sequences: np.ndarray, frames: np.ndarray) -> Clusters:
    """The same from the images' sources, sequences and frame numbers, (F,) each."""
    names, of = np.unique(sources, return_inverse=True)
    return blocks(sequences, frames, np.array([_RATES.get(str(name), _ASSUMED_RATE) for name in names])[of])


# ---- strict ----


def strict_truth(records: Sequence[Record], skeleton: Skeleton) -> Truth:
    """People of images in the joints that the model predicts, for the strict protocol; frame i is records[i].

    Scored are labelled joints (occluded ones included) inside the image, what training supervises. People without
    joints or that the source marks as ignored or invalid are ignored: they are not misses, and predictions of
    them are not false positives.

    Raises:
        ValueError: if an image has no 3D joints; names its key.
    """
    frame, cam, uv, scored, bbox, ignore, known = [], [], [], [], [], [], []
    for i, record in enumerate(records):
        if record.joints_cam is None:
            raise ValueError(f"{record.key}: 2D annotations only, the strict protocol needs joints_cam")
        index = np.array(conversion(skeleton_named(record.skeleton), skeleton).index)
        labelled = record.state > UNLABELLED
        visible = labelled & inside(record.joints_uv, record.height, record.width)
        frame.append(np.full(len(record), i))
        cam.append(record.joints_cam[:, index])
        uv.append(record.joints_uv[:, index])
        scored.append(visible[:, index] & (index >= 0))
        known.append(labelled[:, index] & (index >= 0))
        bbox.append(record.bbox)
        ignore.append(record.ignore | ~record.valid)
    return Truth(
        frame=_rows(frame, ()),
        joints_cam=_rows(cam, (len(skeleton), 3)),
        scored=_rows(scored, (len(skeleton),)),
        joints_uv=_rows(uv, (len(skeleton), 2)),
        bbox=_rows(bbox, (4,)),
        ignore=_rows(ignore, ()),
        labelled=_rows(known, (len(skeleton),)),
    )


def predicted(people: Sequence[People[np.ndarray]], n_joints: int) -> Predictions:
    """People predicted on images; frame i is the i-th image, people[i]."""
    return Predictions(
        frame=_rows([np.full(len(p.scores), i) for i, p in enumerate(people)], ()),
        joints_cam=_rows([p.joints_cam for p in people], (n_joints, 3)),
        scores=_rows([p.scores for p in people], ()),
        joints_uv=_rows([p.joints_uv for p in people], (n_joints, 2)),
        scales=_rows([joint_scales(p.sigma_mm, p.joints_cam) for p in people], (n_joints,)),
    )


# ---- CMU Panoptic ----


@dataclass(frozen=True)
class PanopticTruth:
    """What ``panoptic_release`` takes besides predictions; T people in F images.

    Attributes:
        truth: the release's ground truth.
        joints_cam: (T, 15, 3) mm, true camera-space joints, and known: (T, 15) bool, which of them are annotated: both
            of the mean pose that replaces missing predictions.
        R: (F, 3, 3) world to camera. activity: (F,) names.
    """

    truth: Truth
    joints_cam: np.ndarray
    known: np.ndarray
    R: np.ndarray
    activity: np.ndarray


def panoptic_truth(records: Sequence[Record]) -> PanopticTruth:
    """Rows in Panoptic's layout as the release annotates them; frame i is records[i].

    A joint is known above confidence 0.1, joint 1 only where it is the head top (mpi15); it is scored when it is
    also inside the image. Ground truth is the distorted pixel, back-projected by the pinhole without undistortion.
    """
    parts, cam, known, R = [], [], [], []
    for i, record in enumerate(records):
        assert record.joints_cam is not None and record.confidence is not None and record.K is not None
        native = skeleton_named(record.skeleton)
        index = np.array(conversion(native, PANOPTIC15).index)
        joints_cam = record.joints_cam[:, index].astype(np.float64)
        here = annotated(record.confidence[:, index], np.full(len(record), native == MPI15))
        parts.append(
            release_truth(
                frame=np.full(len(record), i),
                joints_uv=record.joints_uv[:, index].astype(np.float64),
                depth=joints_cam[..., 2],
                K=np.broadcast_to(record.K, (len(record), 3, 3)),
                # A joint outside the lens model's valid range has no pixel: the source leaves it unlabelled.
                known=here & (record.state[:, index] > UNLABELLED),
                width=record.width,
                height=record.height,
                ignore=record.ignore | ~record.valid | (here.sum(axis=1) < _LEAST_JOINTS),
            )
        )
        cam.append(joints_cam)
        known.append(here)
        R.append(record.R)
    truth = Truth(
        frame=_rows([part.frame for part in parts], ()),
        joints_cam=_rows([part.joints_cam for part in parts], (15, 3)),
        scored=_rows([part.scored for part in parts], (15,)),
        ignore=_rows([part.ignore for part in parts if part.ignore is not None], ()),
    )
    activity = np.array([record.activity or "no activity" for record in records])
    return PanopticTruth(truth, _rows(cam, (15, 3)), _rows(known, (15,)), np.array(R), activity)


def pinhole_predictions(predictions: Predictions, records: Sequence[Record]) -> Predictions:
    """Predictions as the release has them: its network gives u, v and Z, and the pinhole back-projects these.

    Pixels of a distorting lens are back-projected as if there were no distortion, as in ``panoptic_truth``; so a
    perfect network has an error of 0. Ours are undistorted; compared as they are, a perfect network would be about
    10 mm off with the lenses of CMU Panoptic.
    """
    if not len(predictions):
        return predictions
    K = np.stack([required(record.K, "K") for record in records])[predictions.frame]
    uv = required(predictions.joints_uv, "Predictions.joints_uv")
    return replace(predictions, joints_cam=back_project(uv, predictions.joints_cam[..., 2], K))


def in_panoptic_layout(record: Record) -> bool:
    """Whether Panoptic's published evaluators are defined on this row."""
    annotated_so = record.skeleton in (COCO19.name, MPI15.name) and record.confidence is not None
    return record.source in _PANOPTIC_SOURCES and annotated_so and record.R is not None


def smap_truth(records: Sequence[Record]) -> tuple[Truth, np.ndarray]:
    """Rows in Panoptic's layout as SMAP's evaluator takes them, and which joints are annotated at all, (T, 15) bool.

    Scored are joints that are visible inside the image; the evaluator uses this of the root only, for pairing. Ground
    truth is the camera-space joint itself. Joint 1 is the source's: nose (coco19) or head top (mpi15).
    """
    frame, cam, uv, scored, known, ignore = [], [], [], [], [], []
    for i, record in enumerate(records):
        assert record.joints_cam is not None and record.confidence is not None
        index = np.array(conversion(skeleton_named(record.skeleton), PANOPTIC15).index)
        seen = (record.state == VISIBLE) & inside(record.joints_uv, record.height, record.width)
        frame.append(np.full(len(record), i))
        cam.append(record.joints_cam[:, index])
        uv.append(record.joints_uv[:, index])
        scored.append(seen[:, index])
        known.append(record.confidence[:, index] >= 0)
        ignore.append(record.ignore | ~record.valid)
    truth = Truth(
        frame=_rows(frame, ()),
        joints_cam=_rows(cam, (15, 3)),
        scored=_rows(scored, (15,)),
        joints_uv=_rows(uv, (15, 2)),
        ignore=_rows(ignore, ()),
    )
    return truth, _rows(known, (15,))


# ---- MuPoTS-3D ----


GroundTruth = Literal["annot3", "univ_annot3"]


def mupots_truth(records: Sequence[Record], ground_truth: GroundTruth = "annot3") -> tuple[Truth, np.ndarray]:
    """Valid people of MuPoTS-3D and which of their joints are occluded, (T, 17) bool; all joints count.

    Ground truth is ``annot3``, in millimetres, or ``univ_annot3``, scaled to one universal skeleton, where the rows
    have that. Pixels are those of the stored image.
    """
    frame, cam, uv, occluded = [], [], [], []
    for i, record in enumerate(records):
        joints = record.joints_cam if ground_truth == "annot3" else record.joints_cam_univ
        assert joints is not None
        use = record.valid & ~record.ignore
        frame.append(np.full(use.sum(), i))
        cam.append(joints[use])
        uv.append(record.joints_uv[use])
        occluded.append(record.state[use] == OCCLUDED)
    joints_cam = _rows(cam, (17, 3))
    all_joints = np.ones(joints_cam.shape[:2], bool)
    return Truth(_rows(frame, ()), joints_cam, all_joints, _rows(uv, (17, 2))), _rows(occluded, (17,))


# ---- COCO ----


def truth_2d(records: Sequence[Record], skeleton: Skeleton) -> tuple[Truth, tuple[str, ...]]:
    """People annotated in 2D only, and the joints of COCO17 that a model of this joint set predicts.

    The rows are of COCO17. Scored are labelled joints, occluded ones included; the columns are those joints, and
    ``joints_cam`` is all zeros.
    """
    joints = tuple(j for j, at in zip(COCO17.joints, coco17_columns(skeleton), strict=True) if at >= 0)
    columns = [COCO17.index(joint) for joint in joints]
    uv = _rows([record.joints_uv[:, columns] for record in records], (len(joints), 2))
    truth = Truth(
        frame=_rows([np.full(len(record), i) for i, record in enumerate(records)], ()),
        joints_cam=np.zeros((*uv.shape[:2], 3)),
        scored=_rows([record.state[:, columns] > UNLABELLED for record in records], (len(joints),)),
        joints_uv=uv,
        bbox=_rows([record.bbox for record in records], (4,)),
        ignore=_rows([record.ignore for record in records], ()),
    )
    return truth, joints


def coco17_columns(skeleton: Skeleton) -> tuple[int, ...]:
    """Index of the model's joint for each joint of COCO17, or -1: the inverse of the conversion used in training."""
    trained = conversion(COCO17, skeleton).index
    return tuple(trained.index(k) if k in trained else -1 for k in range(len(COCO17)))


def _rows(parts: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) else np.zeros((0, *shape))
