"""Reading a store folder: what is damaged is named, what cannot be rendered is one sentence, and imports stay light."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.record import Record
from harness.records.store import Store
from reports import BadStore, load, render
from reports.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """A store with two good records."""
    (tmp_path / "records").mkdir()
    for variant in ("self_attention", "deltaconv"):
        record = make_record(variant=variant)
        (tmp_path / "records" / f"{record.case.key}.json").write_text(json.dumps(record.to_json()))
    return tmp_path


def damage(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    """A damage to the JSON of a record."""

    def apply(text: str) -> str:
        data = json.loads(text)
        change(data)
        return json.dumps(data)

    return apply


def text(change: Callable[[str], str]) -> Callable[[str], str]:
    """A damage to the text of a record."""
    return change


def field(*path: str | int, value: Any) -> Callable[[str], str]:
    """Another value for one field."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return damage(change)


def with_notes(whole: str, notes: str) -> str:
    return whole.replace('"notes": []', f'"notes": {notes}')


DEEP = "[" * 100_000 + "]" * 100_000
DAMAGES: dict[str, Callable[[str], str]] = {
    "not JSON": text(lambda whole: whole[: len(whole) // 2]),
    "not a JSON object": text(lambda whole: "[]"),
    "nested too deeply": text(lambda whole: whole.replace('"notes": []', f'"notes": {DEEP}')),
    "nested too deeply ": text(lambda whole: whole.replace('"notes": []', f'"notes": {"[" * 60 + "]" * 60}')),
    "an endless integer is not a finite number": text(
        lambda whole: whole.replace('"notes": []', f'"notes": [1{"0" * 400}]')
    ),
    "integer string conversion": text(lambda whole: whole.replace('"notes": []', f'"notes": [1{"0" * 5000}]')),
    "inf is not a finite number": text(lambda whole: whole.replace('"elapsed_s": 1.5', '"elapsed_s": 1e999')),
    "nan is not a finite number": text(lambda whole: whole.replace('"elapsed_s": 1.5', '"elapsed_s": NaN')),
    "nan is not a finite number ": text(lambda whole: whole.replace('"details": {}', '"details": {"a": [NaN]}', 1)),
    "is not text (half a character)": text(lambda whole: whole.replace('"reason": ""', '"reason": "\\ud800"', 1)),
    "schema 7, this version reads 1": field("schema", value=7),
    "no field 'status'": damage(lambda data: data.pop("status")),
    "no field 'case.seeds'": damage(lambda data: data["case"].pop("seeds")),
    "field 'case.strange' is not known to this version": field("case", "strange", value=1),
    "field 'case' is 3, not an object": field("case", value=3),
    "resolution '0x64' has no pixels": field("case", "resolution", value="0x64"),
    "field 'case.n' is True, not an integer": field("case", "n", value=True),
    "its case has the key": field("case", "n", value=5),
    "field 'status' is 'splendid', not one of ok": field("status", value="splendid"),
    "field 'status' is [], not one of ok": field("status", value=[]),
    "Invalid isoformat string: 'yesterday'": field("started", value="yesterday"),
    "field 'started' is 5, not text": field("started", value=5),
    "a duration below zero": field("elapsed_s", value=-1),
    "artifact 'image/0' is '../../secret', not a path inside": field("artifacts", value={"image/0": "../../secret"}),
    "artifact 'image/0' is '/etc/passwd', not a path inside": field("artifacts", value={"image/0": "/etc/passwd"}),
    "field 'artifacts.image/0' is 1, not text": field("artifacts", value={"image/0": 1}),
    "field 'artifacts' is [], not an object": field("artifacts", value=[]),
    "field 'readings[0]' is 1, not an object": field("readings", value=[1]),
    "field 'readings[0].value' is 'fast', not a number": field("readings", 0, "value", value="fast"),
    "field 'readings[0].value' is True, not a number": field("readings", 0, "value", value=True),
    "neither a value nor a reason": field("readings", 0, "value", value=None),
    "a cost below zero": field("readings", 0, "value", value=-5),
    "field 'readings[1].low' is '9', not a number": field("readings", 1, "low", value="9"),
    "has an interval from 99 to": field("readings", 1, "low", value=99),
    "field 'readings[2].samples[0]' is '1', not a number": field("readings", 2, "samples", value=["1"]),
    "field 'readings[0].better' is 'bigger', not one of lower": field("readings", 0, "better", value="bigger"),
    "field 'machine' is None, not an object": field("machine", value=None),
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_a_damaged_record_is_left_out_with_a_sentence(folder: Path, sentence: str) -> None:
    path = sorted((folder / "records").glob("*.json"))[0]
    damaged = DAMAGES[sentence](whole := path.read_text())
    assert damaged != whole
    path.write_text(damaged)
    store = load(folder)
    assert len(store.records) == 1
    assert len(store.notices) == 1
    assert path.name in store.notices[0]
    assert sentence.strip() in store.notices[0]
    assert "\n" not in store.notices[0]
    assert len(store.notices[0]) < 300
    said: list[str] = []
    assert len(Store(folder, said.append).records()) == 1
    assert len(said) == 1
    assert sentence.strip() in said[0]
    render(folder)


def test_a_record_in_no_encoding_is_left_out(folder: Path) -> None:
    (folder / "records" / "ff.json").write_bytes(b"\xff\xfe\x00{")
    assert load(folder).notices == ("ff.json cannot be read and is left out: not text in UTF-8",)


def test_what_the_harness_has_set_aside_or_not_yet_renamed_is_not_a_record(folder: Path) -> None:
    (folder / "records" / "0a.json.corrupt").write_text("{")
    (folder / "records" / ".0b.json.77.tmp").write_text("{")
    (folder / "records" / ".0c.json").write_text("{")
    assert load(folder).notices == ("0a.json.corrupt was set aside by the harness as unreadable",)


def test_records_come_back_as_the_harness_wrote_them(folder: Path, make_record: Callable[..., Record]) -> None:
    known = {r.case.key: r for r in (make_record(variant="self_attention"), make_record(variant="deltaconv"))}
    assert {r.case.key: r for r in load(folder).records} == known


def test_a_folder_named_like_a_record_is_set_aside(folder: Path) -> None:
    (folder / "records" / "0123456789abcdef.json").mkdir()
    assert load(folder).notices == ("0123456789abcdef.json cannot be read and is left out: Is a directory",)
    said: list[str] = []
    assert len(Store(folder, said.append).records()) == 2
    assert said[0].startswith("record 0123456789abcdef.json cannot be read (Is a directory): set aside as ")
    assert len(load(folder).records) == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "does not exist"),
        ("file", "is a file"),
        ("empty", "it holds no records"),
        ("broken", "none of its 1 record files can be read"),
    ],
)
def test_a_bad_folder_is_one_sentence_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty" / "records").mkdir(parents=True)
    (tmp_path / "broken" / "records").mkdir(parents=True)
    (tmp_path / "broken" / "records" / "a.json").write_text("{")
    assert main([str(tmp_path / name)]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_folder_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    (folder / "report.html").mkdir()
    with pytest.raises(BadStore, match="cannot be written"):
        render(folder)


def test_the_command_prints_where_the_page_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert sorted(p.name for p in folder.iterdir()) == ["readings.csv", "records", "report.html", "summary.md"]


def test_reports_import_nothing_heavy_and_rendering_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, reports\n"
        "heavy = {'torch', 'pandas', 'plotly', 'jinja2', 'PIL', 'scipy', 'hydra', 'diffusers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "reports.render(sys.argv[1])\n"
        "assert not {'torch', 'hydra', 'diffusers', 'harness.run'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, timeout=100)
