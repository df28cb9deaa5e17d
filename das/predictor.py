"""Predictor: from images and their cameras to people in camera space; used by notebooks, commands and workers alike.

An image passes three stages, each a method so that they can be timed alone: ``prepare`` (the test transform,
padding), ``network`` and ``people`` (decoding). All that is needed is a checkpoint folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das.camera import ASSUMED_FOV_DEGREES, CameraSource, intrinsics_from_fov, lens_coefficients, mean_focal
from das.camera_check import check_intrinsics
from das.checkpoint import load_model
from das.decode import People, decode_at
from das.model import DAS, HeadOutput, channels_last
from das.model_info import ModelInfo
from das.skeleton import Skeleton
from das.transforms import test_transform
from das.uncertainty import Calibration, joint_scales

_PAD_TO = 32


@dataclass(frozen=True)
class Prediction:
    """The people of one image, and the camera with which they were placed in space.

    Attributes:
        people: arrays of all J joints, best score first; pixels of the given image, mm in its camera frame.
        skeleton: the joint set.
        valid: (J,) bool, joints that training supervised; predictions of the others are noise and must not be shown.
        image_size: (height, width) in pixels.
        K: (3, 3) intrinsics that were used, pixels.
        distortion: (5,) or (12,) that was used (``lens_coefficients``).
        source: how the camera is known.
        calibration: of the model's doubt; None where it has none.
    """

    people: People[np.ndarray]
    skeleton: Skeleton
    valid: np.ndarray
    image_size: tuple[int, int]
    K: np.ndarray
    distortion: np.ndarray
    source: CameraSource
    calibration: Calibration | None = None

    @property
    def assumed_camera(self) -> bool:
        """Whether the camera was guessed; all depths are then proportional to the guessed focal length."""
        return self.source.kind == "assumed"

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the valid joints."""
        return tuple(name for name, ok in zip(self.skeleton.joints, self.valid, strict=True) if ok)

    def joint_radii(self, level: float = 0.9) -> np.ndarray | None:
        """Radius (n, J) mm about each joint, relative to the root, that holds it with a probability of ``level``.

        None without a calibration, infinite where it had too few people. True for people like those that the model was
        calibrated on (das/uncertainty.py).
        """
        if self.calibration is None:
            return None
        scales = joint_scales(self.people.sigma_mm, self.people.joints_cam)
        return self.calibration.joint_radii(scales, self.skeleton, level)

    def root_radii(self, level: float = 0.9) -> np.ndarray | None:
        """Radius (n,) mm about each root that holds it with a probability of ``level``; None as in ``joint_radii``."""
        return None if self.calibration is None else self.calibration.root_radii(self.people.root_cam, level)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, valid joints only: mm to 3 decimals, pixels to 6, scores to 4.

        ``root_depth_over_focal`` and ``depths_from_root`` are what the network predicts whatever the focal length: with
        them and the pixels, a focal length that is learned later gives the same mm as a prediction with it.
        """
        people, focal = self.people, float(mean_focal(self.K))
        height, width = self.image_size
        depths = people.joints_cam[..., 2] - people.root_cam[:, None, 2]
        joints, roots = self.joint_radii(), self.root_radii()
        return {
            "units": {
                "joints_cam": "mm, camera frame: x right, y down, z forward",
                "joints_uv": "pixels of the image, (0, 0) is the centre of the top left pixel",
                "score": "center confidence x centerness, 0 to 1",
                "root_depth_over_focal": "mm per pixel of focal_px",
                "depths_from_root": "mm, z of the joint less z of the root",
                "p90_mm": "mm, radius that holds the joint, relative to the root, with probability 0.9",
                "root_p90_mm": "the same of the root",
            },
            "image": {"height": height, "width": width},
            "camera": {
                "source": self.source.kind,
                "assumed": self.assumed_camera,
                "numbers": dict(self.source.numbers),
                "remark": self.source.remark,
                "focal_px": focal,
                "K": self.K.tolist(),
                "distortion": self.distortion.tolist(),
            },
            "joint_names": list(self.joint_names),
            "bones": [[a, b] for a, b in self.skeleton.bones if {a, b} <= set(self.joint_names)],
            "root": list(self.skeleton.root),
            "people": [
                {
                    "score": round(float(people.scores[i]), 4),
                    "root_cam": people.root_cam[i].round(3).tolist(),
                    "root_uv": people.root_uv[i].round(6).tolist(),
                    "joints_cam": people.joints_cam[i, self.valid].round(3).tolist(),
                    "joints_uv": people.joints_uv[i, self.valid].round(6).tolist(),
                    "root_depth_over_focal": float(people.root_cam[i, 2]) / focal,
                    "depths_from_root": depths[i, self.valid].round(6).tolist(),
                    "p90_mm": None if joints is None else [_finite(radius) for radius in joints[i, self.valid]],
                    "root_p90_mm": None if roots is None else _finite(roots[i]),
                }
                for i in range(len(people))
            ],
        }


@dataclass
class Inputs:
    """B images as the network takes them.

    Attributes:
        images: (B, 3, H, W) uint8 RGB on the predictor's device, H and W multiples of 32.
        sizes: (B, 2) height and width before padding, pixels.
        K: (B, 3, 3) float64 of the network input. distortion: (B, 5) or (B, 12) float64.
        image_transform: (B, 2, 3) float64, original to network-input pixels.
    """

    images: Tensor
    sizes: Tensor
    K: Tensor
    distortion: Tensor
    image_transform: Tensor


class Predictor:
    """A trained model ready for images of any size.

    Args:
        model: the network.
        info: its description; test size, score threshold and unsupervised joints are read from it.
        device: where the network runs; None leaves it where it is.
        bf16: run the network under bfloat16 autocast: faster where the processor has such instructions.
        threshold: replaces the checkpoint's score threshold; protocols that choose among candidates need
            a low one.
        sigma: compute the scales of the joints' likelihood; None where the checkpoint has a calibration that uses them.
    """

    def __init__(
        self,
        model: DAS,
        info: ModelInfo,
        device: str | None = None,
        bf16: bool = False,
        threshold: float | None = None,
        sigma: bool | None = None,
    ) -> None:
        self.device = next(model.parameters()).device if device is None else torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device = {device!r}, but torch sees no GPU here; wanted cpu")
        self.info = info
        self.bf16 = bf16
        self.threshold = info.score_threshold if threshold is None else threshold
        self.sigma = (info.calibration is not None and info.calibration.uses_sigma) if sigma is None else sigma
        self.skeleton = info.model.skeleton
        self.valid = np.array([j not in info.unsupervised_joints for j in self.skeleton.joints])
        self.model = model.to(self.device).eval()
        channels_last(self.model)

    @classmethod
    def from_folder(
        cls, folder: str | Path, device: str = "cpu", bf16: bool = False, threshold: float | None = None
    ) -> Predictor:
        """From a checkpoint folder (das/checkpoint.py), which alone suffices; ValueError if it is not one."""
        return cls(*load_model(folder), device=device, bf16=bf16, threshold=threshold)

    def predict(
        self,
        image: np.ndarray,
        K: np.ndarray | None = None,
        distortion: np.ndarray | None = None,
        fov_degrees: float = ASSUMED_FOV_DEGREES,
    ) -> Prediction:
        """People of one image; arguments as in ``predict_batch``."""
        return self.predict_batch([image], [K], [distortion], fov_degrees)[0]

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        Ks: Sequence[np.ndarray | None] | None = None,
        distortions: Sequence[np.ndarray | None] | None = None,
        fov_degrees: float = ASSUMED_FOV_DEGREES,
    ) -> list[Prediction]:
        """People of B images, which may differ in size.

        Args:
            images: (H, W, 3) uint8 RGB each.
            Ks: (3, 3) intrinsics in pixels each; None where the camera is unknown: it is taken to see
                ``fov_degrees``, with its centre in the middle.
            distortions: OpenCV's coefficients each (``lens_coefficients``), or None for none.
            fov_degrees: field of view of unknown cameras, along the image's longer side.

        Raises:
            ValueError: for an image, intrinsics or distortion of another type or shape.
        """
        Ks = [None] * len(images) if Ks is None else Ks
        distortions = [None] * len(images) if distortions is None else distortions
        if not images:
            return []
        used, lenses = self.cameras(images, Ks, distortions, fov_degrees)
        inputs = self.prepare(images, used, lenses)
        found = self.people(self.network(inputs), inputs)
        assumed = CameraSource("assumed", {"fov_degrees": fov_degrees})
        return [
            Prediction(
                people=people.numpy(),
                skeleton=self.skeleton,
                valid=self.valid,
                image_size=(image.shape[0], image.shape[1]),
                K=K,
                distortion=lens,
                source=assumed if given is None else CameraSource("given"),
                calibration=self.info.calibration,
            )
            for people, image, K, lens, given in zip(found, images, used, lenses, Ks, strict=True)
        ]

    def cameras(
        self,
        images: Sequence[np.ndarray],
        Ks: Sequence[np.ndarray | None],
        distortions: Sequence[np.ndarray | None],
        fov_degrees: float = ASSUMED_FOV_DEGREES,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Intrinsics (3, 3) and lens (5,) or (12,) of every image, checked or guessed; arguments as ``predict_batch``.

        Raises:
            ValueError: for an image, intrinsics or distortion of another type or shape.
        """
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(f"image is {image.dtype} {image.shape}, wanted uint8 (H, W, 3)")
        guesses = (intrinsics_from_fov(image.shape[1], image.shape[0], fov_degrees) for image in images)
        used = [
            _intrinsics(guess if K is None else K, image) for K, guess, image in zip(Ks, guesses, images, strict=True)
        ]
        return used, [np.zeros(5) if lens is None else lens_coefficients(lens) for lens in distortions]

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the padded network input of an image of this size, pixels.

        Images of one input size do not change each other in a batch; a larger neighbour adds padding.
        """
        rows, columns = (-(-side // _PAD_TO) * _PAD_TO for side in self.info.test_size.fit(height, width))
        return rows, columns

    def prepare(
        self, images: Sequence[np.ndarray], Ks: Sequence[np.ndarray], distortions: Sequence[np.ndarray]
    ) -> Inputs:
        """Resizes B images (H, W, 3) to the checkpoint's test size and pads all to one size.

        Args:
            images: uint8 RGB each, of any size.
            Ks: (3, 3) intrinsics each, pixels of the given image.
            distortions: (5,) or (12,) each, OpenCV order.
        """
        size = self.info.test_size
        terms = max(len(lens) for lens in distortions)
        lenses = [np.concatenate([lens, np.zeros(terms - len(lens))]) for lens in distortions]
        moved = [test_transform(image, K, size) for image, K in zip(images, Ks, strict=True)]
        resized, transforms, new_Ks = zip(*moved, strict=True)
        sizes = np.array([image.shape[:2] for image in resized])
        height, width = np.max([self.input_size(*image.shape[:2]) for image in images], axis=0)
        padded = np.zeros((len(images), height, width, 3), np.uint8)
        for target, image in zip(padded, resized, strict=True):
            target[: image.shape[0], : image.shape[1]] = image
        return Inputs(
            images=torch.from_numpy(padded).permute(0, 3, 1, 2).to(self.device),
            sizes=torch.from_numpy(sizes).to(self.device),
            K=torch.from_numpy(np.stack(new_Ks)),
            distortion=torch.from_numpy(np.stack(lenses)),
            image_transform=torch.from_numpy(np.stack(transforms)),
        )

    @torch.inference_mode()
    def network(self, inputs: Inputs) -> HeadOutput:
        """Normalises B inputs and runs the network: maps of every level, in network units."""
        images = self.model.normalize(inputs.images, inputs.sizes)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(images, want_sigma=self.sigma)

    def people(self, output: HeadOutput, inputs: Inputs) -> list[People[Tensor]]:
        """Decodes B images' maps: each one's people, in original pixels and in mm in its camera's frame."""
        return self.people_at(output, inputs, [self.info.model.oks_threshold])[0]

    def people_at(
        self, output: HeadOutput, inputs: Inputs, oks_thresholds: Sequence[float]
    ) -> list[list[People[Tensor]]]:
        """What ``people`` gives with each of several OKS thresholds of suppression."""
        K, distortion, A, sizes = inputs.K, inputs.distortion, inputs.image_transform, inputs.sizes
        valid = torch.from_numpy(self.valid)
        return decode_at(oks_thresholds, output, self.info.model, K, distortion, A, sizes, self.threshold, valid)


def _intrinsics(K: np.ndarray, image: np.ndarray) -> np.ndarray:
    array = np.asarray(K, dtype=np.float64)
    check_intrinsics(array, (image.shape[0], image.shape[1]))
    return array


def _finite(radius: float) -> float | None:
    return round(float(radius), 1) if np.isfinite(radius) else None
