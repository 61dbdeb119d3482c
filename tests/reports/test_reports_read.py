"""Reading a store folder: what is damaged is named, what cannot be rendered is one sentence, and imports stay light."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.record import Record
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


DAMAGES = {
    "not JSON": lambda text: text[: len(text) // 2],
    "not a JSON object": lambda text: "[]",
    "schema 7, this version reads 1": damage(lambda data: data.update(schema=7)),
    "no field 'readings'": damage(lambda data: data.pop("readings")),
    "resolution '0x64' is not a size": damage(lambda data: data["case"].update(resolution="0x64")),
    "field 'value' is 'fast', not a finite number": damage(lambda data: data["readings"][0].update(value="fast")),
    "field 'value' is True, not a finite number": damage(lambda data: data["readings"][0].update(value=True)),
    "NaN is not a number that a record may hold": lambda text: text.replace('"elapsed_s": 1.5', '"elapsed_s": NaN'),
    "'readings' holds something that is not an object": damage(lambda data: data.update(readings=[1])),
    "neither a value nor a reason": damage(lambda data: data["readings"][0].update(value=None)),
    "field 'case' is 3, not a dict": damage(lambda data: data.update(case=3)),
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_a_damaged_record_is_left_out_with_a_sentence(folder: Path, sentence: str) -> None:
    path = sorted((folder / "records").glob("*.json"))[0]
    path.write_text(DAMAGES[sentence](path.read_text()))
    store = load(folder)
    assert len(store.records) == 1
    assert len(store.notices) == 1
    assert path.name in store.notices[0]
    assert sentence in store.notices[0]


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
    for record in load(folder).records:
        original = known[record.key]
        assert (record.model, record.resolution) == (original.case.model, str(original.case.resolution))
        assert [(r.name, r.value, r.low, r.high, r.n) for r in record.readings] == [
            (r.name, r.value, r.low, r.high, r.n) for r in original.readings
        ]
        assert record.settings["steps"] == original.case.steps


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
        "heavy = {'torch', 'pandas', 'plotly', 'jinja2', 'PIL', 'harness', 'hydra', 'diffusers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "reports.render(sys.argv[1])\n"
        "assert not {'torch', 'harness', 'hydra', 'diffusers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, timeout=100)
