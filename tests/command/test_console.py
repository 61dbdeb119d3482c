"""stdout is a table that grows by a line a case and ends in one JSON object; everything else goes to stderr."""

import io
import json

import pytest

from harness.console import Console, cell
from harness.records.record import Reading
from harness.regression.verdict import Verdict

MANY = [("psnr", 30.0, None), ("ssim", 0.9, None), ("lpips", None, "no weights")]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def streams():
    return io.StringIO(), io.StringIO()


def test_a_run_prints_a_head_a_line_a_case_and_one_json_object_last(streams, make_record):
    out, err = streams
    console = Console(out, err)
    console.start(3, ["flops", "latency", "fdd"])
    console.row(make_record())
    console.skipped(make_record(variant="linfusion"))
    console.row(make_record(variant="deltaconv", status="failed", reason="it broke", readings=()))
    console.finish({"records": 3})
    head, first, kept, failed, last = out.getvalue().splitlines()
    assert head.split() == ["model", "variant", "resolution", "flops", "latency", "fdd", "status", "seconds"]
    assert first.split() == ["tiny_sd", "self_attention", "64", "1.00", "MFLOPs", "10.0", "ms", "–", "ok", "1.5"]
    assert kept.split()[-2:] == ["ok", "kept"]
    assert failed.split() == ["tiny_sd", "deltaconv", "64", "–", "–", "–", "failed", "1.5"]
    assert len({len(line) for line in (head, first, kept, failed)}) == 1
    assert json.loads(last) == {"records": 3}
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert "tiny_sd deltaconv 64: failed: it broke" in err.getvalue().splitlines()
    assert "3 of 3 cases, done in" in err.getvalue()


def test_a_metric_of_several_numbers_says_how_many_were_taken(streams, make_record):
    out, err = streams
    console = Console(out, err)
    console.start(1, ["paired"])
    numbers = [Reading("paired", name, value, "1", "higher", "p", reason=why) for name, value, why in MANY]
    console.row(make_record(readings=tuple(numbers)))
    assert out.getvalue().splitlines()[1].split() == ["tiny_sd", "self_attention", "64", "2", "numbers", "ok", "1.5"]


def test_a_row_is_on_stdout_as_soon_as_its_case_is_done(streams, make_record):
    out, err = streams
    console = Console(out, err)

    class Knows:
        whole = True

        def left_s(self) -> float:
            return 90.0

    pace = Knows()
    console.start(3, pace=pace)
    console.row(make_record())
    assert len(out.getvalue().splitlines()) == 2
    assert "1 of 3 cases, about 1 min 30 s left" in err.getvalue()
    pace.whole = False
    console.row(make_record())
    assert "2 of 3 cases, at least 1 min 30 s left" in err.getvalue()


def test_on_a_terminal_the_bar_stays_on_stderr_and_goes_away(make_record):
    out, err = io.StringIO(), Terminal()
    console = Console(out, err)
    console.start(2)
    console.working("tiny_sd linfusion 64: latency")
    console.row(make_record())
    console.notice("a notice")
    console.finish({})
    assert "\x1b" not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 3
    assert "1/2" in err.getvalue()
    assert err.getvalue().endswith("\x1b[2K")
    console.stop()


def test_a_narrow_terminal_gets_the_columns_that_fit_and_is_told_of_the_others(make_record, monkeypatch):
    monkeypatch.setenv("COLUMNS", "95")
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(), io.StringIO()
    console = Console(out, err)
    console.start(1, ["flops", "latency", "projected_memory", "fdd"])
    console.row(make_record())
    assert "latency" in out.getvalue()
    assert "fdd" not in out.getvalue()
    assert err.getvalue().startswith(
        "too wide for this terminal, but in the records and the report: projected_memory, fdd"
    )


def test_text_that_looks_like_markup_is_printed_as_it_is(streams, make_record):
    out, err = streams
    console = Console(out, err)
    console.start(1)
    console.row(make_record(status="failed", reason="models=[sd15] [/red] is unknown", readings=()))
    console.notice("[bold]x[/bold]")
    assert "models=[sd15] [/red] is unknown" in err.getvalue()
    assert "[bold]x[/bold]" in err.getvalue()


def test_verdicts_that_are_no_pass_are_said_and_all_are_counted(streams):
    out, err = streams
    console = Console(out, err)
    console.verdicts(
        [Verdict("flops", "a", "pass", 1, 1, "equal"), Verdict("flops", "b", "regression", 2, 1, "it grew")]
    )
    console.verdicts([])
    assert err.getvalue().splitlines() == ["gate: regression: b: flops: it grew", "gate: 1 pass, 1 regression"]
    assert out.getvalue() == ""


def test_a_cell_is_a_number_with_its_unit_or_a_dash():
    assert cell(None) == "–"
    assert cell(Reading("m", "m", None, "ms", "lower", "p", reason="why")) == "–"
    assert cell(Reading("m", "m", 27.123456, "1", "higher", "p")) == "27.12"
    assert cell(Reading("m", "m", 2**30, "byte", "lower", "p")) == "1.00 GiB"
