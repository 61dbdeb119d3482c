"""A hybrid: every site gets what the first pattern says, the teacher's own sites stay the teacher's, slips are said."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_distillation import RECIPE
from variants import ROOT, Teacher
from worlds import Noise

from baselines import NeighborhoodAttention, SelfAttention, hybrid
from deltaconv import DeltaConvBlock
from harness.counted.flops import body_of, cost_of
from harness.distillation.student import Student, ingredients
from harness.models.model import Model
from harness.records.case import BadInput, Resolution
from harness.seats.checkpoint import Weighted, read
from harness.seats.factory import overlaid
from harness.seats.mixer import Site
from harness.seats.surgery import seated

pytestmark = pytest.mark.usefixtures("cache")
PATHS = tuple(f"transformer_blocks.{block}.attn1" for block in range(6))
CHOICES = {
    "near": partial(NeighborhoodAttention.for_site, kernel_size=3),
    "block": partial(DeltaConvBlock.for_site, kernel_size=3, scales=(1.0,)),
    "self_attention": SelfAttention.for_site,
}


def mixer_at(path: str, sites: dict[str, str]) -> torch.nn.Module:
    return hybrid.for_site(Site(path, 8, 2, among=PATHS), Teacher(8), sites, CHOICES)


def catalogued(name: str) -> tuple[Model, partial[Any]]:
    """A model of the catalogue on the meta device, and the hybrid that is meant for it."""
    model = instantiate(OmegaConf.load(ROOT / "model" / f"{name}.yaml"))
    made = instantiate(OmegaConf.load(ROOT / "variant" / "hybrid.yaml"), _convert_="all")
    return model.load("meta"), partial(made.func, **overlaid(made.keywords, model.presets.get("hybrid", {})))


def test_the_first_pattern_that_fits_decides() -> None:
    sites = {"transformer_blocks.0|transformer_blocks.5": "block", "transformer_blocks.[0-3].attn1": "near"}
    sites["*"] = "self_attention"
    made = [type(mixer_at(path, sites)) for path in PATHS]
    near = [NeighborhoodAttention] * 3
    assert made == [DeltaConvBlock, *near, SelfAttention, DeltaConvBlock]


@pytest.mark.parametrize(
    ("sites", "sentence"),
    [
        (
            {"transformer_blocks.9": "near", "*": "block"},
            "sites has the pattern 'transformer_blocks.9', which fits no site of this model: "
            "its 6 sites run from transformer_blocks.0.attn1 to transformer_blocks.5.attn1",
        ),
        (
            {"transformer_blocks.1": "near"},
            "sites says nothing about site transformer_blocks.0.attn1: its patterns are transformer_blocks.1; "
            "add one, or '*' for the rest",
        ),
        (
            {"transformer_blocks.1": "nearer", "*": "block"},
            "the hybrid has 'nearer' at transformer_blocks.1: choose from near, block, self_attention",
        ),
    ],
)
def test_a_slip_in_the_map_is_said_in_one_sentence(sites: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        mixer_at(PATHS[0], sites)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "replaced", "sites"),
    [
        ("sd15", {320: 5}, 16),
        ("sdxl", {640: 10}, 70),
        ("pixart", {1152: 14}, 28),
        ("tiny_sd", {48: 3}, 7),
        ("tiny_pixart", {128: 3}, 6),
    ],
)
def test_the_default_replaces_the_finest_level_or_every_second_block(
    name: str, replaced: dict[int, int], sites: int
) -> None:
    model, factory = catalogued(name)
    before = {path: id(module) for path, module in model.denoiser.named_modules()}
    with seated(model.denoiser, factory) as seats:
        widths = Counter(seat.site.channels for seat in seats.values() if isinstance(seat.mixer, DeltaConvBlock))
        kept = sum(isinstance(seat.mixer, SelfAttention) for seat in seats.values())
    assert widths == replaced
    assert kept + widths.total() == len(seats) == sites
    assert {path: id(module) for path, module in model.denoiser.named_modules()} == before


def test_its_price_is_that_of_its_parts() -> None:
    model, factory = catalogued("tiny_sd")
    arguments = model.example(Resolution(64, 96))
    with seated(model.denoiser, factory) as seats:
        costs = cost_of(model.denoiser, body_of(model.denoiser, arguments))
        deeper = {path: (4, 6) if path.startswith("mid_block") else (8, 12) for path in seats}
        grids = {path: (16, 24) if seat.site.channels == 48 else deeper[path] for path, seat in seats.items()}
        assert costs.sites == {path: seat.mixer.flops(grids[path]) for path, seat in seats.items()}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_pipelines.model("sd", tmp_path / "teacher")


def test_distillation_trains_what_was_replaced_and_leaves_the_teachers_sites_alone(model: Model) -> None:
    factory = partial(hybrid.for_site, sites={"mid_block": "block", "*": "self_attention"}, choices=CHOICES)
    student = Student("tiny", "hybrid", ingredients(RECIPE, model.fingerprint(), factory, "noise"))
    RECIPE.run(student, model, factory, Noise(), "cpu")  # type: ignore[arg-type]
    assert {name.partition(".")[0] for name in student.checkpoint().tensors} == {"mid_block"}
    torch.manual_seed(RECIPE.seed)
    with seated(model.denoiser, factory) as seats:
        fresh = {path: seat.mixer for path, seat in seats.items()}
    with seated(model.denoiser, Weighted(factory, student.checkpoint())) as seats:
        for path, seat in seats.items():
            same = [torch.equal(*pair) for pair in zip(seat.mixer.parameters(), fresh[path].parameters(), strict=True)]
            assert all(same) == seat.mixer.exact == (not path.startswith("mid_block"))


def test_a_hybrid_of_the_teachers_sites_alone_has_nothing_to_learn(model: Model) -> None:
    factory = partial(hybrid.for_site, sites={"*": "self_attention"}, choices=CHOICES)
    student = Student("tiny", "hybrid", ingredients(RECIPE, "abc", factory, "noise"))
    RECIPE.run(student, model, factory, Noise(), "cpu")  # type: ignore[arg-type]
    assert student.available
    assert student.checkpoint().tensors == {}


def test_its_students_name_tells_maps_apart_and_is_the_same_in_every_process() -> None:
    def named(sites: dict[str, str], **settings: Any) -> str:
        nested = partial(hybrid.for_site, sites={"*": "near"}, choices={"near": partial(CHOICES["near"], **settings)})
        made = partial(hybrid.for_site, sites=sites, choices=CHOICES | {"nested": nested})
        return ingredients(RECIPE, "abc", made, "noise")

    one, other = {"mid_block": "near", "*": "block"}, {"*": "block", "mid_block": "near"}
    assert named(one) != named(other)
    assert named(one) != named(one, kernel_size=5)
    assert named(one) == named(one, backend="tiled")
    assert " at 0x" not in named(one)
    assert json.loads(named(one))["mixer"] == "baselines.hybrid.for_site"


def shared(share: float, order: str = "interleaved") -> str:
    """Which sites of six are replaced, as `x` and `.`."""
    made = [
        hybrid.for_site(Site(path, 8, 2, among=PATHS), Teacher(8), {}, CHOICES, share, order, "block") for path in PATHS
    ]
    return "".join("x" if isinstance(mixer, DeltaConvBlock) else "." for mixer in made)


@pytest.mark.parametrize(
    ("share", "order", "wanted"),
    [
        (0.0, "interleaved", "......"),
        (1.0, "interleaved", "xxxxxx"),
        (0.5, "interleaved", ".x.x.x"),
        (0.34, "interleaved", "..x..x"),
        (0.5, "shallow", "xxx..."),
        (0.5, "deep", "...xxx"),
        (0.25, "deep", "....xx"),
    ],
)
def test_a_share_of_the_sites_is_replaced(share: float, order: str, wanted: str) -> None:
    assert shared(share, order) == wanted


def test_a_list_names_what_is_replaced() -> None:
    made = [
        hybrid.for_site(
            Site(path, 8, 2, among=PATHS), Teacher(8), ["transformer_blocks.[01].attn1"], CHOICES, replacement="near"
        )
        for path in PATHS
    ]
    assert [type(mixer) for mixer in made] == [NeighborhoodAttention] * 2 + [SelfAttention] * 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"share": 1.5}, "share=1.5 is not possible: give the share of the sites to replace, from 0 to 1"),
        ({"share": -0.1}, "share=-0.1 is not possible: give the share of the sites to replace, from 0 to 1"),
        ({"share": 0.5, "order": "odd"}, "order 'odd' is not known: choose from interleaved, shallow, deep"),
        (
            {"share": 1.0, "replacement": "none"},
            "the hybrid has 'none' at transformer_blocks.0.attn1: choose from near",
        ),
        ({"flops": 0.3}, "flops=0.3 is a budget that the harness spells out by a measured profile: give sites here"),
        ({"sites": ["nowhere"]}, "sites has the pattern 'nowhere', which fits no site of this model"),
    ],
)
def test_a_slip_in_a_share_is_said_in_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        hybrid.for_site(Site(PATHS[0], 8, 2, among=PATHS), Teacher(8), **({"sites": {}, "choices": CHOICES} | settings))
    assert str(error.value).startswith(sentence)


def test_a_hybrid_takes_the_weights_of_a_student_of_one_of_its_choices(model: Model, tmp_path: Path) -> None:
    """Every site's mixer learnt by itself, so those that a hybrid keeps can be taken over as they are."""
    whole = Student("tiny", "block", ingredients(RECIPE, "abc", CHOICES["block"], "noise"))
    torch.manual_seed(1)
    with seated(model.load().denoiser, CHOICES["block"]) as seats:
        mixers = {path: seat.mixer for path, seat in seats.items()}
    whole.save(mixers, tmp_path / "block.safetensors", {})
    half = partial(hybrid.for_site, sites={}, choices=CHOICES, share=0.5, replacement="block")
    checkpoint = read(tmp_path / "block.safetensors")
    with seated(model.denoiser, Weighted(half, checkpoint)) as seats:
        for path, seat in seats.items():
            if not seat.mixer.exact:
                for name, value in seat.mixer.state_dict().items():
                    assert torch.equal(value, mixers[path].state_dict()[name].half().float())
    other = partial(hybrid.for_site, sites={}, choices={"near": CHOICES["near"]}, share=0.5)
    with pytest.raises(BadInput, match="is a student of DeltaConvBlock, not of hybrid"):
        Weighted(other, checkpoint)
