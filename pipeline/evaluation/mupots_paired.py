"""Predictions that come paired with annotated people, on MuPoTS-3D: scored in these pairs, without a pairing step.

The ground truth is prepared data or, since no image is needed, MuPoTS-3D's own annotation files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.metrics.tables import Truth
from das.skeleton import MUPOTS17
from pipeline.data.record import key_of
from pipeline.data.sources.mupots_mat import read_sequence
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.external_predictions import ExternalPredictions
from pipeline.evaluation.ground_truth import GroundTruth, clusters_of, image_cells, mupots_truth
from pipeline.evaluation.protocols.mupots import paired_numbers
from pipeline.evaluation.protocols.strict import natural_order
from pipeline.evaluation.protocols.sums import Cells
from pipeline.evaluation.score import merge_numbers
from pipeline.infra.text_tables import Numbers


@dataclass(frozen=True)
class PairedTruth:
    """Valid people of F images.

    Attributes:
        name: of the data. keys: F keys. sequence: (F,) names. cells: of the images.
        truth: by the name of the ground truth, the same T people in the same order; frame i is keys[i].
    """

    name: str
    keys: tuple[str, ...]
    sequence: np.ndarray
    cells: Cells
    truth: dict[str, Truth]


def score_paired(external: ExternalPredictions, data: Sequence[str], split: str) -> Numbers:
    """Scores of paired predictions under ``mupots-paired``, with annot3 and with univ_annot3.

    Args:
        external: with ``person``.
        data: prepared folders of MuPoTS-3D, or one folder in its original layout.
        split: of prepared folders.

    Raises:
        ValueError: another joint set than MuPoTS', data without MuPoTS' annotations, or predictions for images or
            people that are not annotated; names the file and the key.
    """
    if external.skeleton != MUPOTS17:
        of = f"person with skeleton {external.skeleton.name}"
        raise ValueError(f"{external.where}: {of}: paired predictions are scored in {MUPOTS17.name} alone")
    given = _truth(data, split)
    predicted, found = _pair(external, given)
    return merge_numbers(paired_numbers(given.truth, predicted, found, given.sequence, given.cells), train_fit=False)


def _pair(external: ExternalPredictions, given: PairedTruth) -> tuple[np.ndarray, np.ndarray]:
    """The prediction of every annotated person: (T, 17, 3) mm, and whether there is one, (T,) bool."""
    assert external.person is not None
    people = given.truth["annot3"]  # ordered by frame
    place = {key: i for i, key in enumerate(given.keys)}
    start = np.searchsorted(people.frame, np.arange(len(given.keys)))
    count = np.bincount(people.frame, minlength=len(given.keys))
    predicted, found = np.zeros(people.joints_cam.shape), np.zeros(len(people), bool)
    for row, key in enumerate(external.keys.tolist()):
        if key not in place:
            raise ValueError(f"{external.where}: {key} is none of the {len(place)} images of {given.name}")
        frame, who = place[key], int(external.person[row])
        if external.padded and who >= count[frame]:
            continue
        if not 0 <= who < count[frame]:
            wanted = f"0 to {count[frame] - 1}" if count[frame] else "no prediction: no person is annotated as valid"
            raise ValueError(f"{external.where}: {key}: person = {who}, wanted {wanted}")
        at = start[frame] + who
        predicted[at], found[at] = external.joints_cam[row], True
    return predicted, found


def _truth(data: Sequence[str], split: str) -> PairedTruth:
    if len(data) == 1 and (sequences := _original_sequences(Path(data[0]))):
        return _original_truth(data[0], sequences)
    annotations = read_annotations(data, split)
    records = [*annotations.records]
    for record in records:
        if record.skeleton != MUPOTS17.name or record.joints_cam is None:
            raise ValueError(
                f"{record.key}: joint set {record.skeleton}, paired predictions need {MUPOTS17.name} in 3D"
            )
    kinds: list[GroundTruth] = ["annot3"]
    if all(record.joints_cam_univ is not None for record in records):
        kinds.append("univ_annot3")
    return PairedTruth(
        name=annotations.name,
        keys=tuple(annotations.keys),
        sequence=annotations.index.sequences,
        cells=image_cells(annotations.index),
        truth={kind: mupots_truth(records, kind)[0] for kind in kinds},
    )


def _original_sequences(folder: Path) -> list[Path]:
    """Folders with annot.mat, ordered by number; empty if the folder is prepared data or something else."""
    places = [*folder.glob("MultiPersonTestSet/TS*/annot.mat"), *folder.glob("TS*/annot.mat")]
    return sorted({path.parent for path in places}, key=lambda path: natural_order(path.name))


def _original_truth(name: str, sequences: Sequence[Path]) -> PairedTruth:
    names: list[str] = []
    numbers: list[int] = []
    rows, annot3, univ_annot3 = [], [], []
    for folder in sequences:
        for number, people in enumerate(read_sequence(folder, Path(name))):
            valid = [person for person in people if person.valid]
            rows += [len(names)] * len(valid)
            annot3 += [person.cam for person in valid]
            univ_annot3 += [person.universal for person in valid]
            names.append(folder.name)
            numbers.append(number)

    def table(joints: list[np.ndarray]) -> Truth:
        cam = np.array(joints).reshape(-1, 17, 3)
        return Truth(np.array(rows, dtype=np.int64), cam, np.ones(cam.shape[:2], bool))

    sequence = np.array(names)
    return PairedTruth(
        name=name,
        keys=tuple(key_of("mupots", s, "0", i) for s, i in zip(names, numbers, strict=True)),
        sequence=sequence,
        cells=Cells.cut(
            clusters_of(np.full(len(names), "mupots"), sequence, np.array(numbers)), sequence, np.full(len(names), "")
        ),
        truth={"annot3": table(annot3), "univ_annot3": table(univ_annot3)},
    )
