"""DAS, the Distribution-Aware Single-Stage model for multi-person 3D pose (Wang et al., CVPR 2022).

One network finds the root of every person in an image and regresses all body joints in camera space in one pass. A
normalizing flow shapes the regression loss; a recursive update refines each joint. The method is the files of this
folder. Reading order:

    skeleton, camera, sample, fields, config   joint sets; pixels and millimetres; an image with its people; all choices
    backbone, fpn, deform_conv, head           image to maps (Section 3.1); grid: bilinear reading between cells
    recursive_update, model                    refined maps (Eq. 5-7); the whole network
    assign, codec, flow, loss                  positives and targets (Section 3.2), network units, likelihoods
    criterion, train_step                      the objective (Eq. 10)
    decode, oks, predictor                     maps to people in camera space
    recipe, transforms, checkpoint             stored images to network inputs; trained models as folders

Three rooms use the method, which imports none of them:

    metrics/    evaluation: tables (input tables, matching, errors), bootstrap (intervals), strict (our protocol),
                panoptic, mupots, coco (published protocols)
    draw/       pictures: people, top_view, method (what the network computes); primitives and montage serve them
    release/    what is peculiar to the official release: geometry (its camera and converter), weights (its tensors)

Nothing here imports Ray, MLflow or Parquet. docs/release.md lists every difference between the release and ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from das.config import DASConfig
from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, PANOPTIC15, Skeleton

if TYPE_CHECKING:
    from das.criterion import Criterion
    from das.model import DAS
    from das.predictor import Prediction, Predictor
    from das.train_step import TrainStep

__version__ = "0.1.0"

__all__ = [
    "COCO17",
    "COCO19",
    "DAS",
    "MPI15",
    "MUCO21",
    "MUPOTS17",
    "PANOPTIC15",
    "Criterion",
    "DASConfig",
    "Prediction",
    "Predictor",
    "Skeleton",
    "TrainStep",
]


def __getattr__(name: str) -> Any:
    """The classes that need torch, imported on first use: torch takes over a second, and help needs none of it."""
    if name in ("Prediction", "Predictor"):
        from das import predictor

        return getattr(predictor, name)
    if name == "DAS":
        from das.model import DAS

        return DAS
    if name == "Criterion":
        from das.criterion import Criterion

        return Criterion
    if name == "TrainStep":
        from das.train_step import TrainStep

        return TrainStep
    raise AttributeError(f"module 'das' has no attribute {name!r}")
