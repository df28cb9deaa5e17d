"""Validation within training: the strict protocol on the val split, and the decoding that is chosen there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch.distributed as dist

from das.decode import People
from das.metrics.coverage import residuals
from das.metrics.operating_points import best_threshold
from das.metrics.strict import strict
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from das.uncertainty import Calibration
from pipeline.data.record import Record, decode_image
from pipeline.data.stored_rows import StoredRows, read_ahead, read_rows
from pipeline.evaluation.ground_truth import predicted, strict_truth
from pipeline.training.config import TrainConfig

# Metric, in mm, whose smallest value picks the best epoch: all people count, a missed one with the error that the mean
# pose has on that person.
SELECT_BY = "val/mpjpe_with_misses"
NOT_SCORED = 1e9
"""Value of that metric in checkpoints within an epoch, which are not validated: any epoch's is better."""

# Candidates below this score are dropped before the threshold is chosen: there are thousands, and suppression compares
# them in pairs.
LEAST_SCORE = 0.05


class Validator:
    """Scores a model on val images; every worker predicts its share of them, and all return the same result.

    Suppression and score threshold are those of the best F1 on these images: ``config.oks_thresholds`` are tried, each
    with every score threshold. Of equally good ones the first is taken.

    Args:
        config: the training.
        info: description of the model; its decoding is kept where none can be chosen.
        rows: the val images that are scored.
        rank: of this worker.
        world: number of workers.
        bf16: predict in bfloat16.
    """

    def __init__(
        self,
        config: TrainConfig,
        info: ModelInfo,
        rows: Sequence[StoredRows],
        rank: int,
        world: int,
        bf16: bool = False,
    ) -> None:
        self.config, self.info, self.bf16 = config, info, bf16
        self.world = world
        self.own = rows[rank::world]

    def __call__(self, model: DAS) -> tuple[dict[str, float], ModelInfo]:
        """Numbers of the strict protocol with the chosen decoding, named val/..., and the description with it.

        The description has the calibration of doubt on these images, as far as people are found.
        """
        model.eval()
        with_sigma = model.head.sigma is not None
        predictor = Predictor(model, self.info, bf16=self.bf16, threshold=LEAST_SCORE, sigma=with_sigma)
        oks_thresholds = self.config.oks_thresholds or (self.info.model.oks_threshold,)
        own: list[tuple[Record, tuple[People[np.ndarray], ...]]] = []  # with each of the thresholds
        for records in self._batches():
            images = [decode_image(r) for r in records]
            cameras = predictor.cameras(images, [r.K for r in records], [r.distortion for r in records])
            inputs = predictor.prepare(images, *cameras)
            decoded = predictor.people_at(predictor.network(inputs), inputs, oks_thresholds)
            for record in records:
                record.image = b""  # the workers exchange annotations; images would make that slow
            by_image = ([people.numpy() for people in of_threshold] for of_threshold in decoded)
            own += zip(records, zip(*by_image, strict=True), strict=True)
        gathered = [own]
        if self.world > 1:
            gathered = [[] for _ in range(self.world)]
            dist.all_gather_object(gathered, own)
        pairs = sorted((pair for part in gathered for pair in part), key=lambda pair: pair[0].key)
        skeleton = self.info.model.skeleton
        truth = strict_truth([record for record, _ in pairs], skeleton)
        tables = [predicted([decoded[i] for _, decoded in pairs], len(skeleton)) for i in range(len(oks_thresholds))]
        points = [best_threshold(truth, found, skeleton.root_indices) for found in tables]
        best = int(np.argmax([-1.0 if point is None else point.f1 for point in points]))
        info, chosen = self.info, points[best]
        if chosen is not None:
            config = replace(info.model, oks_threshold=oks_thresholds[best])
            info = replace(info, model=config, score_threshold=chosen.threshold)
        supervised = np.array([j not in info.unsupervised_joints for j in skeleton.joints])
        pose, threshold = np.array(info.mean_pose), info.score_threshold
        result = strict(truth, tables[best], skeleton.root_indices, pose, threshold, supervised)
        if result.found.any():
            scores = residuals(truth, tables[best], result, skeleton.root_indices).scores(skeleton)
            info = replace(info, calibration=Calibration.fit(scores, with_sigma))
        numbers = {f"val/{name}": value for name, value in result.numbers().items() if np.isfinite(value)}
        decoding = {"val/score_threshold": threshold, "val/oks_threshold": info.model.oks_threshold}
        return numbers | decoding, info

    def _batches(self) -> Iterator[list[Record]]:
        """This worker's val images, batch by batch."""
        records = chain.from_iterable(read_ahead(lambda rows: read_rows(rows.shard, rows.group, rows.rows), self.own))
        while batch := list(islice(records, self.config.ingest.batch_size)):
            yield batch
