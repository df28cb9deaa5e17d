"""The whole way in one command: rendered people become Parquet, a model, its scores, a champion and a picture.

Every stage is the function that its own job calls; nothing here is known to the stages. What is rendered and how long
the model trains stand in `plan`; all numbers are of test sequences, whose people, motion and pictures training never
saw. A second call continues where the first one was stopped.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.data.prepare.convert import ConvertConfig, convert
from pipeline.evaluation.evaluate import PAGE_FILE, EvaluateConfig, evaluate
from pipeline.infra.cluster import ClusterConfig, connect
from pipeline.infra.files import join, write_json
from pipeline.predict.predict import PredictConfig, predict
from pipeline.registry.promote import PromoteConfig, promote
from pipeline.studio import StudioConfig
from pipeline.studio.layout import calibration_path, image_path
from pipeline.studio.render_job import RenderConfig, render
from pipeline.training.config import ModelChoice, TrainConfig
from pipeline.training.fit import fit
from pipeline.training.presets import small_training

MODEL_NAME: Final = "das-demo"
# A moment of a test sequence, rendered once more as a large photo.
_PHOTO_SEQUENCE, _PHOTO_CAMERA, _PHOTO_FRAME = "studio_test_pizza1", "00_16", 4


@dataclass(frozen=True)
class DemoConfig:
    """How much of a demonstration."""

    long: bool = False
    """Render and train about ten times as much: at most 60 minutes on 2 cores instead of 10."""
    out: str | None = None
    """Folder of everything it makes; default runs/demo, or runs/demo-long."""


@dataclass(frozen=True)
class DemoPlan:
    """What is rendered, at what size the network sees it, how large the network is, and how long it trains."""

    studio: StudioConfig
    width: int
    height: int
    model: ModelChoice
    augmentation: float
    train_minutes: float
    val_images: int


def plan(config: DemoConfig) -> DemoPlan:
    """Sizes that keep the budget on two slow cores: a fifth of the time for data, more than half for training."""
    studio = StudioConfig(width=320, height=180, train_frames=400, val_frames=48, test_frames=64, take_frames=4)
    if config.long:
        wide = ModelChoice("small", backbone_width=32, fpn_channels=64)
        return DemoPlan(replace(studio, train_frames=1800), 284, 160, wide, 0.5, 45.0, 288)
    # These sizes fill their padding to multiples of 32 almost wholly; 256 x 144 would compute a ninth more of nothing,
    # and 288 x 162 a fifth.
    return DemoPlan(studio, 224, 126, ModelChoice("small"), 0.3, 6.75, 192)


class Stopwatch:
    """Seconds of every stage, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage and announces it."""
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs all stages and returns the summary that it also writes to summary.json.

    Raises:
        SystemExit: with 1 and the gate's reasons, if the model did not become champion.
    """
    out = Path(config.out or ("runs/demo-long" if config.long else "runs/demo")).resolve()
    what, watch = plan(config), Stopwatch()
    cluster = ClusterConfig(address="local", storage=str(out))
    addresses = connect(cluster)
    raw, prepared = str(out / "raw"), str(out / "prepared")

    with watch.stage("render"):
        render(RenderConfig(raw, what.studio, cluster))
    with watch.stage("prepare"):
        manifest = convert(ConvertConfig("synthetic", raw, prepared, shard_mb=5.0, cluster=cluster))
    with watch.stage("train"):
        trained = fit(_training(prepared, what, cluster))
    with watch.stage("evaluate"):
        scored = evaluate(EvaluateConfig(trained.checkpoint, (prepared,), name="demo-test", cluster=cluster))
    with watch.stage("promote"):
        candidate = promote(PromoteConfig(trained.checkpoint, scored.out, MODEL_NAME, cluster=cluster))
    print(scored.summary(), candidate.summary(), sep="\n")
    if not candidate.champion:
        raise SystemExit(1)
    uri = f"models:/{MODEL_NAME}@champion"
    with watch.stage("predict"):
        overlay = _picture(uri, what.studio, out, addresses.tracking_uri)
    scores, metrics = scored.scores, scored.metrics
    summary = {
        "strict": {
            "mpjpe_mm": scores.mpjpe_mm,
            "recall": scores.recall,
            "precision": scores.precision,
            "root_error_mm": metrics["strict/root_error"],
        },
        "baseline": {"mpjpe_mm": scores.baseline_mpjpe_mm},
        "release": {"mpjpe_mm": metrics["panoptic_release/mpjpe"]},
        "ratio": scores.mpjpe_mm / scores.baseline_mpjpe_mm,
        "seconds": watch.seconds,
        "report": join(scored.out, PAGE_FILE),
        "overlay": overlay,
        "tracking_uri": addresses.tracking_uri,
        "model_uri": uri,
    }
    write_json(out / "summary.json", summary)
    print(_report(summary, manifest.splits["test"].images))
    return summary


def _training(prepared: str, what: DemoPlan, cluster: ClusterConfig) -> TrainConfig:
    """The small preset on a budget of minutes; the clock ends it, not the number of epochs."""
    base = small_training()
    return replace(
        base,
        data=(prepared,),
        name="demo",
        model=what.model,
        val_images=what.val_images,
        # Two workers of one thread keep two cores busier than one worker of two threads, which wait for each other
        # at every operation; and data parallelism is what is demonstrated.
        workers=2,
        cpus_per_worker=0.5,
        ingest=replace(
            base.ingest,
            width=what.width,
            height=what.height,
            augmentation=what.augmentation,
            batch_size=8,
            shuffle_rows=512,  # the first step waits until every worker's buffer is full
        ),
        optim=replace(base.optim, max_minutes=what.train_minutes, epochs=1000),
        cluster=cluster,
    )


def _picture(model: str, studio: StudioConfig, out: Path, tracking_uri: str) -> str:
    """A large photo of a test moment, rendered if needed, with the champion's people on it; path of the overlay."""
    large = replace(
        studio,
        width=1280,
        height=720,
        test_frames=_PHOTO_FRAME + studio.take_frames,
        test_sequences=(_PHOTO_SEQUENCE,),
        train_sequences=(),
        val_sequences=(),
    )
    photos = out / "photo"
    render(RenderConfig(str(photos), large))
    predict(
        PredictConfig(
            files=(str(image_path(photos, _PHOTO_SEQUENCE, _PHOTO_CAMERA, _PHOTO_FRAME)),),
            model=model,
            out=str(out / "predictions"),
            camera=str(calibration_path(photos, _PHOTO_SEQUENCE)),
            camera_name=_PHOTO_CAMERA,
            tracking_uri=tracking_uri,
        )
    )
    return str(out / "predictions" / f"{_PHOTO_CAMERA}_{_PHOTO_FRAME:08d}_overlay.jpg")


def _report(summary: dict[str, Any], images: int) -> str:
    strict, minutes = summary["strict"], sum(summary["seconds"].values()) / 60
    return "\n".join(
        (
            f"{minutes:.1f} minutes; on {images} pictures of test sequences:",
            f"  strict MPJPE {strict['mpjpe_mm']:.1f} mm, {summary['ratio']:.2f} of the mean pose's "
            f"{summary['baseline']['mpjpe_mm']:.1f} mm",
            f"  recall {strict['recall']:.3f}, precision {strict['precision']:.3f}, "
            f"root error {strict['root_error_mm']:.0f} mm",
            f"  Panoptic release protocol (optimistic) {summary['release']['mpjpe_mm']:.1f} mm",
            f"  report {summary['report']}",
            f"  picture {summary['overlay']}",
            "next:",
            *(f"  {line}" for line in next_commands(summary["model_uri"], summary["tracking_uri"])),
        )
    )


def next_commands(model_uri: str, tracking_uri: str) -> tuple[str, str]:
    """What to type next, from any folder: people on a photo of one's own, and all runs and models in a browser."""
    das, mlflow = (str(Path(sys.executable).parent / program) for program in ("das", "mlflow"))
    return (
        shlex.join([das, "predict", "photo.jpg", "--model", model_uri, "--tracking-uri", tracking_uri]),
        shlex.join([mlflow, "ui", "--backend-store-uri", tracking_uri]),
    )
