"""Command line, environment, das.yaml beside the jobs, das.yaml in the home folder, default: in this order."""

import json

import pytest
import yaml

from pipeline import cli
from pipeline.infra import job_defaults
from pipeline.infra.cluster import StoreConfig
from pipeline.infra.job_defaults import PROJECT, Given, given
from pipeline.training.presets import panoptic_presets


@pytest.fixture
def project(monkeypatch, tmp_path):
    """A project folder and a home folder, both empty; ``tmp_path/project`` and ``tmp_path/home``."""
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(job_defaults, "PROJECT", tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in job_defaults.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "project"


def write(folder, **fields):
    (folder / "das.yaml").write_text(yaml.safe_dump(fields))
    return folder / "das.yaml"


def test_the_environment_goes_before_the_file_beside_the_jobs_and_that_before_the_one_at_home(project, monkeypatch):
    home = write(project.parent / "home", preset="paper", prepared="s3://bucket/a", storage="results")
    assert given("preset") == Given(("paper",), str(home))
    here = write(project, preset="small", prepared=["data/b", "s3://bucket/c"])
    assert given("preset") == Given(("small",), str(here))
    assert given("prepared") == Given((f"{project}/data/b", "s3://bucket/c"), str(here))
    assert given("storage") == Given((f"{project.parent}/home/results",), str(home)), "a field that the first lacks"
    monkeypatch.setenv("DAS_PREPARED", "s3://bucket/d, /data/e")
    assert given("prepared") == Given(("s3://bucket/d", "/data/e"), "DAS_PREPARED")
    assert given("tracking_uri") is None


def test_options_go_before_the_environment(project, monkeypatch, tmp_path):
    monkeypatch.setenv("DAS_STORAGE", "/env")
    assert StoreConfig().locations()[0] == "/env" and StoreConfig("/option").locations()[0] == "/option"
    write(project, tracking_uri="http://file:5000")
    assert StoreConfig().locations()[1] == "http://file:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:5000")
    assert StoreConfig().locations()[1] == "http://env:5000"
    monkeypatch.setenv("DAS_PREPARED", "/env/data")
    assert panoptic_presets()["small"][1].data == ("/env/data",)


def test_the_das_yaml_of_the_page_is_one(project):
    page = (PROJECT / "docs/cluster.md").read_text()
    (project / "das.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    assert [given(name).values[0] for name in job_defaults.VARIABLES] == [
        "paper",
        "s3://bucket/panoptic",
        "s3://bucket/runs",
        "http://HEAD:5000",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("preset: small\nstorge: /runs\n", "unknown field 'storge', wanted some of preset, prepared, storage, trac"),
        ("storge: /runs\n", "did you mean storage?"),
        ("storage: [a, b]\n", "storage = ['a', 'b'], wanted a text"),
        ("prepared: 3\n", "prepared = 3, wanted a text or a list of texts"),
        ("prepared: []\n", "prepared = [], wanted a text or a list of texts"),
        ("- preset\n", "holds ['preset'], wanted fields: preset, prepared"),
        ("preset: [\n", "not YAML"),
    ],
)
def test_a_wrong_das_yaml_is_refused_with_its_name_and_the_field(project, capsys, text, line):
    (project / "das.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train-panoptic", "small", "--data", "/nowhere"])
    (error,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and error.startswith(f"das: {project}/das.yaml: ") and line in error


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "or set DAS_PRESET, or `preset:` in a das.yaml beside jobs/ or in "),
        (
            {"preset": "smal"},
            "das.yaml: preset = 'smal', wanted one of release, ours, paper, small; did you mean sma",
        ),
        (
            {"preset": "small"},
            "data is empty, wanted --data with folders made by `das prepare`, or set DAS_PREPARED",
        ),
        ({"preset": "small", "prepared": "/nowhere"}, "/nowhere does not exist; wanted a folder made by `das prepare`"),
    ],
)
def test_a_job_without_options_says_in_one_line_what_is_missing_and_how_to_give_it(project, capsys, fields, line):
    write(project, **fields) if fields else None
    with pytest.raises(SystemExit) as ended:
        cli.main(["train-panoptic"])
    (error,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line in error and not list(project.parent.glob("runs"))


def test_a_storage_in_a_shipped_folder_is_refused(project, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}}))
    for config in (StoreConfig(), StoreConfig("results/a")):
        with pytest.raises(ValueError, match=r"^storage = '\w+(/a)?' is inside of the folder that Ray has copied for"):
            config.locations()
    with pytest.raises(ValueError, match="^tracking_uri = 'x.db' is inside of the folder"):
        StoreConfig("/runs", "sqlite:///x.db").locations()
    assert StoreConfig("/runs").locations() == ("/runs", "sqlite:////runs/mlflow.db")
    assert StoreConfig("s3://bucket/runs", "http://head:5000").locations()[0] == "s3://bucket/runs"
