"""The one command line: what is documented can be typed, and every option is explained."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import typing

import pytest

from pipeline import cli
from pipeline.demo import DemoConfig, next_commands, plan
from tests.documented.commands import PAGES, PROJECT, blocks

JOBS = sorted(p.stem for p in (PROJECT / "jobs").glob("*.py") if p.stem != "__init__")
# Where the function behind each command, or each of its own commands, lives.
FUNCTIONS = {
    "render": "pipeline.studio.render_job.render_with_ray",
    "doctor data": "pipeline.data.doctor.doctor",
    "doctor cluster": "pipeline.data.cluster_doctor.doctor_cluster",
    "prepare": "pipeline.data.prepare.convert.convert",
    "data stats": "pipeline.data.browse.stats.stats",
    "data show": "pipeline.data.browse.show.show",
    "train-panoptic": "pipeline.training.fit.fit",
    "train-mupots": "pipeline.training.fit.fit",
    "evaluate": "pipeline.evaluation.command.run_evaluation",
    "import-release": "pipeline.weights.import_release.import_release",
    "promote": "pipeline.registry.promote.promote",
    "registry": "pipeline.registry.queries.run_command",
    "predict": "pipeline.predict.predict.predict",
    "rescale": "pipeline.predict.rescale.rescale",
    "track": "pipeline.predict.track.track_videos",
    "sweep": "pipeline.training.sweep.sweep",
    "benchmark": "pipeline.evaluation.benchmark.benchmark.benchmark",
    "demo": "pipeline.demo.demo",
}
PHOTO = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0"
"""Enough of an image for what is looked at before torch is imported."""


class Called(Exception):
    """A command has been understood: its function was called with the configuration in ``args``."""


@pytest.fixture(autouse=True)
def no_look_at_a_cluster(monkeypatch):
    """Commands are parsed here, for data and servers that do not exist."""
    monkeypatch.setattr("pipeline.data.cluster_doctor.check_job", lambda *_: None)
    monkeypatch.setattr("pipeline.infra.cluster_checks.check_start", lambda *_: None)


@pytest.fixture
def understood(monkeypatch):
    """A function that parses a command line as `das` would and returns the configuration, running nothing."""

    def stop(config):
        raise Called(config)

    for path in FUNCTIONS.values():
        module, _, name = path.rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), name, stop)

    def parse(arguments):
        with pytest.raises(Called) as called:
            cli.main(arguments)
        return called.value.args[0]

    return parse


RAY_JOB = r"ray job submit (?:--address \S+ )?(?:--working-dir \. )?-- "
"""The form that Ray passes on whole: without its own --, it takes the options of the job for its own."""
BARE_JOB = r"ray job submit (?:--address \S+ )?jobs/(\w+)\.py(?: +#.*)?"
"""A job without options, in the folder in which the cluster was started."""


def shown() -> list[str]:
    """The lines of our own commands that are printed for users, in blocks or as inline code that submits a job."""
    texts = [line for block in blocks() for line in block.lines]
    for page in PAGES:
        texts += re.findall(r"(?<!`)`(ray job submit [^`]+)`(?!`)", page.read_text())
    return [line for line in texts if re.match(r"(?:ray job submit |python jobs/|das |make )", line)]


def command(line: str) -> list[str] | None:
    """The arguments of `das` in a line; None for a line of which Ray or a shell would make something else."""
    if bare := re.fullmatch(BARE_JOB, line):
        return [bare[1].replace("_", "-")]
    found = re.fullmatch(rf"(?:{RAY_JOB})?(?:python jobs/(\w+)\.py|das ([\w-]+))(.*)", re.sub(r"  +(?!#)", " ", line))
    return found and [
        (found[1] or found[2]).replace("_", "-"),
        *shlex.split(found[3].split(" > ")[0], comments=True),
    ]


def documented() -> list[list[str]]:
    """Arguments of `das` in every command that is shown."""
    return [arguments for line in shown() if (arguments := command(line))]


def test_every_command_shown_has_a_form_that_can_be_read():
    targets = re.findall(r"^([\w.-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for line in shown():
        made = re.match(r"make (\S+)", line)
        assert made[1] in targets if made else command(line), line
    assert sum("ray job submit" in line for line in shown()) >= 10


def test_a_job_whose_options_ray_would_take_for_its_own_is_no_command():
    assert command("ray job submit --working-dir . -- python jobs/train_panoptic.py small --data a")
    for line in (
        "ray job submit jobs/train_panoptic.py small --data a",
        "ray job submit --working-dir . python jobs/train_panoptic.py small --data a",
    ):
        assert command(line) is None


def test_the_long_demo_is_as_much_larger_as_readme_and_help_say():
    short, long = (plan(DemoConfig(long=long)) for long in (False, True))
    times = f"{long.studio.train_frames / short.studio.train_frames:g} times as many pictures to train on"
    assert times in " ".join((PROJECT / "README.md").read_text().split())
    assert times in " ".join(inspect.getsource(DemoConfig).split())
    assert long.model.build().backbone_width == 2 * short.model.build().backbone_width


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_what_the_documents_show_can_be_typed(understood, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAS_PRESET", "small")  # as on a cluster that is set up for jobs without options
    monkeypatch.setenv("DAS_PREPARED", "s3://bucket/panoptic")
    skeleton = re.search(r'```json\n({"name".*?)```', (PROJECT / "docs/bring_your_own.md").read_text(), re.DOTALL)
    for word in arguments:
        if word.endswith((".jpg", ".json")) and not word.startswith("/"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).write_bytes(PHOTO if word.endswith(".jpg") else skeleton[1].encode())
    if "--help" in arguments:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert not ended.value.code
    elif "..." not in arguments:
        assert dataclasses.is_dataclass(understood(arguments))


def test_what_the_demo_offers_next_can_be_typed(understood, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    das, mlflow = map(shlex.split, next_commands("models:/das-demo@champion", "sqlite:////a folder/mlflow.db"))
    assert all(os.access(program, os.X_OK) for program in (das[0], mlflow[0]))
    config = understood(das[1:])
    assert (config.model, config.tracking_uri) == ("models:/das-demo@champion", "sqlite:////a folder/mlflow.db")
    assert mlflow[1:] == ["ui", "--backend-store-uri", "sqlite:////a folder/mlflow.db"]


def test_every_job_is_documented_and_is_the_command_of_its_name():
    assert {job.replace("_", "-") for job in JOBS} == cli.COMMANDS.keys() == {name.split()[0] for name in FUNCTIONS}
    assert {command for command, *_ in documented()} >= cli.COMMANDS.keys() - {"demo"}
    for job in JOBS:
        path = PROJECT / "jobs" / f"{job}.py"
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env python3\n"), path
        assert f'main(["{job.replace("_", "-")}", *sys.argv[1:]])' in path.read_text()


def test_flags_reach_the_configuration(understood):
    config = understood(
        ["train-panoptic", "ours", "--data", "a", "b", "--repeat", "1", "2", "--model.pose-weight", "3", "--no-gpu"]
    )
    assert config.data == ("a", "b") and config.repeat == (1, 2) and not config.gpu
    assert config.model.build().pose_weight == 3.0 and config.optim.amp == "auto"


def test_without_a_command_the_commands_are_listed_by_group(capsys):
    cli.main([])
    usage = capsys.readouterr().out
    for group, functions in cli.GROUPS.items():
        part = usage.partition(f"\n{group}\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines()] == [f.__name__.replace("_", "-") for f in functions]
        assert all(f.__doc__ in part for f in functions)


def test_the_readme_lists_the_commands_in_the_words_of_help():
    rows = re.findall(r"^\| ([\w ]*) \| `([\w-]+)` \| (.*) \|$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert [name for _, name, _ in rows] == [*cli.COMMANDS]
    assert [f"{words}." for _, _, words in rows] == [f.__doc__ for f in cli.COMMANDS.values()]
    assert [group for group, _, _ in rows if group] == [*cli.GROUPS]


def dataclasses_below(config) -> set[type]:
    """The class and all dataclasses that its fields hold."""
    found = {config}
    for hint in typing.get_type_hints(config).values():
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind):
                found |= dataclasses_below(kind)
    return found


@pytest.mark.parametrize("path", sorted(set(FUNCTIONS.values())))
def test_every_option_has_its_sentence(path):
    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    config = next(iter(typing.get_type_hints(function).values()))
    for kind in dataclasses_below(config):
        (body,) = (n.body for n in ast.parse(inspect.getsource(kind)).body if isinstance(n, ast.ClassDef))
        for field, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert explained, f"{kind.__name__}.{ast.unparse(field.target)} has no sentence below it"


@pytest.mark.parametrize("arguments", [[], *([*name.split(), "--help"] for name in FUNCTIONS)], ids=" ".join)
def test_help_imports_neither_ray_nor_mlflow_nor_torch(arguments):
    """Each takes about a second to import; without them and these others `das COMMAND --help` takes a third of one."""
    heavy = {"torch", "ray", "mlflow", "pyarrow", "matplotlib", "scipy", "pycocotools", "jinja2"}
    code = f"""
import atexit, sys
from pipeline import cli
atexit.register(lambda: print({heavy} & set(sys.modules), file=sys.stderr))
cli.main({arguments})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "unknown command 'fly', wanted one of render, doctor, prepare"),
        (["train-panoptik"], "did you mean train-panoptic?"),
        (["train-panoptic"], "wanted das train-panoptic followed by one of release, ours, paper, small; or set DAS_"),
        (["train-panoptic", "small"], "data is empty, wanted --data with folders made by `das prepare`, or set DAS_"),
        (["sweep", "small"], "data is empty, wanted --train.data with folders made by `das prepare`, or set DAS_"),
        (["train-panoptic", "smal"], "unknown 'smal', wanted das train-panoptic followed by one of"),
        (["train-panoptic", "smal"], "did you mean small?"),
        (["train-panoptic", "--data", "a"], "followed by one of release, ours, paper, small before --data"),
        (["train-panoptic", "small", "small"], "unexpected 'small', wanted options only"),
        (["train-panoptic", "small", "--wings", "2"], "unknown option --wings (das train-panoptic small --help)"),
        (["train-panoptic", "small", "--optim.learning-rate", "1"], "did you mean --optim.lr?"),
        (["train-panoptic", "small", "--learning_rate", "1"], "did you mean --optim.lr?"),
        (["train-panoptic", "small", "--optim.ammp=x"], "unknown option --optim.ammp; did you mean --optim.amp?"),
        (
            ["train-panoptic", "small", "--optim.amp", "bf61"],
            "wanted one of none, auto, bf16, fp16; did you mean bf16?",
        ),
        (["train-panoptic", "small", "--workers", "two"], "--workers = 'two', wanted a whole number"),
        (["train-panoptic", "small", "--workers"], "--workers has no value, wanted a whole number"),
        (["train-panoptic", "small", "--workers", "0"], "das: workers = 0, wanted at least 1"),
        (["train-panoptic", "small", "--model.joints", "coco99"], "unknown joint set 'coco99'; known: panoptic15"),
        (["train-panoptic", "small", "--optim.lr", "-1"], "lr = -1.0, wanted above 0"),
        (["sweep", "small", "--trials", "0"], "trials = 0, wanted at least 1"),
        (["prepare", "--source", "panoptik", "--root", "a", "--out", "b"], "did you mean panoptic?"),
        (["render"], "das: --out is required (das render --help)"),
        (["promote"], "das: --model, --scores, --name are required (das promote --help)"),
        (["predict", "--model", "m"], "das: files is empty, wanted at least one photo or video"),
        (["predict", "x.jpg", "--model", "m"], "das: x.jpg: no such file"),
        (["predict", "x.jpg", "--modle", "m"], "unknown option --modle; did you mean --model?"),
        (["predict", "x.jpg", "--model", "m", "--fov", "wide"], "--fov = 'wide', wanted a number"),
        (["predict", "rtsp://x/y", "--model", "m"], "das: rtsp://x/y: a stream is no file, wanted --source rtsp://x/y"),
        (["predict", "--source", "door", "--model", "m"], "source = 'door', wanted the number of a camera"),
        (["rescale", "--focal", "900"], "das: results is empty, wanted at least one file or folder"),
        (["track"], "results = (), wanted at least one NAME.jsonl that `das predict` wrote"),
        (["track", "a.jsonl", "--max-gap", "0"], "max_gap = 0.0, wanted above 0 seconds"),
        (["rescale", "a.json"], "das: 0 of focal, fov and camera are given, wanted one of the three"),
        (["rescale", "a.json", "--focal", "9", "8"], "focal = (9.0, 8.0), wanted the smaller one first"),
        (["evaluate", "--model", "m", "--threshold", "high"], "--threshold = 'high', wanted a number"),
        (["evaluate"], "das: model = '' and predictions = None, wanted one of the two"),
        (["registry", "histroy", "das-demo"], "did you mean history?"),
        (["registry", "history"], "das: NAME is required (das registry history --help)"),
        (["import-release"], "das: FILE, --out are required (das import-release --help)"),
        (["import-release", "a.pth", "--out", "b", "--experiment", "panoptik"], "did you mean panoptic?"),
        (["registry", "history", "das-demo", "--cluster.num-cpus", "2"], "unknown option --cluster.num-cpus"),
        (["doctor"], "wanted das doctor followed by one of data, cluster"),
        (["doctor", "data"], "das: ROOT is required (das doctor data --help)"),
        (["data"], "wanted das data followed by one of stats, show"),
        (["data", "draw"], "unknown 'draw'"),
        (["doctor", "data", "a", "--names", "-1"], "names = -1, wanted at least 0"),
        (["data", "show", "a", "--count", "0"], "count = 0, wanted at least 1"),
        (["data", "stats", "a", "--assigned", "-1"], "assigned = -1, wanted at least 0"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line_and_status_2(understood, capsys, arguments, line):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    (error,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and error.startswith("das: ") and line in error
    assert not set(error) & set("╭╮╰╯│─") and not re.search(r"tyro|[A-Z]\w+Config", error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train-panoptic", "small", "--data", "a", "--model.joints", "{missing}"],
        ["train-panoptic", "small", "--data", "a", "--model.joints", "{broken}"],
        ["prepare", "--source", "coco", "--root", "{folder}", "--out", "{folder}-out", "--split-manifest", "{missing}"],
        ["prepare", "--source", "coco", "--root", "{folder}", "--out", "{folder}-out", "--split-manifest", "{broken}"],
        ["promote", "--model", "m", "--scores", "s", "--name", "das-demo", "--gate", "{missing}"],
        ["promote", "--model", "m", "--scores", "s", "--name", "das-demo", "--gate", "{broken}"],
        ["predict", "{photo}", "--model", "{folder}", "--camera", "{broken}"],
        ["predict", "{photo}", "--model", "{folder}"],
    ],
    ids=lambda arguments: f"{arguments[0]} {' '.join(arguments[-2:])}",
)
def test_a_message_names_its_file_once(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    names = {"missing": "nowhere.json", "broken": "broken.json", "photo": "photo.png", "folder": "folder"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.json").write_text('{"no end')
    (tmp_path / "photo.png").write_bytes(b"no photo")
    with pytest.raises(SystemExit) as ended:
        cli.main([word.format(**names) for word in arguments])
    (error,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "[Errno" not in error
    assert max(error.count(name) for name in names.values() if name != "folder") <= 1, error


# Where each option that is required stands in the help of its command.
REQUIRED = {
    "render": ["--out"],
    "doctor data": ["ROOT"],
    "prepare": ["--source", "--root", "--out"],
    "data stats": ["PREPARED"],
    "train-panoptic small": ["--data"],
    "evaluate": ["--data"],
    "benchmark": ["--model", "--data"],
    "import-release": ["FILE", "--out"],
    "promote": ["--model", "--scores", "--name"],
    "registry diff": ["(required)"],
    "predict": ["PHOTO", "--model"],
    "rescale": ["RESULTS"],
    "track": ["NAME.jsonl"],
}
# Commands whose every help has been asked for: those above and the others with options of their own.
HELPS = [*FUNCTIONS, "train-mupots ours", "sweep small", "registry history", "registry rollback", "registry gate"]


def help_of(name: str, capsys) -> str:
    """The help of a command, without boxes and line breaks."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*name.split(), "--help"])
    assert not ended.value.code
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(("name", "options"), REQUIRED.items(), ids=REQUIRED)
def test_help_says_which_options_are_required(capsys, name, options):
    text = help_of(name, capsys)
    for option in options:
        # Up to the next option there is no other default.
        assert re.search(rf"{re.escape(option)}(?:(?!\(default:).)*\(required\)", text) or option == "(required)", text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_mentions_in_its_text_have_these_options(page, capsys):
    targets = re.findall(r"^([\w.-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for program, words in re.findall(r"(?<!`)`(das|make) ([^`]+)`(?!`)", page.read_text()):
        if program == "make" or words.startswith("COMMAND "):
            assert words in (*targets, "COMMAND --help"), words
            continue
        known = [name for name in (*HELPS, *cli.COMMANDS) if f"{words} ".startswith(f"{name} ")]
        assert known, f"das {words}"
        options = re.findall(r"--[\w.-]+", words)
        assert not options or all(option in help_of(max(known, key=len), capsys) for option in options), words


@pytest.mark.parametrize("name", [*dict.fromkeys([*HELPS, *REQUIRED])])
def test_help_has_neither_names_of_classes_nor_of_the_parser(capsys, name):
    assert not re.search(r"tyro|[A-Z]\w+Config", help_of(name, capsys))


@pytest.mark.parametrize(
    "name",
    ["promote", "registry history", "registry diff", "registry rollback", "predict", "doctor data", "data stats"],
)
def test_only_commands_that_start_ray_have_options_of_a_cluster(capsys, name):
    for option in ("num-cpus", "num-gpus", "object-store", "dashboard", "address", "worker-logs", "shared-storage"):
        assert option not in help_of(name, capsys)


@pytest.mark.parametrize("name", ["train-panoptic small", "evaluate", "benchmark", "predict"])
def test_every_command_with_a_device_calls_it_device(capsys, name):
    text = help_of(name, capsys)
    assert re.search(r"--device,? .*\{(auto,)?cpu,cuda\}", text) and "gpu," not in text.replace("num-gpus", "")


def test_older_spellings_of_the_device_are_understood(understood):
    for words, gpu in ((["--gpu"], True), (["--no-gpu"], False), (["--device", "cuda"], True), ([], False)):
        assert understood(["evaluate", "--model", "m", "--data", "a", *words]).gpu is gpu
        assert understood(["train-panoptic", "small", "--data", "a", *words]).gpu is gpu
    assert understood(["sweep", "ours", "--train.data", "a", "--train.no-gpu"]).train.gpu is False
    for words in (["--devices", "cpu", "gpu"], ["--device", "cpu", "cuda"]):
        assert understood(["benchmark", "--model", "m", "--data", "d", *words]).devices == ("cpu", "gpu")


def test_the_version_is_said_without_torch():
    code = "import sys, das; from pipeline import cli; cli.main(['--version']); "
    code += "print(das.__version__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    version, line = done.stdout.splitlines()
    assert version == cli.version() and line == "0.1.0 False"
    assert re.fullmatch(r"das 0\.1\.0 \(0\.1\.0\+(git|src)\.\w+(\.dirty)?\)", version)


TYPED = {
    "render": ["render", "--out", "o"],
    "doctor data": ["doctor", "data", "a"],
    "doctor cluster": ["doctor", "cluster"],
    "prepare": ["prepare", "--source", "coco", "--root", "a", "--out", "b"],
    "data stats": ["data", "stats", "a"],
    "data show": ["data", "show", "a"],
    "train-panoptic": ["train-panoptic", "small", "--data", "a"],
    "train-mupots": ["train-mupots", "small", "--data", "a"],
    "evaluate": ["evaluate", "--model", "m", "--data", "a"],
    "import-release": ["import-release", "a.pth", "--out", "b"],
    "promote": ["promote", "--model", "m", "--scores", "s", "--name", "das-demo"],
    "registry": ["registry", "history", "das-demo"],
    "predict": ["predict", "photo.jpg", "--model", "m"],
    "rescale": ["rescale", "predictions", "--focal", "900"],
    "track": ["track", "predictions/walk.jsonl"],
    "sweep": ["sweep", "small", "--train.data", "a"],
    "benchmark": ["benchmark", "--model", "m", "--data", "a"],
    "demo": ["demo"],
}


class InTask(Exception):
    """As Ray hands on what a task raised: wrapped, with the exception in ``cause``."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback of many lines")
        self.cause = cause


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (PermissionError(13, "Permission denied", "out/x.json"), 2, "das: out/x.json: Permission denied\n"),
        (OSError(28, "No space left on device", "out/x.json"), 2, "das: out/x.json: No space left on device\n"),
        (InTask(NotADirectoryError(20, "Not a directory", "a/b")), 2, "das: a/b: Not a directory\n"),
        (ConnectionError("no server at\nhttp://head"), 2, "das: no server at http://head\n"),
        (BrokenPipeError(32, "Broken pipe"), 2, ""),
        (KeyboardInterrupt(), 130, "das: interrupted\n"),
    ],
    ids=["permission", "full", "task", "server", "pipe", "interrupt"],
)
def test_what_a_machine_refuses_is_one_line(monkeypatch, capsys, tmp_path, name, error, status, line):
    def fail(*_):
        raise error

    module, _, function = FUNCTIONS[name].rpartition(".")
    monkeypatch.setattr(importlib.import_module(module), function, fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    with pytest.raises(SystemExit) as ended:
        cli.main(TYPED[name])
    assert ended.value.code == status and capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("pipeline.demo.demo", lambda config: {}["no such key"])
    with pytest.raises(KeyError):
        cli.main(["demo"])


@pytest.mark.parametrize(
    ("shell", "status", "error"),
    [
        ("{das} --help > /dev/full", 2, "das: standard output: No space left on device\n"),
        ("{das} predict --help > /dev/full", 2, "das: standard output: No space left on device\n"),
        ("exec 3> >(exec true); sleep 1; exec {das} --help >&3", 2, ""),
    ],
)
def test_an_output_that_takes_nothing_is_one_line(shell, status, error):
    das = f"{shlex.quote(sys.executable)} -c 'from pipeline.cli import main; main()'"
    done = subprocess.run(["bash", "-c", shell.format(das=das)], cwd=PROJECT, capture_output=True, text=True)
    # With PYTHONUNBUFFERED it is the printing itself that fails, which does not know the name of what it prints to.
    assert done.returncode == status and done.stderr in (error, error.replace("standard output: ", ""))
