"""Everything that decides the model and its loss, in one frozen dataclass, and the named variants.

Where the paper (Wang et al., CVPR 2022) and the official release differ, the choice is a field here, and the variant
functions at the end set it (docs/release.md lists all of them). A configuration checks its values when it is created.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from das.fields import at_least, check_json, check_threshold, check_types, check_values
from das.skeleton import MUCO21, PANOPTIC15, Skeleton

BACKBONE_NAMES = ("resnet18", "resnet34", "resnet50", "mspn")
"""Feature extractors; das/backbone.py builds them. Their names are here because configurations do without torch."""
Update = Literal["none", "single", "multi", "release"]
RootDepthLoss = Literal["l1", "smooth_l1"]
PoseLikelihood = Literal["l1", "rle", "rle_release"]


@dataclass(frozen=True)
class DASConfig:
    """Architecture, units, assignment, loss and decoding of one DAS model. Defaults are ours."""

    skeleton: Skeleton = PANOPTIC15
    """The joints that are predicted; its root must be one of them."""

    backbone: str = "resnet50"
    """Feature extractor, one of das/backbone.py: a ResNet (torchvision's parameter names) or mspn (the release's)."""
    backbone_width: int = 64
    """Channels of the backbone's first stage; 64 is the published width."""
    mspn_stages: int = 2
    """Number of MSPN stages, 1 to 4; used only by backbone mspn."""

    strides: tuple[int, ...] = (8, 16, 32, 64)
    """Strides of the feature pyramid's levels, in input pixels, each twice the one before, from 8."""
    range_ends: tuple[float, ...] = (80.0, 160.0, 320.0)
    """Largest r_max (input pixels, Section 3.2) of every level but the last, which is open."""
    fpn_channels: int = 256
    """Channels of every pyramid level and of the head's towers."""
    fpn_norm: bool = True
    """Batch norm after every pyramid convolution."""
    head_norm: bool = True
    """Group norm (32 groups) in the head's and update's blocks; off, their convolutions have biases."""
    tower_deformable: bool = True
    """Second convolution of each tower is a modulated deformable one (DCNv2)."""

    update: Update = "multi"
    """Recursive update: none, single-source (Eq. 5-6), multi-source (Eq. 7) or the release's gated one."""
    update_layers: int = 1
    """How many times it is applied, 0 to 3."""
    update_samples: int = 4
    """Sampling locations per joint (the release reads each around the target and around the source)."""

    offset_origin: Literal["pixel", "root"] = "root"
    """Joint offsets start at the feature point (release) or at the predicted root (Eq. 3)."""
    root_depth_scale: float = 2.0
    """Raw root depth = this x Z_mm / mean focal of the network input."""
    joint_depth_unit: float = 500.0
    """Raw joint depth = (Z_joint - Z_root) in mm / this."""

    center: Literal["root", "box"] = "root"
    """Center of the positives and origin of r_max (Table 1a); regression targets stay relative to the root."""
    positives: Literal["square", "nearest"] = "nearest"
    """Feature points within 1.5 strides per axis, at most 9 (release), or the n_positive nearest (paper)."""
    positive_radius: float = 1.5
    """Half side of the square of positives, in strides; also the scale of the centerness target."""
    n_positive: int = 9
    """N_pos of Section 3.2; used only by positives nearest."""

    regress_root_xy: bool = True
    """L1 on the root's image offset (Eq. 2), and decoding uses it; the release does neither."""
    root_depth_loss: RootDepthLoss = "l1"
    """L1 (Eq. 2) or the release's smooth L1 with beta 1/9."""
    pose_likelihood: PoseLikelihood = "rle"
    """Eq. 3, Eq. 9 once per joint, or the release's form (log sigma twice, joint density three times)."""
    supervise_initial: bool = False
    """Also supervise the offsets before the update, with separate flows and a shared sigma (release)."""
    sigma_floor: float = 1e-3
    """Added to sigmoid(raw sigma)."""
    background_without_people: bool = True
    """A batch without positives still trains the background confidence; in the release all its losses are 0."""
    centerness_weight: float = 1.0
    """lambda_1 of Eq. 10."""
    root_weight: float = 1.0
    """lambda_2 of Eq. 10."""
    pose_weight: float = 1.0
    """lambda_3 of Eq. 10."""

    threshold_on: Literal["confidence", "score"] = "score"
    """What the threshold applies to: center confidence (paper), or confidence x centerness (release)."""
    score_threshold: float = 0.05
    """Only candidates strictly above it become people."""
    suppression: Literal["hard", "soft", "none"] = "hard"
    """How near-duplicates are removed, by object keypoint similarity."""
    oks_threshold: float = 0.9
    """Hard suppression removes candidates whose OKS with a better one is above this."""
    candidates_per_level: int = 1000
    """Best candidates of each level that are decoded."""
    max_people: int = 100
    """People kept per image."""

    def __post_init__(self) -> None:
        check_types(self)
        levels, ends = len(self.strides), self.range_ends
        powers = tuple(8 << i for i in range(min(levels, 10)))
        rising = all(a < b for a, b in zip((0.0, *ends), ends))
        checks = (
            ("skeleton", len(self.skeleton.root) == 1, "a skeleton whose root is one of its joints"),
            ("backbone", self.backbone in BACKBONE_NAMES, f"one of {', '.join(BACKBONE_NAMES)}"),
            ("backbone_width", self.backbone_width >= 8 and self.backbone_width % 8 == 0, "a multiple of 8"),
            ("mspn_stages", 1 <= self.mspn_stages <= 4, "1 to 4"),
            ("strides", self.strides == powers != (), "8, 16, 32, ... (at most 10)"),
            ("range_ends", len(ends) == levels - 1 and rising, f"{levels - 1} rising values above 0"),
            ("fpn_channels", self.fpn_channels % 32 == 0 and self.fpn_channels > 0, "a multiple of 32"),
            ("update_layers", 0 <= self.update_layers <= 3, "0 to 3"),
            (
                "update_layers",
                self.update_layers > 0 or self.update in ("none", "single"),
                f"at least 1 with update={self.update}",
            ),
            ("root_depth_scale", self.root_depth_scale > 0, "above 0"),
            ("joint_depth_unit", self.joint_depth_unit > 0, "above 0 (mm)"),
            ("positive_radius", self.positive_radius > 0, "above 0"),
            (
                "regress_root_xy",
                self.regress_root_xy or self.offset_origin == "pixel",
                "True with offset_origin=root, whose joints are placed from the regressed root",
            ),
            ("sigma_floor", self.sigma_floor > 0, "above 0"),
            ("oks_threshold", 0 < self.oks_threshold <= 1, "0 < x <= 1"),
        )
        check_values(self, *checks)
        check_threshold(self, "score_threshold")
        at_least(self, update_samples=1, n_positive=1, candidates_per_level=1, max_people=1)
        at_least(self, centerness_weight=0, root_weight=0, pose_weight=0)

    @property
    def n_joints(self) -> int:
        """J, the number of predicted joints."""
        return len(self.skeleton)

    @property
    def layers(self) -> int:
        """Number of update layers; kind none is the same as 0 layers."""
        return 0 if self.update == "none" else self.update_layers

    @property
    def level_ranges(self) -> tuple[tuple[float, float], ...]:
        """[low, high] of r_max per level, in input pixels, both ends included; the last one is open."""
        ends = (-1.0, *self.range_ends, 1e8)
        return tuple(zip(ends[:-1], ends[1:], strict=True))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for config.json; ``from_json`` inverts it."""
        return {**asdict(self), "skeleton": self.skeleton.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DASConfig:
        """Inverse of ``to_json``; ValueError names unknown, missing or bad fields."""
        check_json(cls, value, "model config")
        return cls(**{**value, "skeleton": Skeleton.from_json(value["skeleton"])})


def release_panoptic() -> DASConfig:
    """The released Panoptic model and loss to the last constant (exp_panoptic)."""
    return DASConfig(
        skeleton=PANOPTIC15,
        backbone="mspn",
        mspn_stages=2,
        update="release",
        update_layers=1,
        offset_origin="pixel",
        root_depth_scale=2.0,
        joint_depth_unit=500.0,
        positives="square",
        regress_root_xy=False,
        root_depth_loss="smooth_l1",
        pose_likelihood="rle_release",
        supervise_initial=True,
        sigma_floor=1e-9,
        background_without_people=False,
        pose_weight=2.0,
        threshold_on="score",
        score_threshold=0.07,
    )


def release_mupots() -> DASConfig:
    """The released MuPoTS model and loss (exp_mupots): 3-stage MSPN, 21 joints, 2 update layers."""
    return replace(
        release_panoptic(),
        skeleton=MUCO21,
        mspn_stages=3,
        update_layers=2,
        root_depth_scale=1.0,
        joint_depth_unit=50.0,
    )


def paper_resnet50() -> DASConfig:
    """What the paper writes, with its ablation's ResNet-50 and Table 1b's best row (3 update layers)."""
    return DASConfig(backbone="resnet50", update="multi", update_layers=3, threshold_on="confidence")


def paper_mspn() -> DASConfig:
    """What the paper writes, with the 2-stage MSPN of its Table 4."""
    return replace(paper_resnet50(), backbone="mspn", mspn_stages=2)


def small() -> DASConfig:
    """A model that learns in minutes on two CPU cores, for images a few hundred pixels wide.

    Its weights of Eq. 10 are far below 1. The gradients of depth and pose are many times those of the confidence: in a
    short training from scratch they would dominate the shared backbone, and neighbouring people would be merged.
    """
    return DASConfig(
        backbone="resnet18",
        backbone_width=16,
        strides=(8, 16, 32),
        range_ends=(40.0, 80.0),
        fpn_channels=32,
        head_norm=False,
        tower_deformable=False,
        update="multi",
        update_layers=1,
        n_positive=5,
        centerness_weight=0.5,
        root_weight=0.07,
        pose_weight=0.25,
        oks_threshold=0.25,
    )


VARIANTS = {f.__name__: f for f in (release_panoptic, release_mupots, paper_resnet50, paper_mspn, small)}
