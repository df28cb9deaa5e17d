"""`das import-release`: a checkpoint file of the official release becomes a checkpoint folder of this project.

The folder holds the same files as that of a training: the network, the flows of its loss, and config.json with the
released architecture, recipe and threshold. That the weights were not trained here is written there too
(``das.model_info.Origin``).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.model_info import ModelInfo, Origin
from das.recipe import RecipeConfig, release_mupots_recipe, release_panoptic_recipe
from das.skeleton import Skeleton
from pipeline.data.catalog import CATALOG
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import load_manifest
from pipeline.data.pose_statistics import pose_statistics
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.code_version import code_version
from pipeline.infra.redaction import redacted
from pipeline.infra.regular_files import sha256_of
from pipeline.weights.config import ImportConfig

_RECIPES = {"panoptic": release_panoptic_recipe, "mupots": release_mupots_recipe}
# What the release trains on: of Panoptic and MuCo also what is validation data here, of COCO train2017.
_TRAINED_ON = {
    "panoptic": ("panoptic/train", "panoptic/val", "coco/train"),
    "mupots": ("muco/train", "muco/val", "coco/train"),
}
# Of Panoptic's files with 19 joints the release uses no nose, so only COCO's noses train the head: in the image, never
# in depth. MuCo labels all of its 21 joints.
_UNSUPERVISED: dict[str, tuple[str, ...]] = {"panoptic": ("head",), "mupots": ()}
_TERMS = "weights made with the code of Wang et al., CVPR 2022: the terms of whoever gives them out"


@dataclass(frozen=True)
class ImportResult:
    """The checkpoint folder that was written.

    Attributes:
        folder: path of it.
        info: content of its config.json.
        tensors: number of tensors of the file, of which every one was used.
    """

    folder: Path
    info: ModelInfo
    tensors: int

    def summary(self) -> str:
        """A few lines for the terminal."""
        origin, model = self.info.origin, self.info.model
        assert origin is not None
        lines = [
            f"{self.folder}: {origin.experiment} model of the release, {len(model.skeleton)} joints, all "
            f"{self.tensors} tensors of {origin.file} (sha256 {origin.sha256})"
        ]
        if self.info.mean_pose is None:
            lines.append(
                "without a mean pose: evaluations have no baseline and no first version can be promoted; "
                "import it with --data for one"
            )
        return "\n".join(lines + [f"  terms: {terms}" for terms in self.info.data["terms"]])


def import_release(config: ImportConfig) -> ImportResult:
    """Reads the file, checks every tensor, and writes the folder, whole or not at all.

    Raises:
        ValueError: a file that is no model of the release (the first missing, unused and misshapen tensors are
            named), a folder that holds something, or prepared data that give no mean pose; nothing is written.
    """
    if "://" in config.out:
        raise ValueError(f"out = {redacted(config.out)!r}, wanted a folder of this machine")
    out = Path(absolute_storage(config.out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists, wanted a new or empty folder")
    # Here: they import torch, for a second, and what is refused above needs none of it.
    from das.checkpoint import save_criterion, save_model
    from das.criterion import Criterion
    from das.model import DAS
    from das.release.weights import RELEASES, experiment_of, flows_of, load_official
    from pipeline.weights.foreign_file import read_weights

    state = read_weights(config.file)
    try:
        experiment = config.experiment or experiment_of(state)
        model = DAS(RELEASES[experiment]())
        criterion = Criterion(model.config)
        load_official(state, model, flows_of(criterion))
    except ValueError as error:
        raise ValueError(f"{config.file}: {error}") from error
    recipe = _RECIPES[experiment]()
    origin = Origin(Path(config.file).name, sha256_of(Path(config.file)), experiment, _TRAINED_ON[experiment])
    sources = list(dict.fromkeys(split.partition("/")[0] for split in origin.trained_on))
    info = ModelInfo(
        model=model.config,
        test_size=recipe.test_size,
        weights="raw",
        score_threshold=model.config.score_threshold,
        unsupervised_joints=_UNSUPERVISED[experiment],
        recipe=recipe.to_json(),
        data={
            "sources": sources,
            "fingerprints": [],
            "terms": [_TERMS, *(CATALOG[source].source.TERMS for source in sources)],
            "split": "train",
        },
        code_version=code_version(),
        mean_pose=_mean_pose(config.data, model.config.skeleton, recipe) if config.data else None,
        origin=origin,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save_model(staging, model, info)
        save_criterion(staging, criterion)
        staging.chmod(0o755)  # mkdtemp's folders are their maker's alone
        staging.replace(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return ImportResult(out, info, len(state))


def _mean_pose(
    folders: tuple[str, ...], skeleton: Skeleton, recipe: RecipeConfig
) -> tuple[tuple[float, float, float], ...]:
    """J x (x, y, z) mm: mean of joint - root over the people in 3D of the folders' training splits.

    Raises:
        ValueError: a folder without a training split or of an old converter version, or no person in 3D.
    """
    everyone = JointStatistics()
    for folder in folders:
        manifest = load_manifest(absolute_storage(folder))
        split = manifest.splits.get("train")
        found = JointStatistics.from_json(split.statistics) if split else JointStatistics()
        if not found.skeletons or not found.complete:
            raise ValueError(f"{folder}: its manifest has no statistics of a split train, wanted the training data")
        everyone.merge(found)
    mean = pose_statistics(everyone, skeleton, recipe).mean_pose
    if not np.any(mean):
        raise ValueError(f"{', '.join(folders)}: no person in 3D, wanted training data with joints in 3D")
    return tuple((float(x), float(y), float(z)) for x, y, z in mean)
