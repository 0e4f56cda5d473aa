"""Files of records, one a line: reading them changes nothing, and a later run goes on from them."""

from __future__ import annotations

import pytest

from fkv.records import append_record, read_records, resume_records


def test_reading_records_changes_nothing(tmp_path):
    missing = tmp_path / "none" / "records.jsonl"
    with pytest.raises(ValueError, match="there is no file .*records.jsonl with records"):
        read_records(missing)
    assert not missing.parent.exists()
    file = tmp_path / "records.jsonl"
    file.write_text('{"chunk": 0}\n{"chu')
    assert read_records(file) == [{"chunk": 0}]
    assert file.read_text() == '{"chunk": 0}\n{"chu'


def test_a_run_goes_on_with_whole_records(tmp_path):
    file = tmp_path / "out" / "records.jsonl"
    assert resume_records(file) == []
    append_record(file, {"chunk": 0})
    file.write_text(file.read_text() + '{"chu')
    assert resume_records(file) == [{"chunk": 0}]
    append_record(file, {"chunk": 1})
    assert read_records(file) == [{"chunk": 0}, {"chunk": 1}]
    file.write_text("nothing\n")
    with pytest.raises(ValueError, match="has a line that is not a record"):
        resume_records(file)


def test_whole_records_stay_where_a_run_is_ended_while_it_removes_a_line_that_was_cut_off(tmp_path, monkeypatch):
    file = tmp_path / "records.jsonl"
    append_record(file, {"chunk": 0})
    file.write_text(file.read_text() + '{"chu')

    def ended(self, *rest, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda self, data: self.open("wb") and ended(self))
        patch.setattr("os.truncate", ended)
        with pytest.raises(KeyboardInterrupt):
            resume_records(file)
    assert resume_records(file) == [{"chunk": 0}]


@pytest.mark.parametrize("line", [b"5\n", b"[]\n", b"\xff\xfe\n"], ids=["number", "list", "no text"])
def test_a_line_that_is_no_record_is_named_with_its_file(line, tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_bytes(b'{"chunk": 0}\n' + line)
    with pytest.raises(ValueError, match="records.jsonl has a line that is not a record"):
        resume_records(file)
