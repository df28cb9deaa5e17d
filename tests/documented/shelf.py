"""What readers of the pages already have: original data, prepared data, models, evaluations, a photo.

All of it is small and made once. The models are those of tests/pipeline/registry/promotion_cases.py, of chosen quality,
so that the real gates decide as the pages say.
"""

import json
import os
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.io
import torch

from das.camera import CameraSource, intrinsics_from_fov
from das.config import paper_resnet50, release_panoptic
from das.decode import People
from das.predictor import Prediction
from das.skeleton import MUCO21, MUPOTS17, PANOPTIC15
from pipeline.data.sources import muco, panoptic
from pipeline.infra.files import copy_folder, write_json
from pipeline.predict.own_files import signed
from pipeline.registry.gate import Gate
from pipeline.registry.promote import promote
from pipeline.studio.config import StudioConfig
from pipeline.studio.layouts import render_layout
from tests.documented.project_copy import Site
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mupots_mats
from tests.pipeline.data.original_layouts import jpeg, write_muco, write_panoptic
from tests.pipeline.evaluation.evaluation_cases import write_prepared
from tests.pipeline.evaluation.rescore_cases import mupots, noisy, rows_of
from tests.pipeline.registry.promotion_cases import MODEL, Place, checkpoint_of, prepare, write_evaluation
from tests.pipeline.weights.weight_files import mmpose_file, official_file, weights_of

_STUDIO = StudioConfig(
    width=128,
    height=72,
    take_frames=2,
    chunk_frames=2,
    train_frames=8,
    val_frames=2,
    test_frames=2,
    train_sequences=("studio_train_mafia1",),
    val_sequences=("studio_val_mafia1",),
    test_sequences=("studio_test_pizza1",),
    people_min=2,
    people_max=3,
)


class Shelf:
    """Makes each thing when it is first asked for, and puts it into a site under the name that a page uses."""

    def __init__(self, folder: Path, studio: Path, golden: Path) -> None:
        self._folder, self.studio, self._golden = folder, studio, golden

    # ---- what is put into a site ----

    def original(self, site: Site, *names: str) -> None:
        """Original data as their owners ship them, in /data."""
        for name in names:
            _copy(self._original(name), site.data / name)

    def prepared(self, site: Site, *names: str) -> None:
        """Prepared data by path in the project's folder, or in /data: rendered people, whatever the name."""
        for name in names:
            _copy(self.studio, _place(site, name))

    def in_bucket(self, site: Site, *names: str) -> None:
        """The same in s3://bucket."""
        for name in names:
            copy_folder(self.studio, f"{site.bucket}/{name}")

    def people(self, site: Site, *names: str) -> None:
        """Prepared data on which the models of `registry` are as good as their history says."""
        for name in names:
            _copy(self._people, _place(site, name))

    def registry(self, site: Site) -> None:
        """./runs with trainings, evaluations, one das-demo and three das-panoptic; a gate without timings in /data."""
        shutil.copytree(self._runs, site.folder / "runs")  # not linked: commands write into mlflow.db
        site.data.mkdir(exist_ok=True)
        (site.data / "patient.json").write_text('{"latency_margin": null}')  # timings of a busy machine decide nothing

    def photo(self, site: Site) -> None:
        """photo.jpg."""
        (site.folder / "photo.jpg").write_bytes(jpeg(180, 320))

    def results(self, site: Site) -> None:
        """predictions/photo.json, one person of one joint, and predictions/walk.jsonl, as `das predict` writes them."""
        people = Prediction(
            people=People(*(np.full((1, *shape), 900.0) for shape in ((15, 2), (15, 3), (2,), (3,), ()))),
            skeleton=PANOPTIC15,
            valid=np.arange(15) == 0,
            image_size=(180, 320),
            K=intrinsics_from_fov(320, 180, 60),
            distortion=np.zeros(5),
            source=CameraSource("assumed", {"fov_degrees": 60}),
        )
        write_json(site.folder / "predictions/photo.json", signed({"photo": "photo.jpg", **people.to_json()}))
        pose = np.random.default_rng(0).normal(3000, 300, (1, 15, 3))
        moving = replace(people.people, joints_cam=pose, root_cam=pose[:, PANOPTIC15.root_index])
        walk = replace(people, people=moving, valid=np.ones(15, bool)).to_json()
        lines = (signed({"video": "walk.mp4", "frame": n, "time_ms": 40.0 * n, **walk}) for n in range(5))
        (site.folder / "predictions/walk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def predictions(self, site: Site, data: str, *names: str) -> None:
        """Predictions files for prepared data that are there, of a better and better model each."""
        for i, name in enumerate(names):
            checkpoint = checkpoint_of(self._folder / f"predicts-{i}", 1.0 / (i + 1))
            out = write_evaluation(checkpoint, _place(site, data), self._folder / f"{site.bucket[5:]}-{i}")
            shutil.copy(out / "predictions.parquet", site.folder / name)

    def weights(self, site: Site) -> None:
        """release.pth, as the official training writes it, and files of backbones of eight channels."""
        os.link(self._release, site.folder / "release.pth")
        mspn = weights_of(replace(release_panoptic(), backbone_width=8))
        mmpose_file(site.folder / "2xmspn50_coco_256x192-c8765a5c_20201123.pth", mspn)
        torch.save(weights_of(replace(paper_resnet50(), backbone_width=8)), site.folder / "resnet50-0676ba61.pth")

    def mupots_model(self, site: Site) -> None:
        """runs/mupots/best, a model of 21 joints."""
        checkpoint_of(site.folder / "runs/mupots/best", config=replace(MODEL, skeleton=MUCO21))

    def other_groups(self, site: Site) -> None:
        """prepared/mupots with theirs.npz, and the owners' files in mupots with Cheng et al.'s form of predictions."""
        records = mupots()
        write_prepared(site.folder / "prepared/mupots", records)
        np.savez(site.folder / "theirs.npz", **rows_of(records, noisy(records, MUPOTS17), MUPOTS17))
        write_mupots_mats(site.folder / "mupots", "TS1")
        folder = site.folder / "predictions_cheng2021"
        folder.mkdir()
        data = np.random.default_rng(0).normal(0, 300, (3, 2, 3, 17)) + np.array([0, 0, 3000])[:, None]
        scipy.io.savemat(folder / "MuPots_TS1_camCentric.mat", {"data": data})

    # ---- made once ----

    def _original(self, name: str) -> Path:
        root = self._folder / name
        if root.exists():
            return root
        root.mkdir()
        if name == "panoptic":
            for i, part in enumerate(panoptic.SPLITS.parts):
                write_panoptic(root, part.sequence, frames=range(2), seed=100 * i)
        elif name == "mpi_inf_3dhp":
            write_mpi_arrays(root, [f"S{i}_Seq{k}_Cam0_000001.jpg" for i in range(1, 9) for k in (1, 2)])
            write_mpi_arrays(root, [f"TS{i}_000001.jpg" for i in range(1, 7)], split="test")
        elif name == "mupots":
            for i in range(1, 21):
                write_mupots_mats(root, f"TS{i}", frames=2)
        elif name == "muco":  # its val split is the last fiftieth of each of its two sets
            write_muco(root, [f"{folder}/{i}.jpg" for folder in muco.SETS for i in range(50)])
        else:
            render_layout(_STUDIO, root, workers=1, layout="coco")
        return root

    @cached_property
    def _release(self) -> Path:
        official_file(self._golden, "panoptic", self._folder / "release.pth")
        return self._folder / "release.pth"

    @cached_property
    def _people(self) -> Path:
        return prepare(self._folder / "people")

    @cached_property
    def _runs(self) -> Path:
        place = Place(self._folder / "runs", self._people)
        (self._folder / "runs").mkdir()
        gate = Gate(latency_margin=None)
        for version, off in enumerate((3.0, 2.0, 1.0), 1):
            candidate = replace(place.candidate(f"version{version}", off), name="das-panoptic")
            assert promote(candidate, gate).champion
        assert promote(replace(candidate, name="das-demo"), gate).champion
        for name, off in (("mine", 0.0), ("panoptic-release", 0.5), ("demo", 0.4), ("panoptic", 0.3)):
            place.evaluated(place.trained(name, off))
        shutil.rmtree(place.folder / "evaluations/mine")
        return place.folder


def _place(site: Site, name: str) -> Path:
    return site.data / name.removeprefix("/data/") if name.startswith("/data/") else site.folder / name


def _copy(source: Path, target: Path) -> None:
    """A copy that takes no disk, of files that no command changes."""
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
