"""Files written by many at once, and locks that they wait at."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.records.case import BadInput
from harness.records.files import locked, owner, write_whole
from harness.records.store import Store

ROOT = Path(__file__).parents[2]
OPENS = """
import sys
from harness.records.store import Store
for _ in range(10):
    Store(sys.argv[1])
"""
HOLDS = """
import sys, time
from pathlib import Path
from harness.records.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_200_openings_of_one_folder_by_processes_and_threads_are_all_let_in(tmp_path):
    others = [subprocess.Popen([sys.executable, "-c", OPENS, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: Store(tmp_path), range(170)))
    assert [other.wait() for other in others] == [0, 0, 0]
    assert list((tmp_path / "records").iterdir()) == []


def test_records_of_one_case_put_at_once_are_joined_and_none_is_lost(tmp_path, make_record):
    whole = make_record()
    single = [make_record((reading,), metrics=(reading.metric,)) for reading in whole.readings]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda record: Store(tmp_path).put(record), single * 5))
    (kept,) = Store(tmp_path).records()
    assert {reading.name for reading in kept.readings} == {reading.name for reading in whole.readings}


def test_threads_that_write_one_file_leave_the_whole_of_one_and_nothing_else(tmp_path):
    contents = [str(number) * 10_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(tmp_path / "file", content), contents))
    assert (tmp_path / "file").read_text() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_an_owner_is_this_host_process_and_thread():
    names = {owner()}
    thread = threading.Thread(target=lambda: names.add(owner()))
    thread.start()
    thread.join()
    assert len(names) == 2
    assert all(name.count(".") == 2 for name in names)


def test_who_waits_at_a_lock_says_so_and_gets_it_when_its_holder_dies(tmp_path, capsys):
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        killer = threading.Timer(2.5, holder.kill)
        killer.start()
        with locked(tmp_path / "lock", "another run is at it: waiting"):
            assert holder.wait() != 0
    assert capsys.readouterr().err == "another run is at it: waiting\n"


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path, capsys):
    with locked(tmp_path / "lock", "waiting"):
        pass
    assert capsys.readouterr().err == ""


def test_a_record_that_was_set_aside_by_another_run_meanwhile_is_no_fault(tmp_path, make_record, monkeypatch):
    said: list[str] = []
    store = Store(tmp_path, said.append)
    record = store.put(make_record())
    path = tmp_path / "records" / f"{record.case.key}.json"
    path.write_text("{")
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(FileNotFoundError()))
    assert store.get(record.case) is None
    assert said == []


def test_a_store_that_cannot_be_locked_says_what_to_do(tmp_path, make_record):
    store = Store(tmp_path)
    (tmp_path / ".lock").mkdir()
    with pytest.raises(BadInput, match=r"cannot be written under .* make room there or give another folder"):
        store.put(make_record())
