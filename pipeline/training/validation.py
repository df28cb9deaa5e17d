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

# Metric, in mm, whose smallest value picks the best epoch: all people count, a missed one with the error that the mean
# pose has on that person.
SELECT_BY = "val/mpjpe_with_misses"
# Candidates below this score are dropped before the threshold is chosen: there are thousands, and suppression compares
# them in pairs.
LEAST_SCORE = 0.05
# The threshold keeps at least this share of the val people where one can: a missed person cannot be recovered later,
# a doubtful detection still has its score.
LEAST_RECALL = 0.92


class Validator:
    """Scores a model on val images; every worker predicts its share of them, and all return the same result.

    Args:
        config: the training.
        info: description of the model; its threshold is kept where none can be chosen.
        keys: of the val images that are scored.
        rank: of this worker.
        world: number of workers.
        bf16: predict in bfloat16.
    """

    def __init__(
        self, config: TrainConfig, info: ModelInfo, keys: Sequence[str], rank: int, world: int, bf16: bool = False
    ) -> None:
        self.config, self.info, self.bf16 = config, info, bf16
        self.world = world
        self.own_keys = frozenset(sorted(keys)[rank::world])

    def __call__(self, model: DAS) -> tuple[dict[str, float], float]:
        """Numbers of the strict protocol at the best threshold, named val/..., and that threshold."""
        model.eval()
        predictor = Predictor(model, self.info, bf16=self.bf16, threshold=LEAST_SCORE)
        own: list[tuple[Record, Prediction]] = []
        for records in self._batches():
            images = [decode_image(r) for r in records]
            predictions = predictor.predict_batch(images, [r.K for r in records], [r.distortion for r in records])
            for record in records:
                record.image = b""  # the workers exchange annotations; images would make that slow
            own += zip(records, predictions, strict=True)
        gathered = [own]
        if self.world > 1:
            gathered = [[] for _ in range(self.world)]
            dist.all_gather_object(gathered, own)
        pairs = sorted((pair for part in gathered for pair in part), key=lambda pair: pair[0].key)
        skeleton = self.info.model.skeleton
        truth = strict_truth([record for record, _ in pairs], skeleton)
        found = predicted([prediction for _, prediction in pairs], len(skeleton))
        chosen = best_threshold(truth, found, skeleton.root_indices, LEAST_RECALL)
        threshold = self.info.score_threshold if chosen is None else chosen.threshold
        supervised = np.array([j not in self.info.unsupervised_joints for j in skeleton.joints])
        result = strict(truth, found, skeleton.root_indices, np.array(self.info.mean_pose), threshold, supervised)
        numbers = {f"val/{name}": value for name, value in result.numbers().items() if np.isfinite(value)}
        return {**numbers, "val/score_threshold": threshold}, threshold

    def _batches(self) -> Iterator[list[Record]]:
        """This worker's val images, batch by batch."""
        batch: list[Record] = []
        for row in ray.train.get_dataset_shard("val").iter_rows():
            if row["key"] not in self.own_keys:
                continue
            batch.append(from_row(row))
            if len(batch) == self.config.ingest.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
