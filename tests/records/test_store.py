"""The store keeps every record whole: through merges, corrupt files, leftovers, and SIGKILL at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.case import BadInput
from harness.records.files import owner
from harness.records.machine import describe
from harness.records.record import Reading
from harness.records.store import Archive, Store, done, missing

ASKED = {"flops": "asked", "latency": "asked", "clip_score": "asked"}
"""The identities that the records of `make_record` bear."""


def test_a_record_comes_back_unchanged(tmp_path, make_record):
    store, record = Store(tmp_path), make_record()
    assert store.get(record.case) is None
    store.put(record)
    assert store.get(record.case) == record
    assert Store(tmp_path).records() == [record]


def test_records_come_by_model_variant_and_resolution(tmp_path, make_record):
    store = Store(tmp_path)
    for variant in ("neighborhood", "deltaconv", "linfusion"):
        store.put(make_record(variant=variant))
    assert [record.case.variant for record in store.records()] == ["deltaconv", "linfusion", "neighborhood"]


def test_a_later_run_adds_its_metrics_to_the_record(tmp_path, make_record):
    store = Store(tmp_path)
    store.put(make_record(metrics=("flops",), readings=make_record().readings[:1]))
    kept = store.put(make_record(metrics=("latency",), readings=make_record().readings[1:2]))
    assert [reading.name for reading in kept.readings] == ["flops", "latency"]
    assert store.get(kept.case) == kept
    assert done(kept, ASKED) == {"flops", "latency"}


def test_a_dash_with_its_reason_is_done_in_an_ok_record_and_to_be_tried_again_in_a_failed_one(tmp_path, make_record):
    store = Store(tmp_path)
    flops = make_record().readings[0]
    dash = Reading("latency", "latency", None, "ms", "lower", "latency/v1", reason="no timer here")
    ok = store.put(make_record(readings=(flops, dash)))
    assert done(ok, ASKED) == {"flops", "latency"}
    assert done(replace(ok, readings=(flops, replace(dash, heals=True))), ASKED) == {"flops"}
    failed = store.put(make_record(readings=(flops, dash), status="failed", reason="it broke", steps=11))
    assert done(failed, ASKED) == {"flops"}


def test_an_unknown_case_lacks_everything(tmp_path, make_case):
    assert missing(make_case(), Store(tmp_path).get(make_case()), ASKED) == make_case().metrics


def test_a_number_is_kept_under_its_own_identity_alone(tmp_path, make_record):
    kept = Store(tmp_path).put(make_record())
    assert missing(kept.case, kept, ASKED) == ()
    assert missing(kept.case, kept, ASKED | {"latency": "another"}) == ("latency",)
    full = replace(make_record((), "out_of_memory", "full"), machine=describe("cpu"))
    assert missing(full.case, full, ASKED) == ()
    assert missing(full.case, full, ASKED | {"latency": "another"}) == ("latency",)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "case": {"model": "x"}}', "\x00"]
)
def test_a_corrupt_record_is_set_aside_and_said(tmp_path, make_record, text):
    said: list[str] = []
    store, record = Store(tmp_path, said.append), make_record()
    path = tmp_path / "records" / f"{record.case.key}.json"
    path.write_text(text)
    assert store.get(record.case) is None
    assert path.with_name(path.name + ".corrupt").read_text() == text
    assert len(said) == 1
    assert said[0].startswith(f"record {path.name} cannot be read (")
    assert said[0].endswith(f"set aside as {path.name}.corrupt, its case will be measured again")
    store.put(record)
    assert store.records() == [record]


def test_a_second_corrupt_record_does_not_overwrite_the_first(tmp_path, make_record):
    store, record = Store(tmp_path, lambda text: None), make_record()
    path = tmp_path / "records" / f"{record.case.key}.json"
    for text in ("first", "second"):
        path.write_text(text)
        store.records()
    assert sorted(aside.read_text() for aside in path.parent.glob("*.corrupt*")) == ["first", "second"]


def test_a_record_under_the_name_of_another_case_is_set_aside(tmp_path, make_record, make_case):
    said: list[str] = []
    store = Store(tmp_path, said.append)
    store.put(make_record())
    other = make_case(steps=99)
    (tmp_path / "records" / f"{make_case().key}.json").rename(tmp_path / "records" / f"{other.key}.json")
    assert store.get(other) is None
    assert make_case().key in said[0]


def test_a_folder_that_cannot_be_written_is_bad_input_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        BadInput, match=r"output folder '.*file/store' cannot be written \(Not a directory\): give another"
    ):
        Store(tmp_path / "file" / "store")


def test_a_record_that_cannot_be_written_is_bad_input_and_the_earlier_one_stays(tmp_path, make_record, monkeypatch):
    store, record = Store(tmp_path), make_record()
    store.put(record)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        BadInput, match=r"cannot be written .*No space left on device.*what was kept before is still there"
    ):
        store.put(make_record(readings=()))
    assert store.records() == [record]
    assert [path.name for path in (tmp_path / "records").iterdir()] == [f"{record.case.key}.json"]


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path):
    Store(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = tmp_path / "records" / f".a.json.{owner()}.tmp"
    gone = tmp_path / "records" / f".a.json.{owner().replace(str(os.getpid()), str(dead.pid))}.tmp"
    elsewhere = tmp_path / "records" / f".a.json.other-host.{dead.pid}.1.tmp"
    mine.touch()
    gone.touch()
    elsewhere.touch()
    Store(tmp_path)
    assert mine.exists()
    assert not gone.exists()
    assert elsewhere.exists()


@pytest.mark.parametrize("changed", [{}, {"load": 9.9}, {"cpu": "another"}, {"memory": 1}, {"gpu": "H100"}])
def test_what_memory_refused_is_final_on_machines_of_the_same_make_and_memory(make_record, changed):
    full = replace(make_record((), "out_of_memory", "full"), machine=describe("cpu") | changed)
    final = changed.keys() <= {"load"}
    assert missing(full.case, full, ASKED) == (() if final else full.case.metrics)
    more = replace(full.case, metrics=("flops", "fdd"))
    assert missing(more, full, ASKED) == more.metrics


def test_an_archive_writes_nothing_and_moves_nothing(tmp_path, make_record):
    said: list[str] = []
    assert Archive(tmp_path / "none", said.append).records() == []
    assert list(tmp_path.iterdir()) == []
    record = Store(tmp_path).put(make_record())
    broken = make_record(variant="deltaconv").case
    (tmp_path / "records" / f"{broken.key}.json").write_text("{")
    (tmp_path / "records" / ".a.json.999999999.tmp").touch()
    before = {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    archive = Archive(tmp_path, said.append)
    assert archive.get(record.case) == record
    assert archive.get(broken) is None
    assert {path: path.read_bytes() for path in (tmp_path / "records").iterdir()} == before
    (sentence,) = said
    assert sentence.endswith("its case will be measured again")


WRITER = """
import sys
from dataclasses import replace
from harness.records.record import Record
from harness.records.files import owner
from harness.records.store import Store
import json
store = Store(sys.argv[1])
record = Record.from_json(json.load(open(sys.argv[2])))
for steps in range(100000):
    store.put(replace(record, case=replace(record.case, steps=steps)))
    print(steps, flush=True)
"""


def test_a_run_that_is_killed_loses_no_record_that_it_had_put(tmp_path, make_record):
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps(make_record().to_json()))
    root = Path(__file__).parents[2]
    for delay_s in (0.05, 0.11, 0.17):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
            last = int((writer.stdout.read().strip().splitlines() or ["0"])[-1])
        said: list[str] = []
        kept = {record.case.steps for record in Store(tmp_path / "store", said.append).records()}
        assert kept >= set(range(last + 1))
        assert said == []
        assert not list((tmp_path / "store" / "records").glob(".*"))
