"""Backbones that trainings start from: torchvision's and timm's ResNets (ImageNet), MMPose's MSPN (COCO keypoints).

Their tensors have the names and shapes of das/backbone.py. MMPose's files hold a whole pose network, whose backbone has
the prefix ``backbone.``. What no backbone here has is left by name: the classifier of the ResNets and the heatmap head
of MMPose's networks.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from das.backbone import Backbone
from das.checkpoint import network_shapes
from das.config import DASConfig
from das.model_info import shape_differences
from das.release.weights import BATCH_COUNT, refuse_not_finite, shapes_of
from pipeline.infra.files import local_copy
from pipeline.infra.redaction import redacted
from pipeline.infra.regular_files import sha256_of
from pipeline.weights.foreign_file import read_weights

LEFT = ("fc.", "keypoint_head.")
"""Beginnings of names that no backbone has; such tensors are left."""
_PREFIX = "backbone."
_RELEASE_HEAD = "bbox_head."


@dataclass(frozen=True)
class BackboneWeights:
    """A backbone's weights from a file.

    Attributes:
        tensors: by the names of the backbone's state dict; counts of batches may be missing.
        text: what was read and how its names map to the backbone's, a line.
    """

    tensors: dict[str, Tensor]
    text: str

    def load_into(self, backbone: Backbone) -> None:
        """Copies the tensors into a backbone of the configuration that they were read for."""
        backbone.load_state_dict({**backbone.state_dict(), **self.tensors})


def read_backbone(source: str, model: DASConfig) -> BackboneWeights:
    """The weights of a network's backbone in a file, every one of them.

    Args:
        source: path of the file or its URI in object storage; or its http(s) URL, which is downloaded once into torch's
            folder of downloads.
        model: the network.

    Raises:
        ValueError: from ``read_weights``, or the file's tensors are not those of this backbone: says how many fit, and
            the first ones that are missing, of another shape or unused.
    """
    name = redacted(source.partition("?")[0])
    with tempfile.TemporaryDirectory(prefix="weights-") as scratch:
        http = source.startswith(("http://", "https://"))
        path = _download(source) if http else local_copy(source, scratch)
        state, digest = read_weights(path), sha256_of(path)
    own = {k.removeprefix(_PREFIX): shape for k, shape in network_shapes(model).items() if k.startswith(_PREFIX)}
    if any(key.startswith(_RELEASE_HEAD) for key in state):
        raise ValueError(
            f"{name} is a whole model of the official release: import it with `das import-release`, and start from "
            "the folder that this writes"
        )
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in state) else ""
    left = [key for key in state if key.startswith(LEFT)]
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key not in left}
    wanted = {key: shape for key, shape in own.items() if key in tensors or not key.endswith(BATCH_COUNT)}
    found = shapes_of(tensors)
    if differences := shape_differences(found, wanted):
        fitting = sum(found.get(key) == shape for key, shape in wanted.items())
        raise ValueError(f"{name} does not fit backbone {_named(model)}: {fitting} tensors fit, {differences}")
    refuse_not_finite(tensors)
    text = (
        f"backbone {_named(model)} starts from {name} (sha256 {digest[:16]}): {len(tensors)} tensors, "
        f"{prefix}NAME there is {_PREFIX}NAME here"
    )
    if left:
        parts = (f"{part}*" for part in LEFT if any(key.startswith(part) for key in left))
        text += f"; {len(left)} are left: {', '.join(parts)}"
    return BackboneWeights(tensors, text)


def _named(model: DASConfig) -> str:
    stages = f", {model.mspn_stages} stages" if model.backbone == "mspn" else ""
    return f"{model.backbone} (width {model.backbone_width}{stages})"


def _download(url: str) -> Path:
    """Local copy of a file; where its name holds a part of its hash, as torchvision's do, that is compared."""
    name = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2]) or "weights"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        hashed = re.search(r"-([0-9a-f]{8,})[._]", name)
        try:
            torch.hub.download_url_to_file(url, str(path), hashed[1] if hashed else None, progress=False)
        except RuntimeError as error:
            raise ValueError(f"{redacted(url.partition('?')[0])}: {error}") from error
    return path
