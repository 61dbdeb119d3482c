"""The numbers that the paper prints stand beside ours, with what differs, and are dashes where it prints none."""

from types import SimpleNamespace

import pytest

from harness.judged.printed import PrintedQuality


def printed(model: str, variant: str):
    return {
        reading.name: reading
        for reading in PrintedQuality()(SimpleNamespace(case=SimpleNamespace(model=model, variant=variant)))
    }


@pytest.mark.parametrize(
    ("model", "variant", "values"),
    [
        ("sd15", "self_attention", (42.74, 210.86, 30.44)),
        ("sd15", "deltaconv", (44.72, 200.15, 30.73)),
        ("pixart_512", "deltaconv", (None, 181.06, None)),
        ("sdxl", "linfusion", (None, None, None)),
    ],
)
def test_cells_are_those_of_table_3(model, variant, values):
    found = printed(model, variant)
    assert tuple(reading.value for reading in found.values()) == values
    assert list(found) == ["ds_printed", "fdd_printed", "clip_score_printed"]
    assert all(reading.better == "neither" for reading in found.values())
    assert all(reading.value is not None or "Table 3 does not print" in reading.reason for reading in found.values())


def test_what_differs_is_said():
    told = printed("sd15", "deltaconv")["ds_printed"].details["differs"]
    assert any("DreamShaper" in line for line in told)
    assert any("guidance" in line for line in told)
