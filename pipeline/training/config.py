"""The configuration of a training: its model, its batches, and where and how long it runs. Each field is a flag."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from das.config import BACKBONE_NAMES, VARIANTS, DASConfig, PoseLikelihood, Update
from das.fields import at_least, check_name, check_values
from das.recipe import RECIPES, RecipeConfig, small_recipe
from das.skeleton import SKELETONS, Synthesised, read_skeleton, skeleton_named
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.configs import device_flag, one_of
from pipeline.training.optim_config import OptimConfig


def _workers(word: str) -> int | tuple[int, int]:
    fewest, _, most = word.partition(":")
    return (int(fewest), int(most)) if most else int(fewest)


_WORKERS = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N|MIN:MAX",
    instance_from_str=lambda words: _workers(words[0]),
    is_instance=lambda value: isinstance(value, int) or (isinstance(value, tuple) and len(value) == 2),
    str_from_instance=lambda value: [str(value) if isinstance(value, int) else f"{value[0]}:{value[1]}"],
)


@dataclass(frozen=True)
class ModelChoice:
    """A named variant, and the fields that experiments change; None keeps the variant's value."""

    variant: Annotated[str, one_of(VARIANTS)] = "small"
    """Published or small model that the other fields change (das/config.py)."""
    joints: str | None = None
    """Joint set to predict: panoptic15, muco21, ..., or a skeleton file (JSON); None keeps the variant's."""
    backbone: Annotated[str, one_of(BACKBONE_NAMES)] | None = None
    """Feature extractor; None keeps the variant's."""
    backbone_width: int | None = None
    """Channels of the backbone's first stage."""
    fpn_channels: int | None = None
    """Channels of the pyramid and of the head."""
    update: Update | None = None
    """Recursive update: none, single, multi or release."""
    update_layers: int | None = None
    """Number of update layers, 0 to 3."""
    pose_likelihood: PoseLikelihood | None = None
    """Loss of the joint offsets."""
    center: Literal["root", "box"] | None = None
    """Center of a person, around which feature points are positives: the root, or the middle of the box."""
    centerness_weight: float | None = None
    """lambda_1 of Eq. 10."""
    root_weight: float | None = None
    """lambda_2 of Eq. 10."""
    pose_weight: float | None = None
    """lambda_3 of Eq. 10."""

    def __post_init__(self) -> None:
        check_values(
            self,
            ("variant", self.variant in VARIANTS, f"one of {', '.join(VARIANTS)}"),
            ("backbone", self.backbone in (None, *BACKBONE_NAMES), f"one of {', '.join(BACKBONE_NAMES)}, or None"),
        )
        if self.joints is not None and self.joints not in SKELETONS and self.joints.endswith(".json"):
            # Replaced by the file's content: workers on other machines and later runs may not have the file.
            object.__setattr__(self, "joints", read_skeleton(self.joints).text)

    def build(self) -> DASConfig:
        """The model configuration; ValueError names a field with a bad value."""
        model = VARIANTS[self.variant]()
        changes = {k: v for k, v in asdict(self).items() if v is not None and k not in ("variant", "joints")}
        if self.joints is not None:
            changes["skeleton"] = skeleton_named(self.joints)
        # Zero layers and update "none" mean the same, so one of the two flags is enough.
        if changes.get("update_layers") == 0:
            changes["update"] = "none"
        elif changes.get("update") == "none":
            changes["update_layers"] = 0
        return replace(model, **changes)


@dataclass(frozen=True)
class IngestConfig:
    """How prepared Parquet becomes batches."""

    recipe: Annotated[str, one_of(RECIPES)] = "ours_panoptic"
    """Sizes and augmentation, with the release's deviations (das/recipe.py); 2D images have their own part of it."""
    width: int = 256
    """Width of the network input of recipe small, pixels; the other recipes have the published sizes."""
    height: int = 144
    """Height of the network input of recipe small, pixels."""
    augmentation: float = 1.0
    """Strength of recipe small's augmentation, 0 to 1; less for trainings of one or two passes."""
    synthesise: tuple[Synthesised, ...] = ()
    """Joints computed from others where the data lack them, such as COCO's neck (docs/joint_sets.md)."""
    mask_people_without_root: bool = True
    """Leave visible people without a usable root out of the confidence loss, where the recipe does (release: never)."""
    batch_size: int = 4
    """Images per worker and step."""
    accumulate: int = 1
    """Batches per optimiser step."""
    prefetch: int = 8
    """Batches made ahead on every worker."""
    threads: int = 0
    """Threads that decode and augment on every worker; 0 means as many as CPUs are reserved for it, and at least 2."""
    max_unreadable: int = 1000
    """Damaged images that a worker leaves out, counted and named in its log, before the training is refused."""
    decode_on: Literal["worker", "cluster"] = "worker"
    """Where rows are read and images decoded: in threads of the training worker, or by Ray Data in tasks on any node,
    which pays where CPU nodes have to help (docs/data.md); the batches are the same."""

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, accumulate=1, prefetch=1, threads=0, max_unreadable=0)
        check_values(
            self,
            ("recipe", self.recipe in RECIPES, f"one of {', '.join(RECIPES)}"),
            ("augmentation", 0 <= self.augmentation <= 1, "0 to 1"),
        )

    def build(self) -> RecipeConfig:
        """The data recipe: the named one, changed by the other fields."""
        if self.recipe == "small":
            recipe = small_recipe(self.width, self.height, self.augmentation)
        else:
            recipe = RECIPES[self.recipe]()
        masking = recipe.mask_people_without_root and self.mask_people_without_root
        return replace(recipe, synthesised_joints=self.synthesise, mask_people_without_root=masking)


@dataclass(frozen=True)
class TrainConfig:
    """One training. The same `name` in the same `storage` resumes; a finished one is a no-op."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")] = ()
    """Prepared data folders (or URIs), trained on together; default $DAS_PREPARED, else `prepared` of das.yaml."""
    repeat: tuple[int, ...] = ()
    """How often each folder's rows appear in an epoch; empty means once each."""
    val: str | None = None
    """Prepared folder whose val split picks the best epoch and the score threshold; None: the first of `data`."""
    val_images: int = 512
    """Largest number of validation images an epoch, evenly spread over the split."""
    oks_thresholds: tuple[float, ...] = (0.25, 0.5, 0.1, 0.9)
    """OKS above which a weaker candidate is suppressed: the one of these with the best F1 on val is stored with the
    model; empty keeps the model's own (release)."""
    name: str = "das-panoptic"
    """Name of the run: of its folder in the storage and of its MLflow run."""
    experiment: str = "das"
    """MLflow experiment."""
    model: ModelChoice = field(default_factory=ModelChoice)
    """The model."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    """How rows of Parquet become batches."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimisation."""
    pretrained: str | None = None
    """Weights to start from (docs/weights.md): a checkpoint folder or its URI, such as models:/NAME@ALIAS; or a file or
    URL of torchvision, timm or MMPose with weights of the backbone."""
    workers: Annotated[int | tuple[int, int], _WORKERS] = 1
    """Training processes; each takes one GPU with `--device cuda`. MIN:MAX is elastic: as many as find room, more when
    nodes come and fewer when they go; a step has the images of MAX workers whatever their number is."""
    gpu: Annotated[
        bool, device_flag(cpu=False, cuda=True), tyro.conf.FlagConversionOff, tyro.conf.arg(name="device")
    ] = False
    """cuda: a GPU for each worker, with nccl; cpu: CPUs, with gloo."""
    cpus_per_worker: float = 1.0
    """CPUs reserved for each worker."""
    threads: int = 0
    """torch threads per worker; 0 means as many as CPUs are reserved for it."""
    max_failures: int = 3
    """How often lost workers are replaced before the run fails; -1 means without limit."""
    keep: int = 2
    """Number of checkpoints kept: the best by validation; the last one is always among them."""
    checkpoint_minutes: float | None = 10.0
    """Minutes of training between checkpoints within an epoch: what a lost node costs at most; None: none."""
    checkpoint_steps: int | None = None
    """Optimiser steps between checkpoints within an epoch; None: none."""
    seed: int = 0
    """Seed of initial weights, order of rows and augmentation."""
    dry_run: bool = False
    """Take the first steps only, in the workers: memory, speed and expected duration are said, and nothing is kept."""
    profile: bool = False
    """Write what host and GPU do in three steps of the first worker into the run's folder, as trace.json.gz."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs and where results go."""

    def __post_init__(self) -> None:
        if self.repeat and len(self.repeat) != len(self.data):
            raise ValueError(f"repeat has {len(self.repeat)} entries, wanted {len(self.data)}, one per data folder")
        check_values(self, ("repeat", all(times >= 1 for times in self.repeat), "whole numbers from 1"))
        fitting = all(0 < threshold <= 1 for threshold in self.oks_thresholds)
        check_values(self, ("oks_thresholds", fitting, "numbers above 0 and at most 1"))
        at_least(self, val_images=1, keep=1, max_failures=-1, checkpoint_steps=1)
        fewest, most = self.fewest_workers, self.most_workers
        check_values(
            self,
            ("workers", 1 <= fewest <= most, "at least 1, or MIN:MAX with 1 <= MIN <= MAX"),
            ("checkpoint_minutes", self.checkpoint_minutes is None or self.checkpoint_minutes > 0, "above 0, or None"),
        )
        for flag in ("compile", "sync_norms"):
            if getattr(self.optim, flag) and not self.gpu:
                raise ValueError(f"optim.{flag} = True with device = cpu, wanted device = cuda")
        check_name(self)
        self.model.build()

    @property
    def fewest_workers(self) -> int:
        """Workers without which the training waits."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Workers of a full cluster."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def images_per_step(self) -> int:
        """Images of an optimiser step over all workers, whatever their number is now."""
        return self.ingest.batch_size * self.ingest.accumulate * self.most_workers

    @property
    def spare_cpus(self) -> float:
        """CPUs that a training needs beside its workers'.

        One where Ray tasks read for the workers: without it they would wait for rows, and the tasks for a CPU.
        """
        return 1.0 if self.ingest.decode_on == "cluster" else 0.0
