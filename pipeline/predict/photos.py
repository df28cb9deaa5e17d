"""People on photos: reading, predicting and writing one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.predict.camera_file import PhotoCamera
from pipeline.predict.collectors import Collectors
from pipeline.predict.config import Settings
from pipeline.predict.pictures import Picture, predicted, read_picture
from pipeline.predict.results import PhotoResult, result_json, write_photo_result

if TYPE_CHECKING:
    from das.predictor import Prediction, Predictor

_NONE = Settings()


def predict_photo(
    predictor: Predictor,
    photo: str | Path,
    out: str | Path,
    settings: Settings = _NONE,
    camera: PhotoCamera | None = None,
) -> PhotoResult:
    """Predicts the people on one photo and writes NAME.json, NAME_overlay.jpg and NAME_top.png.

    Args:
        predictor: the model.
        photo: image file.
        out: folder of the results, created if needed.
        settings: how it is read, and what is written.
        camera: the photo's calibration.

    Raises:
        ValueError: the file is no image or too large, its size is not the calibration's, or the model has no joint
            ``settings.inside``.
        OutputError: a result cannot be written, or exists and was not written by `das predict`.
    """
    picture = read_picture(Path(photo), settings, camera)
    ((_, prediction),) = predicted(predictor, [picture], 1)
    return _write(predictor, Path(out), settings, picture, prediction)


def predict_photos(
    predictor: Predictor,
    photos: Iterable[tuple[Path, PhotoCamera | None]],
    out: Path,
    settings: Settings,
    collectors: Collectors,
    faults: list[str],
) -> Iterator[PhotoResult]:
    """Predicts photos several at a time; yields what was written for each, in their order.

    Args:
        predictor: the model.
        photos: files, each with its calibration if there is one.
        out: folder of the results.
        settings: as ``predict_photo``.
        collectors: tables and page of the whole run.
        faults: a line is added for each photo that could not be read.

    Raises:
        OutputError: a result cannot be written.
    """

    def pictures() -> Iterator[Picture]:
        for photo, camera in photos:
            try:
                yield read_picture(photo, settings, camera)
            except (ValueError, OSError) as error:
                faults.append(named_fault(photo, error))

    for picture, prediction in predicted(predictor, pictures(), settings.batch_size):
        result = _write(predictor, out, settings, picture, prediction)
        collectors.add(picture, prediction, result_json(picture, prediction))
        yield result


def named_fault(file: Path, error: Exception) -> str:
    """The error's text, with the file's name before it if it does not have it."""
    return str(error) if str(file) in str(error) else f"{file}: {error}"


def _write(
    predictor: Predictor, out: Path, settings: Settings, picture: Picture, prediction: Prediction
) -> PhotoResult:
    maps = None
    if settings.inside:
        from pipeline.predict.explain import draw_levels

        maps = draw_levels(predictor, picture.image, settings.inside)
    return write_photo_result(out, picture, prediction, settings.formats, maps)
