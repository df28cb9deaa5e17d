"""A dry run takes real steps in real workers, says what they take, and leaves nothing behind."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.data.shards import list_shards
from pipeline.infra.cluster import ClusterConfig
from pipeline.training.fit import fit
from pipeline.training.measure.dry_run import dry_run
from pipeline.training.trials import SweepConfig
from tests.pipeline.training.training_cases import tiny

pytestmark = pytest.mark.slow

SMALL = "--model.backbone-width 8 --ingest.width 96 --ingest.height 54 --ingest.batch-size 4".split()


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_says_memory_speed_and_duration_and_leaves_nothing_behind(
    local_ray, prepared, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = everything(prepared)
    words = ["train-panoptic", "small", "--data", str(prepared), "--workers", "2", "--optim.epochs", "1000"]
    cli.main([*words, *SMALL, "--cluster.storage", "new/runs", "--dry-run"])
    said = capsys.readouterr().out
    for pattern in (
        r"^dry run of das-panoptic: 4 steps, nothing is kept$",
        r"^  model +skeleton.name panoptic15, ",
        r" backbone resnet18, backbone_width 8,",
        r"^  recipe ",
        r"^  optim +optimizer adamw, ",
        r" epochs\s+1000,",
        r"^  data +32 rows an epoch of .*prepared, 4 steps$",
        r"^  workers +2 on CPU, [\d,]+ parameters; a step is 8 images: 4 x 1 accumulated x 2 workers$",
        r"^  step +[\d.]+ s, [\d.]+ images/s where they are there; loss [\d.]+$",
        r"^  reading +[\d.]+ images/s are read",
        r"^  memory +0\.\d+ of [\d.]+ GB at most \(a worker on its machine\)$",
        r"^  all of it 1000 epochs, 4000 steps: about [\d.]+ (h|min) as fast as",
    ):
        assert re.search(pattern, said, re.MULTILINE), (pattern, said)
    assert everything(tmp_path) == [] and everything(prepared) == before


def test_a_mistake_in_the_data_is_the_line_that_a_training_would_end_with(local_ray, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    for shard in map(Path, list_shards(tmp_path / "data", "train")):
        content = bytearray(shard.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        shard.write_bytes(content)
    where = ClusterConfig(storage=str(tmp_path / "runs"))
    config = tiny(tmp_path / "data", cluster=where)
    # As tests/jobs/test_cluster_of_three.py has it of a whole training.
    with pytest.raises(ValueError, match=r"^/.*/data/train/shard-.*\.parquet: row group 0 cannot be read"):
        dry_run(config)
    assert not (tmp_path / "runs").exists()


def test_what_a_training_refuses_before_its_start_a_dry_run_refuses_too(local_ray, prepared, tmp_path):
    config = tiny(prepared, cluster=ClusterConfig(storage=str(tmp_path)), workers=3)
    for run in (dry_run, fit):
        with pytest.raises(ValueError, match="needs 3 workers x 1 CPU, the cluster has 2 CPU"):
            run(config)
    (tmp_path / config.name).mkdir()
    (tmp_path / config.name / "training.json").write_text('{"seed": 5}')
    with pytest.raises(ValueError, match="resume with the same settings, or choose another --name"):
        dry_run(config)
    with pytest.raises(ValueError, match="train.dry_run = True, wanted a training: das train-panoptic --dry-run"):
        SweepConfig(train=dataclasses.replace(config, dry_run=True))
