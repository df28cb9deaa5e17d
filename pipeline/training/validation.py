"""Validation within training: the strict protocol on the val split, and the score threshold chosen there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import ray.train
import torch.distributed as dist

from das.checkpoint import ModelInfo
from das.metrics.strict import best_threshold, strict
from das.model import DAS
from das.predictor import Prediction, Predictor
from pipeline.data.record import Record, decode_image
from pipeline.data.schema import from_row
from pipeline.evaluation.ground_truth import predicted, strict_truth
from pipeline.training.config import TrainConfig

# Candidates below this score never decide the threshold; there are very many, and each costs time in suppression.
LEAST_SCORE = 0.05
# The threshold keeps so many of the val people where it can: a missed person is lost, a doubtful one has a score.
LEAST_RECALL = 0.92


class Validator:
    """Scores a model on val images; every worker predicts its share, all get the same result.

    Args:
        keys: of the val images that are scored.
    """

    def __init__(
        self, config: TrainConfig, info: ModelInfo, keys: Sequence[str], rank: int, world: int, bf16: bool = False
    ) -> None:
        self.config, self.info, self.bf16 = config, info, bf16
        self.world = world
        self.mine = frozenset(sorted(keys)[rank::world])

    def __call__(self, model: DAS) -> tuple[dict[str, float], float]:
        """Numbers of the strict protocol at the best threshold, named val/..., and that threshold."""
        model.eval()
        predictor = Predictor(model, self.info, bf16=self.bf16, threshold=LEAST_SCORE)
        mine: list[tuple[Record, Prediction]] = []
        for records in self._batches():
            images = [decode_image(r) for r in records]
            predictions = predictor.predict_batch(images, [r.K for r in records], [r.distortion for r in records])
            for record in records:
                record.image = b""  # gathered below: the annotation is enough
            mine += zip(records, predictions, strict=True)
        everyone = [mine]
        if self.world > 1:
            everyone = [[] for _ in range(self.world)]
            dist.all_gather_object(everyone, mine)
        pairs = sorted((pair for part in everyone for pair in part), key=lambda pair: pair[0].key)
        skeleton = self.info.model.skeleton
        truth = strict_truth([record for record, _ in pairs], skeleton)
        found = predicted([prediction for _, prediction in pairs], len(skeleton))
        chosen = best_threshold(truth, found, skeleton.root_indices, LEAST_RECALL)
        threshold = self.info.score_threshold if chosen is None else chosen.threshold
        taught = np.array([j not in self.info.unsupervised_joints for j in skeleton.joints])
        result = strict(truth, found, skeleton.root_indices, np.array(self.info.mean_pose), threshold, taught)
        numbers = {f"val/{name}": value for name, value in result.numbers().items() if np.isfinite(value)}
        return {**numbers, "val/score_threshold": threshold}, threshold

    def _batches(self) -> Iterator[list[Record]]:
        """This worker's val images, batch by batch."""
        batch: list[Record] = []
        for row in ray.train.get_dataset_shard("val").iter_rows():
            if row["key"] not in self.mine:
                continue
            batch.append(from_row(row))
            if len(batch) == self.config.ingest.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
