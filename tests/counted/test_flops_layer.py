"""The count of one layer: Table 1 of the paper to its printed digits, and what of it is quoted only."""

from types import SimpleNamespace

import pytest
from variants import FACTORIES

from harness.counted.layer_flops import LayerFlops, paper_self_attention, token_grid
from harness.records.case import BadInput, Resolution
from harness.records.record import Reading


def readings(variant: str, size: str, teacher: str = "self_attention") -> tuple[Reading, Reading]:
    case = SimpleNamespace(resolution=Resolution.parse(size), variant=variant)
    ours, printed = LayerFlops(teacher=teacher)(SimpleNamespace(case=case, bare_factory=FACTORIES[variant]))  # type: ignore[arg-type]
    return ours, printed


def giga(flops: float | None) -> float:
    assert isinstance(flops, int)
    return round(flops / 1e9, 2)


@pytest.mark.parametrize(("size", "shown"), [("512", 49.67), ("1024", 714.08)])
def test_table_1_of_the_paper_is_reproduced_to_the_printed_digits(size: str, shown: float) -> None:
    ours, printed = readings("self_attention", size)
    assert giga(ours.value) == giga(printed.value) == shown
    assert "paper" in ours.protocol


def test_table_1_holds_at_any_width_and_height() -> None:
    assert token_grid(Resolution.parse("512x1024")) == (128, 64)
    assert paper_self_attention((128, 64)) == paper_self_attention((64, 128))
    tokens = 128 * 64
    assert paper_self_attention((128, 64)) == 4 * tokens * 640**2 + 4 * tokens**2 * 640 + 4 * tokens * 640


def test_the_papers_sizes_4k_and_16k_are_those_at_which_its_own_numbers_agree() -> None:
    """The headline ratio, and one price a token in the ∆Conv column, each to the digits that are printed."""
    cells = {size: readings("deltaconv", size)[1].value for size in ("1024", "4096x2160", "15360x8640")}
    attention = readings("self_attention", "15360x8640")[0].value
    assert attention is not None
    assert cells["15360x8640"] is not None
    assert round(attention / cells["15360x8640"]) == 6929
    for size, cell in cells.items():
        height, width = token_grid(Resolution.parse(size))
        assert cell == pytest.approx(766_348.4 * height * width, abs=0.005e9)  # half of the last printed digit


def test_our_count_of_self_attention_is_the_papers_but_for_scaling_and_softmax() -> None:
    """What makes our reading of the table's C = 640 (the top layer of SD1.5 at guidance batch 2) the coherent one."""
    ours, _ = readings("self_attention", "512", teacher="nobody")
    assert ours.value == paper_self_attention((64, 64)) - 4 * 4096 * 640
    assert "ours" in ours.protocol


def test_every_other_variant_has_our_count_of_the_same_layer() -> None:
    ours, printed = readings("linfusion", "512")
    assert giga(ours.value) == 13.85  # facts: C = 320, mid = C, guidance batch 2
    assert giga(printed.value) == 17.03
    ours, printed = readings("deltaconv", "512")
    assert ours.value == 2 * (2 * 4096 * 320**2 + 5 * 4096 * 320 * 13**2 // 4 + 2 * 320**2)
    assert giga(printed.value) == 2.82
    assert "the paper counted another form of the block" in printed.details["why"]


def test_a_cell_that_the_table_does_not_have_is_a_dash_with_the_reason() -> None:
    assert readings("deltaconv", "2048")[1].reason == (
        "Table 1 prints deltaconv at 512, 1024, 4096x2160, 15360x8640 only"
    )
    assert readings("neighborhood", "512")[1].reason == "Table 1 has no row of neighborhood"


def test_a_layer_of_half_a_token_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        BadInput, match="resolution 516x512 has no whole number of tokens: give sides in multiples of 8"
    ):
        token_grid(Resolution.parse("516x512"))
