"""Writers of small original data sets in binary formats: MuPoTS-3D's .mat files, MPI-INF-3DHP's arrays and videos."""

import pickle

import numpy as np
import scipy.io

from das.camera import project
from das.skeleton import MUPOTS17
from pipeline.data.sources.base import pinhole
from tests.pipeline.data.original_layouts import HEIGHT, WIDTH, jpeg
from tests.pipeline.data.videos import write_video

MAT_K = pinhole([300, 300, 160, 90])


def mat_person(seed, valid=1, wrong_spine=False):
    """One entry of annot.mat, and its occlusion labels (1, 17)."""
    rng = np.random.default_rng(seed)
    cam = rng.normal(0, 300, (17, 3)) + (0, 0, 3000)
    uv = project(cam, MAT_K)
    if wrong_spine:
        uv[MUPOTS17.index("spine")] += 50
    universal = cam[14] + 0.9 * (cam - cam[14])
    entry = {"annot2": uv.T, "annot3": cam.T, "univ_annot3": universal.T, "isValidFrame": np.uint8(valid)}
    return entry, (rng.random((1, 17)) < 0.3).astype(np.uint8)


def write_mats(folder, frames):
    """annot.mat and occlusion.mat; ``frames[frame][person]`` is what ``mat_person`` returns."""
    folder.mkdir(parents=True)
    shape = (len(frames), len(frames[0]))
    kinds = [(name, object) for name in ("annot2", "annot3", "univ_annot3", "isValidFrame")]
    entries, hidden = np.empty(shape, object), np.empty(shape, object)
    for i, people in enumerate(frames):
        for k, (entry, occlusion) in enumerate(people):
            struct = np.empty((1, 1), kinds)
            for name, _ in kinds:
                struct[name][0, 0] = entry[name]
            entries[i, k], hidden[i, k] = struct, occlusion
    scipy.io.savemat(folder / "annot.mat", {"annotations": entries})
    scipy.io.savemat(folder / "occlusion.mat", {"occlusion_labels": hidden})


def write_mupots_mats(root, name="TS3", frames=3):
    """A sequence of MuPoTS-3D with images: a wrong spine in frame 1, an invalid person in frame 2."""
    folder = root / "MultiPersonTestSet" / name
    people = [[mat_person(2 * i, wrong_spine=i == 1), mat_person(2 * i + 1, valid=i != 2)] for i in range(frames)]
    write_mats(folder, people)
    for i in range(frames):
        (folder / f"img_{i:06d}.jpg").write_bytes(jpeg(HEIGHT, WIDTH, seed=i))
    return root


MPI_SIZE = 256  # height and width of the cameras below, pixels


def write_mpi_arrays(root, names, split="train", **changes):
    """MPI-INF-3DHP in mmpose's form with random people; ``changes`` replace arrays. Returns the arrays."""
    rng = np.random.default_rng(0)
    cam = rng.normal(0, 0.3, (len(names), 17, 3)) + (0, 0, 3)
    uv = cam[..., :2] / cam[..., 2:] * 200 + MPI_SIZE / 2
    arrays = {
        "imgname": np.array(names),
        "part": np.concatenate([uv, np.ones((len(names), 17, 1))], axis=-1),
        "S": np.concatenate([cam, np.ones((len(names), 17, 1))], axis=-1),
    }
    name = {"train": "mpi_inf_3dhp_train.npz", "test": "mpi_inf_3dhp_test_valid.npz"}[split]
    np.savez(root / name, **{**arrays, **changes})
    camera = {"f": np.array([[200.0], [200.0]]), "c": np.full((2, 1), MPI_SIZE / 2), "w": MPI_SIZE, "h": 25}
    cameras = {name.rsplit("_", 1)[0]: camera for name in names}
    (root / f"cameras_{split}.pkl").write_bytes(pickle.dumps(cameras))
    (root / "images").mkdir(exist_ok=True)
    for i, name in enumerate(names):
        (root / "images" / name).write_bytes(jpeg(MPI_SIZE, MPI_SIZE, seed=i))
    return arrays


CALIBRATION = """Skeletool Camera Calibration File V1.0
name          0
  sensor      10 10
  size        {w} {h}
  animated    0
  intrinsic   {f} 0 {cx} 0 0 {f} {cy} 0 0 0 1 0 0 0 0 1
  extrinsic   1 0 0 -562.8 0 -1 0 1398.1 0 0 -1 3852.6 0 0 0 1
  radial      0
name          1
  sensor      10 10
  size        {w} {h}
  animated    0
  intrinsic   211 0 100 0 0 212 101 0 0 0 1 0 0 0 0 1
  extrinsic   1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
  radial      0
"""


def write_mpi_original(root, sequence="S1/Seq2", frames=6, cameras=2):
    """MPI-INF-3DHP in its owners' form: joint k of 28 is at x = 10 k mm, and the video's frames show their numbers."""
    folder = root / sequence
    folder.mkdir(parents=True)
    cam = np.zeros((cameras, frames, 28, 3))
    cam[..., 0], cam[..., 1], cam[..., 2] = 10 * np.arange(28), 40 * (np.arange(28) % 7), 3000
    cam[..., 0] += np.arange(frames)[:, None]
    uv = cam[..., :2] / cam[..., 2:] * 200 + 128

    def cells(values):
        table = np.empty((cameras, 1), object)
        for i in range(cameras):
            table[i, 0] = values[i].reshape(frames, -1)
        return table

    scipy.io.savemat(folder / "annot.mat", {"annot2": cells(uv), "annot3": cells(cam), "univ_annot3": cells(cam)})
    (folder / "camera.calibration").write_text(CALIBRATION.format(w=MPI_SIZE, h=MPI_SIZE, f=200, cx=128, cy=127))
    write_video(folder / "imageSequence" / "video_0.avi", frames, "MJPG", MPI_SIZE, MPI_SIZE)
    return root
