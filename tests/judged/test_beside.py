"""What stands beside FDD, DS and CLIP score: closed forms, and readings of the embedded world."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from harness.features.clip import ClipExtractor
from harness.features.dino import DinoExtractor
from harness.judged.attributes import Attributes
from harness.judged.checks import blurred, noisy, untrusted_distance, untrusted_score
from harness.judged.distances import Distances
from harness.judged.fdd import Fdd
from harness.judged.infinite import frechet_distance_infinite, line
from harness.judged.paired import Paired, psnr, ssim
from harness.judged.patches import PatchFdd, patches
from harness.judged.spectrum import Spectrum, radial_spectrum
from harness.records.case import Resolution
from harness.shapes.world import ShapesWorld


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_on_a_line_over_one_over_n_are_extrapolated_exactly():
    parts = np.array([100.0, 200.0, 400.0, 800.0])
    found = line(1 / parts, 3.5 + 40 / parts)
    assert found.value.value == pytest.approx(3.5)
    assert found.slope == pytest.approx(40)
    assert found.r2 == pytest.approx(1)
    assert found.value.error == pytest.approx(0, abs=1e-9)


def test_extrapolation_takes_most_of_the_bias_away():
    x_ND, y_MD = drawn(1000, 6), drawn(20_000, 6, seed=1)  # one distribution: the distance is zero, the rest is bias
    found = frechet_distance_infinite(x_ND, y_MD)
    assert abs(found.value.value) < 0.02
    assert found.slope > 0
    assert found.value.low < 0.005
    with pytest.raises(ValueError, match="have no line"):
        frechet_distance_infinite(x_ND[:15], y_MD)


def test_patches_are_cut_from_their_image_at_the_same_places_every_time():
    images = torch.arange(2 * 3 * 10 * 12, dtype=torch.float32).reshape(2, 3, 10, 12)
    cut = patches(images, side=4, each=3)
    assert cut.shape == (6, 3, 4, 4)
    assert torch.equal(cut, patches(images, side=4, each=3))
    assert all(bool((cut[3 * i + k] >= images[i].min()).all()) for i in range(2) for k in range(3))
    assert torch.equal(patches(images[:, :, :4, :4], 4, 1), images[:, :, :4, :4])
    with pytest.raises(ValueError, match="hold no patch of 11 pixels"):
        patches(images, side=11, each=1)


@pytest.mark.parametrize("cycles", [4, 12, 28])
def test_the_power_of_a_wave_lies_in_its_ring(cycles):
    place = torch.arange(64) / 64
    wave = 0.5 + 0.4 * torch.cos(2 * math.pi * cycles * place).expand(64, 64)
    power_R = radial_spectrum(wave.expand(1, 3, 64, 64), rings=16)[0]
    assert int(power_R.argmax()) == cycles * 2 * 16 // 64
    assert power_R.max() > 0.5 * power_R.sum()
    assert radial_spectrum(torch.full((1, 3, 64, 64), 0.3)).max() < 1e-12


def test_psnr_and_ssim_are_those_of_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    x, y = (torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    theirs = peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert torch.allclose(psnr(x, y).float(), theirs, rtol=1e-6)
    each = [float(structural_similarity_index_measure(x[i : i + 1], y[i : i + 1], data_range=1.0)) for i in range(5)]
    assert ssim(x, y).tolist() == pytest.approx(each, rel=1e-5)
    assert psnr(x, x)[0] == pytest.approx(58.9, abs=0.05)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 5)
    assert ssim(x[:1], y[:1]).shape == (1,)


def test_what_does_not_order_is_told():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert untrusted_distance(images, lambda changed: float((changed - images).square().sum())) == ""
    told = untrusted_distance(images, lambda changed: -float((changed - images).square().sum()))
    assert told.startswith("blur of 0.0, 0.02, 0.08 on real images gives -0, ")
    assert "noise of 0.0, 0.1, 0.4" in told
    assert untrusted_score(images, lambda changed: -float((changed - images).square().sum())) == ""
    assert "out of order" in untrusted_score(images, lambda changed: 1.0)
    assert torch.equal(blurred(images, 0.0), images)
    assert torch.equal(noisy(images, 0.3), noisy(images, 0.3))


def test_a_blur_is_the_gaussian_of_both_sides_and_costs_little_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(blurred(images, 0.08), functional.gaussian_blur(images, [13, 13], [1.92, 1.92]))
    taps: list[int] = []
    real = functional.gaussian_blur

    def counted(images: torch.Tensor, kernel: list[int], sigma: list[float]) -> torch.Tensor:
        taps.append(kernel[0] * kernel[1])
        return real(images, kernel, sigma)

    monkeypatch.setattr("torchvision.transforms.functional.gaussian_blur", counted)
    blurred(torch.rand(1, 3, 256, 256), 0.08)
    assert sum(taps) < 256


class Model:
    """A teacher whose images are the world's references."""

    sampler = "dpm++"
    generated = 0

    def __init__(self, world):
        self.world = world

    def fingerprint(self):
        return "0"

    def load(self, device, dtype):
        pass

    def generate(self, prompts, seeds, resolution, steps, guidance, batch):
        self.generated += 1
        return self.world.references(len(prompts), resolution)


@pytest.fixture(scope="module")
def world():
    return ShapesWorld(
        "shapes",
        DinoExtractor("pkg://harness.shapes/weights/vit"),
        ClipExtractor("pkg://harness.shapes/weights/clip"),
    )


def trial(world, change, n=64, side=64, exact=False):
    """A trial whose images are changed references."""
    size = Resolution(side, side)
    images = change(world.references(n, size))
    case = SimpleNamespace(n=n, seeds=(0,), resolution=size, variant="v", model="m", world="shapes")
    case.steps, case.guidance, case.dtype, case.device, case.batch = 2, 1.0, "fp32", "cpu", 8
    return SimpleNamespace(
        case=case,
        world=world,
        model=Model(world),
        rows=lambda reader: reader.of(images, range(n)),
        reference_rows=lambda reader, count=n: reader.of(world.references(count, size), range(count)),
        references=lambda count: world.references(count, size),
        real=SimpleNamespace(once=lambda made_of, rows, compute: compute()),
        prompts=world.prompts(n),
        seeds=list(range(n)),
        trained=True,
        exact=exact,
        untrained_allowed=False,
    )


def readings(metric, *given, **more):
    return {reading.name: reading for reading in metric(trial(*given, **more))}


def test_worse_images_are_worse_by_every_distance(world):
    same, worse = (readings(Distances(), world, change) for change in (lambda x: x, lambda x: noisy(x, 2.0)))
    assert list(same) == ["kd", "cmmd", "precision", "recall", "density", "coverage", "fd_infinite"]
    for name in ("kd", "cmmd"):
        assert same[name].value < worse[name].value
        assert same[name].low <= same[name].value <= same[name].high
    for name in ("recall", "coverage"):  # one outlier's wide ball holds even noise: precision may miss it
        assert same[name].value > worse[name].value
    assert " of other captions n=64/64" in same["kd"].protocol
    assert abs(same["kd"].value) < 0.1 < worse["kd"].value
    assert same["fd_infinite"].value is None
    assert "ask for more than 256" in same["fd_infinite"].reason


def test_a_blur_takes_fine_structure_away_and_noise_adds_some(world):
    values = [
        readings(Spectrum(), world, change)["fine_structure"].value
        for change in (lambda x: blurred(x, 0.03), lambda x: x, lambda x: noisy(x, 0.1))
    ]
    assert values[0] < values[1] - 1
    assert values[1] == 0
    assert values[2] > 1


def test_patches_see_at_128_pixels_and_are_whole_images_at_64(world):
    (small,) = PatchFdd()(trial(world, lambda x: x))
    assert "a patch of 64 is the image or more" in small.reason
    (reading,) = PatchFdd(each=2)(trial(world, lambda x: noisy(x, 0.3), side=128))
    assert reading.n == 128
    assert reading.protocol.startswith("patch_fdd 2x64px timm:")
    assert reading.low > reading.details["floor"]
    assert len(reading.details["replicates"]) == 20


def test_a_student_is_compared_with_its_teacher_image_by_image_and_the_teacher_is_made_once(world):
    metric, one = Paired(), trial(world, lambda x: noisy(x, 0.05), n=8)
    found = {reading.name: reading for reading in metric(one)}
    again = {reading.name: reading for reading in metric(one)}
    assert one.model.generated == 1
    assert [reading.samples for reading in found.values()] == [reading.samples for reading in again.values()]
    assert list(found) == ["dino_cos", "psnr", "ssim", "lpips"]
    for name in ("dino_cos", "psnr", "ssim"):
        assert found[name].n == 8
        assert found[name].value > found[name].details["shuffled"]
    assert found["psnr"].value == pytest.approx(-20 * math.log10(0.05), abs=2)
    teacher = readings(metric, world, lambda x: x, n=8, exact=True)
    assert all(reading.value is None and "compared with" in reading.reason for reading in teacher.values())


def test_the_embedded_world_passes_the_checks_of_fdd(world):
    (reading,) = Fdd()(trial(world, lambda x: x))
    assert "untrusted" not in reading.details
    assert reading.details["margin"] == pytest.approx(0.10 * reading.value + (reading.high - reading.low) / 2)
    assert reading.details["margin_is"] == "10 % of the teacher's and 1 half-width of its interval"


def test_prompt_following_is_read_by_category_where_far_places_must_agree(world):
    found = readings(Attributes(), world, lambda x: x)
    wrong = readings(Attributes(), world, lambda x: x.roll(8, 0))
    assert list(found)[:2] == ["attributes", "scenes_right"]
    far = {f"attributes_{category}" for category in ("count", "place", "pair", "mirror")}
    assert far == set(found) - {"attributes", "scenes_right"}
    assert all(found[name].value > 0.9 > 0.5 > wrong[name].value for name in far)
    assert sum(found[name].n for name in far) <= found["attributes"].n == 64
    assert found["attributes"].details["margin"] == 0.01
    assert found["attributes"].details["margin_is"] == "1 point"
    assert all("margin" not in found[name].details for name in far)


def test_an_extractor_that_sees_no_noise_is_not_trusted(world):
    def blind(images):
        return images.mean(dim=(2, 3)).repeat(1, 3).round()

    one = trial(world, lambda x: x)
    dino = SimpleNamespace(protocol="blind", features=blind)
    one.world = SimpleNamespace(name="blind", dino=dino, pictured=True, held=lambda n: n, prompts=world.prompts)
    (reading,) = Fdd()(one)
    assert "out of order" in reading.details["untrusted"]
