"""People on photos and videos: `das predict`.

Writes into one folder. For a photo: NAME.json (joints in mm in the camera frame and in pixels, scores, the camera and
how it is known), NAME_overlay.jpg and NAME_top.png, each complete or absent. For a video: NAME.jsonl with one such
object per frame and its time, written as the frames come, and NAME_overlay.mp4. For all of them together, where asked
for: people.csv, people.parquet and people.html.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from das.model_info import load_info
from pipeline.infra.redaction import redacted
from pipeline.predict.camera_file import PhotoCamera, read_camera_file
from pipeline.predict.collectors import Collectors
from pipeline.predict.config import LIVE, PredictConfig, check_joint
from pipeline.predict.frames import predict_live, predict_video
from pipeline.predict.live import opened_source
from pipeline.predict.own_files import OutputError, check_folder, refuse_foreign
from pipeline.predict.photo_predictor import device_of, model_folder
from pipeline.predict.photos import named_fault, predict_photos
from pipeline.predict.results import PhotoResult, VideoResult, result_files, write_picture
from pipeline.predict.videos import is_video

if TYPE_CHECKING:
    from das.predictor import Predictor


def predict(config: PredictConfig) -> int:
    """Runs `das predict`; prints one line per file, and at the end one on standard error per file that was not done.

    Returns:
        Number of files that were not done, or of which a part could not be read.

    Raises:
        ValueError: a model, camera file, setting or output that cannot be used, or no file at all that could be; in one
            line. Nothing is computed before models, cameras and outputs are checked.
    """
    config = config.expanded()
    out, settings = Path(config.out), config.settings
    files = [Path(file) for file in config.files] or [Path(f"{LIVE}.mp4")]
    check_folder(out)
    residuals_file = out / "residuals.png"
    results = [path for file in files for path in result_files(file, out, config.formats, bool(config.inside))]
    collectors = Collectors(out, config.formats)
    refuse_foreign([*results, *collectors.paths, *([residuals_file] if config.inside else [])])
    cameras = [read_camera_file(config.camera, file, config.camera_name) if config.camera else None for file in files]
    with ExitStack() as stack:
        capture = None
        if config.source is not None:
            capture = stack.enter_context(opened_source(config.source, config.max_pixels))
        folder = model_folder(config.model, config.storage, config.tracking_uri)
        if config.inside:
            check_joint(load_info(folder).model.skeleton, config.inside)
        from das.predictor import Predictor  # here: it imports torch, and what is refused above needs none of it

        predictor = Predictor.from_folder(folder, device_of(config.device), threshold=config.threshold)
        residuals = None
        if config.inside:
            from pipeline.predict.explain import draw_residual_density

            residuals = draw_residual_density(folder, predictor)
        stack.enter_context(collectors)
        faults: list[str] = []
        begin, images, done = time.monotonic(), 0, 0
        if capture is not None:
            name = redacted(config.source or "")
            video = predict_live(
                predictor, capture, name, out, settings, cameras[0], collectors, seconds=config.seconds
            )
            found: Iterator[tuple[str, PhotoResult | VideoResult]] = iter([(f"source {name}", video)])
        else:
            found = _results(predictor, list(zip(files, cameras, strict=True)), config, collectors, faults)
        for file, result in found:
            done += 1
            images += result.frames if isinstance(result, VideoResult) else 1
            if isinstance(result, VideoResult) and result.shortfall:
                faults.append(result.shortfall)
            tqdm.write(f"{file}: {result.summary()}")
        if not done:
            raise ValueError("; ".join(faults))
        seconds = time.monotonic() - begin
        for path in collectors.finish():
            print(f"all of them: {path}")
    if residuals is not None:
        write_picture(residuals_file, residuals)
    for terms in dict.fromkeys(predictor.info.data["terms"]):
        print(f"terms of the model's training data: {terms}")
    sys.stdout.flush()
    print(f"{images} images in {seconds:.1f} s, {images / seconds:.1f} images/s", file=sys.stderr)
    for fault in faults:
        print(f"das: {' '.join(fault.split())}", file=sys.stderr)
    return len(faults)


def _results(
    predictor: Predictor,
    files: list[tuple[Path, PhotoCamera | None]],
    config: PredictConfig,
    collectors: Collectors,
    faults: list[str],
) -> Iterator[tuple[str, PhotoResult | VideoResult]]:
    """What was written for each file, in their order; a line is added to ``faults`` for one that cannot be read."""
    out, settings = Path(config.out), config.settings
    with tqdm(total=len(files), disable=len(files) < 2, unit="file") as bar:
        for video, group in groupby(files, key=lambda pair: is_video(pair[0])):
            if not video:
                for result in predict_photos(predictor, group, out, settings, collectors, faults):
                    bar.update()
                    yield str(result.picture.path), result
                continue
            for file, camera in group:
                try:
                    yield str(file), predict_video(predictor, file, out, settings, camera, collectors)
                except OutputError:
                    raise
                except (ValueError, OSError) as error:
                    faults.append(named_fault(file, error))
                bar.update()
