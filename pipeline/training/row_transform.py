"""One stored row to one augmented training sample."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np

from das.recipe import RecipeConfig
from das.sample import Sample
from das.skeleton import Skeleton
from das.transforms import convert_joints, train_transform
from pipeline.data.encoded_image import is_jpeg
from pipeline.data.record import Record, decode_image
from pipeline.data.samples import to_sample
from pipeline.data.validate_record import validate_image

UNREADABLE = "unreadable rows"
"""Name under which rows with a damaged image are counted."""

# Tries of the augmentation, some of which leave no usable person, before a row counts as unusable.
_DRAWS = 10


@dataclass(frozen=True)
class RowTransform:
    """Decodes and augments rows; the same row of the same epoch gives the same sample, wherever it is made.

    The augmentation depends on seed, epoch, key and copy alone: in data that is repeated, the copies of a row differ.

    Attributes:
        skeleton: joints that the model predicts.
        recipe: augmentation, and which people and images are left out.
        seed: of the augmentation.
        epoch: that is being read.
    """

    skeleton: Skeleton
    recipe: RecipeConfig
    seed: int = 0
    epoch: int = 0

    def __call__(self, record: Record, copy: int = 0) -> tuple[Sample | str, Counter[str]]:
        """The sample, or what is wrong with a row that cannot be used; and what was left out, by reason.

        Args:
            record: the row.
            copy: which of the row's repetitions in the epoch this is.
        """
        try:
            validate_image(record)
            size_alone = np.broadcast_to(np.uint8(0), (record.height, record.width, 3))
            native, people = to_sample(record, size_alone)
        except ValueError as error:
            return str(error), Counter({UNREADABLE: 1})
        left_out = Counter({f"people {reason}": n for reason, n in people.items()})
        if people["invalid"] and not self.recipe.keep_images_with_invalid_people:
            return "an invalid person", left_out + Counter({"images with an invalid person": 1})
        sample = convert_joints(native, self.skeleton, self.recipe)
        rng = np.random.default_rng([self.seed, self.epoch, zlib.crc32(record.key.encode()), copy])
        reason = ""
        for _ in range(_DRAWS):
            try:
                drawn = train_transform(sample, self.recipe, rng, partial(_decode, record))
            except ValueError as error:
                return str(error), Counter({UNREADABLE: 1})
            if isinstance(drawn, Sample):
                return drawn, left_out
            reason = drawn.reason
        return reason, left_out + Counter({f"images {reason}": 1})


def _decode(record: Record, half: bool) -> tuple[np.ndarray, bool]:
    """The record's pixels, a JPEG's at half the size if that is wanted, and whether they are."""
    half = half and is_jpeg(record.image)
    return decode_image(record, half), half
