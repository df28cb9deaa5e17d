"""Every command that README, docs/, docstrings and cluster.yaml print is run, as it is printed.

A block is given word for word to bash, in a copy of the project's folder that has what a reader of that page has
(`GIVEN`). The programs that it calls are found in a folder of stand-ins (documented/program.py), which add the options
of `SMALLER` and call the real ones: commands on their own as drivers of a running Ray cluster, submitted ones as its
jobs, s3://bucket on a server of this machine. Whatever cannot be run here is in `INSTEAD`, with the reason.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest

from pipeline.demo import next_commands
from pipeline.infra.files import copy_folder
from tests.documented.commands import PROJECT, Block, blocks
from tests.documented.program import das_words
from tests.documented.project_copy import Site, services
from tests.documented.shelf import Shelf
from tests.jobs.own_cluster import wait_for
from tests.servers import free_port

TRAINING = {
    "model.backbone": "resnet18",
    "model.backbone-width": 8,
    "model.fpn-channels": 32,
    "ingest.recipe": "small",
    "ingest.width": 96,
    "ingest.height": 64,
    "ingest.batch-size": 8,
    "optim.epochs": 1,
    "optim.amp": "none",
    "val-images": 2,
    "workers": 1,
    "device": "cpu",
}
ONE_SEQUENCE = [f"--studio.{split}-sequences studio_{split}_mafia1 --studio.{split}-frames 4".split()
                for split in ("train", "val", "test")]  # fmt: skip


def flags(options: dict, prefix: str = "") -> list[str]:
    return [word for name, value in options.items() for word in (f"--{prefix}{name}", str(value))]


# First words of a command, as `das` is called -> options that make it small; the longest first words that fit count.
SMALLER = {
    "das render": ["--studio.width", "128", "--studio.height", "72", *sum(ONE_SEQUENCE, [])],
    "das data show": ["--count", "2", "--single", "1"],
    "das train-panoptic": flags(TRAINING),
    "das train-mupots": flags(TRAINING),
    "das sweep": [*flags(TRAINING, "train."), "--trials", "2", "--max-concurrent", "1"],
    "das evaluate": "--device cpu --workers 1 --overlays 1 --worst 1 --runtime-images 2".split(),
    "das benchmark": "--device cpu --images 2 --batch-sizes 1".split(),
    "das promote": "--gate /data/patient.json".split(),
    "das promote --model runs/mine/best --scores runs/evaluations/mine --name das-panoptic --gate": [],
    "python benchmarks/gpu.py": "--small --images 2 --steps 1".split(),
    "python benchmarks/conversion.py": "--frames 2 --scale 2 --repeats 1".split(),
    "python benchmarks/ingest.py": "--rounds 1 --images 16".split(),
    "python benchmarks/scale.py": "--shards 144".split(),
    "python benchmarks/doubt_and_tracks.py": "--frames 2".split(),
    "python benchmarks/train_step.py": [
        *"--data /data/prepared/panoptic --rounds 1 --steps 20 --width 8 --batch-size 2".split()
    ],
}

# Click reads the words as `ray` does, and Ray checks the file as `ray up` does before it asks AWS for anything.
_RAY = ["python", "-c", """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli
name, command, words = cli.resolve_command(cli.make_context("ray", ["--version"], resilient_parsing=True), sys.argv[1:])
file = command.make_context(name, words).params["cluster_config_file"]
validate_config(prepare_config(yaml.safe_load(open(file))))
"""]  # fmt: skip
_PARSED = ["python", "-c", "import sys; from pipeline import cli, demo; demo.demo = print; cli.main(sys.argv[1:])"]
# As a training begins: the cluster, the data and the initial weights are looked at, then nothing is trained.
_BEGUN = ["python", "-c", """
import sys
from pipeline import cli
from pipeline.training import fit, job
fit.fit = lambda config: sys.exit(not job.training_job(config))
cli.main(sys.argv[1:])
"""]  # fmt: skip
_ON_CPU = "--device cpu --workers 1 --ingest.batch-size 2".split()
IMPORTED = "it is run by tests/pipeline/weights/test_import_release.py"
LARGE = "a training of the release's size needs GPUs: all that is checked before it begins is checked"
CLOUD = "needs an account of AWS: options and cluster.yaml are checked by Ray's own functions"
RUN_BY = "it is run, on a smaller plan, by tests/jobs/test_demo.py: options are parsed"
# A command that is not run here -> why, and what is run in its place.
INSTEAD: dict[str, tuple[str, list[str]]] = {
    "ray up cluster.yaml": (CLOUD, [*_RAY, "up", "cluster.yaml"]),
    "ray dashboard cluster.yaml": (CLOUD, [*_RAY, "dashboard", "cluster.yaml"]),
    "ray attach cluster.yaml --port-forward 5000": (CLOUD, [*_RAY, *"attach cluster.yaml --port-forward 5000".split()]),
    "ray down cluster.yaml": (CLOUD, [*_RAY, "down", "cluster.yaml"]),
    "python jobs/demo.py": (RUN_BY, [*_PARSED, "demo"]),
    "python jobs/demo.py --long": (RUN_BY, [*_PARSED, "demo", "--long"]),
    "make demo": (RUN_BY, ["make", "--dry-run", "demo"]),
    "make test": ("it runs this very test: the target is made without running it", ["make", "--dry-run", "test"]),
    "python jobs/import_release.py release.pth --out runs/release/panoptic --data /data/prepared/panoptic": (
        IMPORTED + ": the script is started", ["python", "jobs/import_release.py", "--help"],
    ),
    "das predict photo.jpg --model runs/release/panoptic": (IMPORTED, ["das", "predict", "--help"]),
    "das evaluate --model runs/release/panoptic --data prepared/panoptic --name release": (
        IMPORTED, ["das", "evaluate", "--help"],
    ),
    "das train-panoptic release --data prepared/panoptic --pretrained runs/release/panoptic --name finetuned": (
        LARGE,
        [*_BEGUN, *"train-panoptic release --data prepared/panoptic --pretrained runs/release/panoptic".split(),
         *_ON_CPU],
    ),
    **{
        f"das train-panoptic {preset} --data prepared/panoptic --pretrained {file} --name {name}": (
            LARGE,
            [*_BEGUN, *f"train-panoptic {preset} --data prepared/panoptic --pretrained {file}".split(),
             *"--model.backbone-width 8".split(), *_ON_CPU],
        )
        for preset, file, name in (
            ("release", "2xmspn50_coco_256x192-c8765a5c_20201123.pth", "mine"),
            ("paper", "resnet50-0676ba61.pth", "paper"),
        )
    },
    "PATH/panoptic-toolbox/scripts/getData.sh 160224_haggling1 0 31": (
        "the toolbox and what it downloads are their owners': an archive of the same form is written",
        ["bash", "-c", "mkdir 160224_haggling1 && cd 160224_haggling1 && "
         "tar -cf hdPose3d_stage1_coco19.tar -C /data/panoptic/160224_haggling1 hdPose3d_stage1_coco19"],
    ),
}  # fmt: skip


def _promotion(shelf: Shelf, site: Site) -> None:
    shelf.people(site, "prepared/panoptic")
    shelf.registry(site)
    shelf.photo(site)


# What the reader of a file has before its first command; a file that is not named here needs nothing.
GIVEN: dict[str, Callable[[Shelf, Site], None]] = {
    "README.md": lambda shelf, site: (
        shelf.photo(site), shelf.registry(site), shelf.original(site, "panoptic", "coco")
    ),
    "docs/data/coco.md": lambda shelf, site: (
        shelf.original(site, "coco"), shelf.prepared(site, "prepared/panoptic")
    ),
    "docs/data/mpi_inf_3dhp.md": lambda shelf, site: (
        shelf.original(site, "mpi_inf_3dhp"), shelf.prepared(site, "prepared/muco")
    ),
    "docs/data/muco.md": lambda shelf, site: shelf.original(site, "muco"),
    "docs/data/mupots.md": lambda shelf, site: (shelf.original(site, "mupots"), shelf.mupots_model(site)),
    "docs/data/panoptic.md": lambda shelf, site: (
        shelf.original(site, "panoptic"),
        site.add_program("PATH/panoptic-toolbox/scripts/getData.sh"),
    ),
    "docs/cluster.md": lambda shelf, site: shelf.in_bucket(site, "prepared/panoptic", "panoptic", "coco"),
    "cluster.yaml": lambda shelf, site: shelf.in_bucket(site, "prepared/panoptic"),
    "docs/evaluation.md": lambda shelf, site: (
        shelf.registry(site),
        shelf.people(site, "runs/demo-data/prepared", "prepared/panoptic"),
        shelf.predictions(site, "prepared/panoptic", "predictions.parquet", "A.parquet", "B.parquet"),
        shelf.other_groups(site),
    ),
    "docs/predict.md": lambda shelf, site: (shelf.photo(site), shelf.registry(site), shelf.results(site)),
    "docs/promotion.md": _promotion,
    "docs/weights.md": lambda shelf, site: (
        shelf.weights(site), shelf.prepared(site, "prepared/panoptic"), shelf.photo(site)
    ),
    "benchmarks/conversion.py": lambda shelf, site: site.data.mkdir(exist_ok=True),  # a disk is there
    "benchmarks/doubt_and_tracks.py": lambda shelf, site: shelf.registry(site),
    "benchmarks/train_step.py": lambda shelf, site: shelf.prepared(site, "/data/prepared/panoptic"),
    "jobs/benchmark.py": lambda shelf, site: (shelf.registry(site), shelf.people(site, "/data/prepared/panoptic")),
    "jobs/data.py": lambda shelf, site: (
        shelf.prepared(site, "/data/prepared/panoptic"), shelf.in_bucket(site, "panoptic")
    ),
    "jobs/doctor.py": lambda shelf, site: shelf.original(site, "panoptic", "coco"),
    "jobs/evaluate.py": lambda shelf, site: (
        shelf.registry(site),
        shelf.people(site, "/data/prepared/panoptic"),
        shelf.predictions(site, "/data/prepared/panoptic", "A.parquet", "B.parquet"),
    ),
    "jobs/predict.py": lambda shelf, site: (shelf.photo(site), shelf.registry(site)),
    "jobs/rescale.py": lambda shelf, site: shelf.results(site),
    "jobs/track.py": lambda shelf, site: shelf.results(site),
    "jobs/prepare.py": lambda shelf, site: shelf.original(site, "panoptic", "coco"),
    "jobs/promote.py": lambda shelf, site: shelf.registry(site),
    "jobs/registry.py": lambda shelf, site: shelf.registry(site),
    "jobs/sweep.py": lambda shelf, site: shelf.prepared(site, "/data/prepared/panoptic", "data/prepared/studio"),
    "jobs/train_mupots.py": lambda shelf, site: shelf.prepared(site, "/data/prepared/muco", "/data/prepared/coco"),
    "jobs/train_panoptic.py": lambda shelf, site: shelf.prepared(
        site, "/data/prepared/panoptic", "/data/prepared/coco", "data/prepared/studio"
    ),
    "pipeline/evaluation/evaluate.py": lambda shelf, site: (
        shelf.registry(site), shelf.prepared(site, "prepared/panoptic")
    ),
    "pipeline/evaluation/rescore.py": lambda shelf, site: (
        shelf.people(site, "prepared/panoptic"),
        shelf.predictions(site, "prepared/panoptic", "A.parquet", "B.parquet"),
    ),
}  # fmt: skip
BLOCKS = blocks()
FILES = [*dict.fromkeys(block.file for block in BLOCKS)]


@pytest.fixture(scope="module")
def running(tmp_path_factory, prepared):
    with services(tmp_path_factory.mktemp("services")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.s3.environment.items():  # what is given is put into buckets by this process
            patch.setenv(name, value)
        copy_folder(prepared, "s3://bucket/prepared")
        yield found


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, prepared, golden):
    return Shelf(tmp_path_factory.mktemp("shelf"), prepared, golden)


@pytest.fixture
def site(running, tmp_path):
    """A folder with a bucket of its own."""
    return Site(tmp_path, running, tmp_path.name.replace("_", "-").lower(), SMALLER)


def blocks_of(file: str) -> list[Block]:
    return [block for block in BLOCKS if block.file == file]


def test_pages_of_data_and_jobs_print_commands_and_these_are_counted():
    for file in FILES:
        found = blocks_of(file)
        print(f"{file}: {len(found)} blocks, {sum(len(block.commands) for block in found)} commands")
    assert {"README.md", "cluster.yaml", "docs/cluster.md", "docs/evaluation.md", "docs/promotion.md"} < set(FILES)
    data_and_jobs = [*(PROJECT / "docs/data").glob("*.md"), *(PROJECT / "jobs").glob("[!_]*.py")]
    assert {str(path.relative_to(PROJECT)) for path in data_and_jobs} < set(FILES)


def test_the_tables_name_files_and_commands_that_are_there():
    texts = {" ".join(words) for block in BLOCKS for words in block.commands}
    assert not set(INSTEAD) - texts, "no file prints these any more"
    assert not set(GIVEN) - set(FILES), "these files print no commands any more"
    calls = [" ".join(das_words(words)) for block in BLOCKS for words in block.commands]
    assert not [start for start in SMALLER if not any(f"{call} ".startswith(f"{start} ") for call in calls)]


def test_the_page_of_benchmarks_lists_every_one_with_the_command_that_its_file_prints():
    listed = re.findall(
        r"^\| `((?:\w+=\w+ )?python (benchmarks/\w+\.py))` ", (PROJECT / "docs/benchmarks.md").read_text(), re.M
    )
    for command, file in listed:
        assert f"\n    {command}" in (PROJECT / file).read_text()
    runnable = (path for path in (PROJECT / "benchmarks").glob("*.py") if "__main__" in path.read_text())
    assert sorted(file for _, file in listed) == sorted(f"benchmarks/{path.name}" for path in runnable)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_command_of_the_file_works(file, shelf: Shelf, site: Site):
    found = blocks_of(file)
    GIVEN.get(file, lambda *_: None)(shelf, site)
    for block in found:
        calls = site.run(block, {text: arguments for text, (_, arguments) in INSTEAD.items()})
        # tar is the only program without a stand-in; what is not called here has not been run.
        assert [call["words"] for call in calls] == [words for words in block.commands if words[0] != "tar"]
        for call in calls:
            print(f"{file}:{block.line} status {call['status']}, {call['seconds']:.1f} s: {' '.join(call['words'])}")
    print(f"{file}: {len(found)} blocks, {sum(len(block.commands) for block in found)} commands")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("das predict photo.jpg --model models:/das-demo@champion\n", "das: photo.jpg: no such file"),
        ("das registry history das-demo\ndas registry gate das-demo\n", "das: "),
        ("das registry gate das-demo | head\n", "head: command not found"),
        ("make demo-long\n", "make demo-long: not run here, wanted a row of INSTEAD"),
    ],
)
def test_a_block_that_cannot_work_fails(site: Site, text, said):
    with pytest.raises(AssertionError, match=r"new\.md:7 ended with status (?s:.*)" + said):
        site.run(Block("new.md", 7, text), {})


@pytest.mark.slow
def test_the_python_of_the_readme_works(shelf: Shelf, site: Site):
    shelf.photo(site)
    shelf.registry(site)
    (code,) = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = code.splitlines()
    assert lines[-1].startswith("prediction.source.kind ")
    lines[-1] = f"print(prediction.people.joints_cam.shape[1:], {lines[-1].partition('  #')[0]})"
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=site.folder, capture_output=True, text=True)
    assert done.stdout == "(15, 3) assumed\n", done.stderr


@pytest.mark.slow
def test_what_the_demo_offers_next_works(shelf: Shelf, site: Site):
    shelf.photo(site)
    shelf.registry(site)
    store = f"sqlite:///{site.folder}/runs/mlflow.db"
    das, mlflow = map(shlex.split, next_commands("models:/das-demo@champion", store))
    subprocess.run(das, cwd=site.folder, check=True)
    assert (site.folder / "predictions" / "photo.json").exists()
    port = free_port()
    server = subprocess.Popen([*mlflow, "--port", str(port)], start_new_session=True)  # ends with its group alone
    try:
        wait_for(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/"), "the page of MLflow")
        assert server.poll() is None
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(address: str) -> bool:
    """Whether a server gives the page."""
    try:
        with urllib.request.urlopen(address, timeout=10) as page:
            return page.status == 200
    except OSError:
        return False
