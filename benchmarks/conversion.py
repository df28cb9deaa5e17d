"""Speed of a conversion of Panoptic's layout against a plain script with two processes, and its peak memory.

    python benchmarks/conversion.py                       # 400 and 4000 frames of HD images, about 2.5 GB of disk
    python benchmarks/conversion.py --frames 100 --scale 4 --folder /mnt/disk

The plain script reads the same images and pose files, parses the same JSON and writes the same bytes with pyarrow, but
has no geometry, checks, hashes or means to resume. Both run warm (processes started, packages imported) on the same
disk, read originals that are dropped from the page cache before every run, and end when all bytes are on the disk
(fsync). The time to start is printed separately. Runs of the two alternate; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PROJECT = Path(__file__).resolve().parents[1]
SEQUENCE, CAMERAS = "160224_haggling1", ("00_16", "00_30")
HEIGHT, WIDTH, PEOPLE = 1080, 1920, 3


def picture(seed: int) -> bytes:
    """An HD JPEG of about 300 KB, the size of Panoptic's images: smooth shapes and a little noise."""
    rng = np.random.default_rng(seed)
    shapes = cv2.resize(rng.integers(0, 255, (27, 48, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 5, (HEIGHT, WIDTH, 1))
    image = np.clip(shapes + grain, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def write_originals(root: Path, frames: int) -> None:
    """Writes a training sequence: for each of ``frames`` frames two pose files (3 people) and images of two cameras."""
    folder = root / SEQUENCE
    poses = folder / "hdPose3d_stage1_coco19"
    poses.mkdir(parents=True)
    cameras = []
    for i in range(520):  # the number of cameras of Panoptic's dome, all of which are in its calibration file
        name = CAMERAS[i] if i < len(CAMERAS) else f"vga_{i:03d}"
        c, s = np.cos(0.1 * i), np.sin(0.1 * i)
        cameras.append({
            "name": name, "type": "hd", "resolution": [WIDTH, HEIGHT],
            "K": [[1396.5, 0, 944.2], [0, 1393.4, 560.5], [0, 0, 1]],
            "distCoef": [-0.28, 0.19, -0.0004, 0.0005, -0.05],
            "R": [[c, 0, s], [0, 1, 0], [-s, 0, c]], "t": [[0], [100], [400]],
        })  # fmt: skip
    (folder / f"calibration_{SEQUENCE}.json").write_text(json.dumps({"cameras": cameras}))
    pictures = [picture(seed) for seed in range(8)]
    rng = np.random.default_rng(0)
    for camera in CAMERAS:
        (folder / "hdImgs" / camera).mkdir(parents=True)
    # The converter takes every second frame of a training sequence, so only those have images.
    for frame in range(0, 2 * frames, 2):
        bodies = []
        for person in range(PEOPLE):
            joints = np.column_stack([rng.normal(0, 30, (19, 2)) + (80 * (person - 1), -90), rng.normal(0, 30, 19)])
            values = np.column_stack([joints, rng.uniform(0.2, 0.7, 19)])
            bodies.append({"id": person, "joints19": values.round(4).ravel().tolist()})
        for number in (frame, frame + 1):
            pose = {"version": 0.7, "univTime": 1.0, "fpsType": "hd_29_97", "bodies": bodies}
            (poses / f"body3DScene_{number:08d}.json").write_text(json.dumps(pose))
        for i, camera in enumerate(CAMERAS):
            data = pictures[(frame // 2 + i) % len(pictures)]
            # A comment (marker FF FE) makes the bytes of every file different.
            comment = f"{camera} {frame}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (folder / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg").write_bytes(data[:2] + segment + data[2:])


# ---- the plain script ----


def plain_shard(task: tuple[str, str, list[int], str]) -> None:
    """Writes one Parquet file; ``task`` is (folder of the originals, camera, frames, file)."""
    root, camera, frames, target = task
    folder = Path(root) / SEQUENCE
    schema = pa.schema([("key", pa.string()), ("image", pa.binary()), ("joints", pa.list_(pa.list_(pa.float32())))])
    with pq.ParquetWriter(
        target, schema, compression="NONE", use_dictionary=["key"], write_statistics=["key"]
    ) as writer:
        for at in range(0, len(frames), 64):
            keys, images, joints = [], [], []
            for frame in frames[at : at + 64]:
                pose = json.loads((folder / "hdPose3d_stage1_coco19" / f"body3DScene_{frame:08d}.json").read_bytes())
                keys.append(f"panoptic/{SEQUENCE}/{camera}/{frame:08d}")
                images.append((folder / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg").read_bytes())
                joints.append([body["joints19"] for body in pose["bodies"]])
            writer.write_table(pa.table([keys, images, joints], schema=schema))


def plain(pool: multiprocessing.pool.Pool, root: Path, frames: int, out: Path) -> float:
    """Seconds that the plain script takes."""
    out.mkdir()
    tasks = []
    for camera in CAMERAS:
        for at in range(0, 2 * frames, 1024):
            numbers = list(range(at, min(at + 1024, 2 * frames), 2))
            tasks.append((str(root), camera, numbers, str(out / f"{camera}-{at:06d}.parquet")))
    started = time.perf_counter()
    pool.map(plain_shard, tasks, chunksize=1)
    to_disk(out)
    return time.perf_counter() - started


def to_disk(folder: Path, forget: bool = False) -> None:
    """Waits until all files are on the disk; ``forget`` then drops them from the page cache."""
    for path in folder.rglob("*.*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if forget:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- the converter ----


def converted(root: Path, out: Path) -> float:
    """Seconds that the conversion takes when Ray is running already."""
    from pipeline.data.prepare.config import ConvertConfig
    from pipeline.data.prepare.convert import convert

    started = time.perf_counter()
    convert(ConvertConfig("panoptic", str(root), str(out), splits=("train",)))
    to_disk(out)
    return time.perf_counter() - started


def start_ray(folder: Path) -> float:
    """Seconds to start Ray and to run a first small conversion on both workers."""
    from pipeline.infra.cluster import ClusterConfig, connect

    started = time.perf_counter()
    connect(ClusterConfig(address="local", num_cpus=2, object_store_mb=100))
    write_originals(folder / "warm", 4)
    from pipeline.data.prepare.config import ConvertConfig
    from pipeline.data.prepare.convert import convert

    convert(ConvertConfig("panoptic", str(folder / "warm"), str(folder / "warm_out"), splits=("train",), shard_mb=1.2))
    return time.perf_counter() - started


def peak_mb(pid: str) -> float:
    """Largest resident memory of a process so far, MB (VmHWM of Linux, which is in KB)."""
    (line,) = (s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def worker_peaks() -> list[float]:
    """Peak memory of the Ray workers of this process, MB, in ascending order."""
    import ray

    # Eight short tasks, so that every idle worker gets at least one.
    pids = ray.get([ray.remote(num_cpus=1)(_pid).remote() for _ in range(8)])
    return sorted(peak_mb(str(pid)) for pid in set(pids))


def _pid() -> int:
    time.sleep(0.2)
    return os.getpid()


def one_conversion(root: Path, folder: Path) -> None:
    """Runs in a fresh process: one conversion, whose times (s) and peak memory (MB) are printed as JSON."""
    startup = start_ray(folder)
    seconds = converted(root, folder / "out")
    print(json.dumps({"startup": startup, "seconds": seconds, "driver": peak_mb("self"), "workers": worker_peaks()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=400, help="frames at 1x, each seen by two cameras")
    parser.add_argument("--scale", type=int, default=10, help="size of the larger data set, as a multiple of --frames")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of the script and of the converter")
    parser.add_argument("--folder", help="folder for the data, about 1.2 MB a frame; default: a temporary folder")
    parser.add_argument("--one", nargs=2, metavar=("ROOT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if args.one:
        one_conversion(*map(Path, args.one))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        measure(Path(place), args.frames, args.scale, args.repeats)


def measure(place: Path, frames: int, scale: int, repeats: int) -> None:
    """Measures peak memory at both sizes and speed at the larger one, and prints them."""
    sizes = {1: frames, scale: frames * scale}
    for times, count in sizes.items():
        write_originals(place / f"raw{times}", count)
    peaks = {}
    for times in sizes:
        folder = place / f"cold{times}"
        folder.mkdir()
        command = [sys.executable, __file__, "--one", str(place / f"raw{times}"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[times] = json.loads(done.stdout.splitlines()[-1])
        shutil.rmtree(folder)
    start_ray(place)
    root, count = place / f"raw{scale}", frames * scale
    converter, script = [], []
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(
            plain_shard, [(str(place / "raw1"), CAMERAS[0], [0, 2], str(place / f"{i}.parquet")) for i in range(2)]
        )
        for _ in range(repeats):
            for seconds, run in (
                (script, lambda out: plain(pool, root, count, out)),
                (converter, lambda out: converted(root, out)),
            ):
                to_disk(root, forget=True)
                seconds.append(run(place / "out"))
                shutil.rmtree(place / "out")
    images = 2 * count
    rates = [images / statistics.median(seconds) for seconds in (script, converter)]
    print(f"{images} images of {WIDTH}x{HEIGHT}, {PEOPLE} people each, {repeats} runs, images per second:")
    print(f"  plain script  {rates[0]:7.0f}   runs: {', '.join(f'{images / s:.0f}' for s in script)}")
    print(f"  das prepare   {rates[1]:7.0f}   runs: {', '.join(f'{images / s:.0f}' for s in converter)}")
    print(f"  ratio         {rates[1] / rates[0]:7.2f}   wanted at least 0.7")
    print(f"  start-up of Ray and two workers, first conversion included: {peaks[1]['startup']:.1f} s")
    print("peak resident memory, MB (shared pages counted in each):")
    for times, peak in peaks.items():
        workers = ", ".join(f"{mb:.0f}" for mb in peak["workers"])
        print(f"  {times:>2}x, {2 * sizes[times]:>6} images: driver {peak['driver']:.0f}, workers {workers}")
    for name, of in (("driver", lambda p: p["driver"]), ("largest worker", lambda p: max(p["workers"]))):
        print(f"  {name}: {of(peaks[scale]) / of(peaks[1]) - 1:+.1%} at {scale}x, wanted below +15 %")


if __name__ == "__main__":
    main()
