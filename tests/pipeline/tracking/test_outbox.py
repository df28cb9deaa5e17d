"""Journals: what is pending, also after a killed writer."""

from pipeline.tracking.outbox import Journal, journal_folder


def test_a_half_written_line_is_not_an_event(tmp_path):
    journal = Journal(tmp_path / "w.jsonl")
    journal.append({"n": 1})
    with journal.path.open("ab") as file:
        file.write(b'{"n": 2')  # killed here
    assert Journal(journal.path).pending()[0] == [{"n": 1}]
    journal.append({"n": 3})
    events, position = journal.pending()
    assert events == [{"n": 1}, {"n": 3}] and position == journal.path.stat().st_size
    journal.mark_sent(position)
    assert Journal(journal.path).pending() == ([], position)


def test_runs_on_object_storage_keep_their_journal_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_folder("s3://bucket/runs/a").is_relative_to(tmp_path)
    assert journal_folder("/runs/a").as_posix() == "/runs/a/tracking"


def test_the_name_of_a_journals_folder_has_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = journal_folder("s3://KEY:SECRET@bucket/runs/a?session_token=TOKEN")
    assert "bucket_runs_a" in folder.name
    assert not any(secret in folder.name for secret in ("KEY", "SECRET", "TOKEN"))
