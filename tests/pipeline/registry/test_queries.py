"""`das registry`: history, diff, rollback and gate, by the command line."""

import pytest

from pipeline.cli import main
from pipeline.models import fingerprint, resolve_model
from pipeline.registry.promote import promote
from tests.pipeline.registry.promotion_cases import NAME, aliases


def call(place, *arguments, capsys):
    main([*arguments, "--cluster.storage", str(place.folder), "--cluster.tracking-uri", place.uri])
    return capsys.readouterr().out


def test_rollback_restores_exactly_the_former_version_and_the_history_has_every_change(place, capsys):
    marks = []
    for name, off in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        config = place.candidate(name, off)
        assert promote(config).champion
        marks.append(fingerprint(config.model))
    refused_one = promote(place.candidate("d", 4.0))
    assert not refused_one.champion

    printed = call(place, "registry", "rollback", NAME, "--reason", "rain", capsys=capsys)
    assert printed == "das-demo: champion is version 2 again, instead of version 3\n"
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == marks[1]
    call(place, "registry", "rollback", NAME, capsys=capsys)
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == marks[0]
    call(place, "registry", "rollback", NAME, "--to", "3", capsys=capsys)
    assert aliases(place) == {"champion": 3, "challenger": 4}

    history = call(place, "registry", "history", NAME, capsys=capsys)
    lines = history.splitlines()
    assert lines[0] == "das-demo: challenger is version 4, champion is version 3"
    changes = [line.split("  ")[2] for line in lines[lines.index("changes of champion:") + 1 :]]
    assert changes == ["none -> 1", "1 -> 2", "2 -> 3", "3 -> 2", "2 -> 1", "1 -> 3"]
    assert "rollback: rain" in history and history.count("refused: ") == 1

    diff = call(place, "registry", "diff", NAME, "1", "champion", capsys=capsys)
    assert diff.startswith("das-demo version 1 -> version 3\n") and "trained by run" in diff
    assert "mpjpe_with_misses: difference -" in diff and "by joint, mm:" in diff


def test_an_impossible_rollback_is_refused_and_changes_nothing(place, capsys):
    def refused_with(line, *arguments):
        with pytest.raises(SystemExit) as ended:
            call(place, "registry", *arguments, capsys=capsys)
        assert ended.value.code == 2 and line in capsys.readouterr().err

    refused_with("das-demo has no champion, so nothing to roll back", "rollback", NAME)
    for name, off in (("a", 2.0), ("b", 1.0)):
        assert promote(place.candidate(name, off)).champion
    promote(place.candidate("c", 3.0))
    refused_with("version 3 of das-demo was never champion, wanted one of [1, 2]", "rollback", NAME, "--to", "3")
    refused_with("version 2 of das-demo is the champion already", "rollback", NAME, "--to", "2")
    refused_with("no version 9; there are: 1, 2, 3", "rollback", NAME, "--to", "9")
    refused_with("has no alias 'chmpion'", "diff", NAME, "1", "chmpion")
    stored = resolve_model(f"models:/{NAME}/1", place.uri) / "config.json"
    stored.write_text(stored.read_text() + " ")
    refused_with("its files were changed", "rollback", NAME)
    assert aliases(place)["champion"] == 2
    assert len(place.model.champion_changes()) == 2


def test_the_printed_gate_is_a_valid_gate_file(place, tmp_path, capsys):
    main(["registry", "gate", NAME])
    (tmp_path / "gate.json").write_text(capsys.readouterr().out)
    config = place.candidate("command", 20.0)
    arguments = ["--model", config.model, "--scores", config.scores, "--name", NAME]
    with pytest.raises(SystemExit) as exit_:
        call(place, "promote", *arguments, "--gate", str(tmp_path / "gate.json"), capsys=capsys)
    assert exit_.value.code == 1 and "0.9 of the mean pose's" in capsys.readouterr().out
    good = place.candidate("good", 2.0)
    arguments = ["--model", good.model, "--scores", good.scores, "--name", NAME]
    assert "promoted; champion is version 2" in call(place, "promote", *arguments, capsys=capsys)
