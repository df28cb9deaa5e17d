"""DAS, the Distribution-Aware Single-Stage model for multi-person 3D pose (Wang et al., CVPR 2022).

One network finds every person's root in an image and regresses all body joints in camera space in one pass; a
normalizing flow shapes the regression loss, a recursive update refines each joint. Read it as the method goes:

    skeleton, camera, sample, config     joint sets, pixels and millimetres, what a picture holds, all choices
    backbone, fpn, deform_conv, head     image to maps (Section 3.1); grid: where cells are read between
    recursive_update, model              maps to better maps (Eq. 5-7)
    assign, codec, flow, loss            which point learns what (Section 3.2), in which units, by which likelihood
    criterion, train_step                the objective (Eq. 10)
    decode, oks, predictor               maps to people
    metrics, strict, protocols_*         how good they are; bootstrap: how sure that is
    recipe, transforms, checkpoint       around it; official* holds what is peculiar to the official release
    visualize*, top_view                 pictures of people and of the method; drawing, sheets: what they are made of

Nothing here knows Ray, MLflow or Parquet.
"""

from das.config import DASConfig
from das.criterion import Criterion
from das.model import DAS
from das.predictor import Prediction, Predictor
from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, PANOPTIC15, Skeleton
from das.train_step import TrainStep

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
