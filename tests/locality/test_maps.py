"""Maps recomputed from what enters a site are the layer's own; they are streamed, and of the moments asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pipelines
import torch

from harness.locality.maps import applied, projections, prove
from harness.locality.moments import Sampling, moments
from harness.locality.survey import listening, position_of, survey
from harness.locality.tally import Reader, Tally
from harness.models.model import Model
from harness.records.case import BadInput, Resolution

SIZE = Resolution(48, 32)
TIMES = (900, 100)


@pytest.fixture(params=["sd", "sdxl", "sigma"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    return tiny_pipelines.model(request.param, tmp_path / "teacher").load()


def taken(model: Model, guidance: float = 3.0, images: int = 2):
    prompts = ["a red circle", "a blue square"][:images]
    return moments(model, Sampling(SIZE, 4, guidance, TIMES), prompts, list(range(images)))


def test_a_maps_values_give_the_layers_own_output(model: Model) -> None:
    found, _ = taken(model)
    with listening(model.denoiser) as listeners:
        for listener in listeners:
            seen = []
            listener.attention.register_forward_hook(
                lambda layer, args, output, seen=seen: seen.append((args[0], output))
            )
            found[0].call(model.denoiser)
            tokens_1NC, output_1NC = seen[0]
            of_site = projections(listener.attention, tokens_1NC[0])
            made_NC = applied(listener.attention, of_site.maps(), of_site.v_hNd)
            assert (made_NC - output_1NC[0]).abs().max() <= 1e-5 * output_1NC.abs().max()


def test_a_map_of_something_else_is_refused(model: Model) -> None:
    found, _ = taken(model, images=1)
    with listening(model.denoiser) as listeners:
        found[0].call(model.denoiser)
        layer, tokens = listeners[0].attention, listeners[0].grid[0] * listeners[0].grid[1]
        tokens_NC = torch.randn(tokens, listeners[0].site.channels)
        other = projections(layer, torch.randn_like(tokens_NC))
        with pytest.raises(ValueError, match="is not that of the layer: its output is off by"):
            prove(layer, other, layer(tokens_NC[None])[0].detach(), listeners[0].site.path)


def test_a_layer_without_queries_has_no_map() -> None:
    with pytest.raises(BadInput, match="Linear has no attention map that can be read"):
        projections(torch.nn.Linear(4, 4), torch.ones(3, 4))


def test_moments_are_the_calls_of_the_sampling(model: Model) -> None:
    """Called again, a moment gives what the conditional half of the guided call gave."""
    given = []
    hook = model.denoiser.register_forward_hook(lambda module, args, output: given.append(output[0]))
    found, images = taken(model, images=1)
    hook.remove()
    assert [(each.image, each.time) for each in found] == [(0, model_time) for model_time in nearest(model)]
    assert images[0].shape == (3, 32, 48)
    again = [each.call(model.denoiser) for each in found]
    for made in again:
        assert any(torch.allclose(made, call[1:], atol=1e-5) for call in given)


def nearest(model: Model) -> list[int]:
    model.pipeline.scheduler.set_timesteps(4)
    steps = [int(step) for step in model.pipeline.scheduler.timesteps]
    return [min(steps, key=lambda step: abs(step - time)) for time in TIMES]


def test_without_guidance_the_moments_are_whole_calls(model: Model) -> None:
    found, _ = taken(model, guidance=1.0, images=1)
    assert len(found) == 2
    assert all(each.call(model.denoiser).shape[0] == 1 for each in found)


@pytest.mark.parametrize("times", [(1000,), (-1,), ()])
def test_times_out_of_range_are_refused(model: Model, times: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"give training timesteps from 0 \(clean\) to 999 \(noise\), such as \[899,499"):
        moments(model, Sampling(SIZE, 4, 3.0, times), ["a circle"], [0])


def test_a_survey_reads_the_mean_of_heads_and_times(model: Model) -> None:
    """Against the whole maps, held at once; the model is left as it was."""
    found, _ = taken(model)
    before = {path: id(module) for path, module in model.denoiser.named_modules()}
    read = survey(model.denoiser, found, Reader(), [(0.5, 0.5)])
    assert {path: id(module) for path, module in model.denoiser.named_modules()} == before
    whole = whole_maps(model, found)
    for site in read:
        maps_IThNN = whole[site.site.path]
        wanted = Tally(Reader(), site.grid, 1, torch.device("cpu"))
        queries_N = torch.arange(site.tokens)
        for maps_ThNN in maps_IThNN:
            wanted.add(maps_ThNN.mean(dim=(0, 1))[None], queries_N)
            wanted.close_image()
        for name, value in wanted.findings().items():
            assert site.mean.findings()[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        middle = position_of((0.5, 0.5), site.grid)
        assert torch.allclose(site.rows[middle], maps_IThNN[0].mean(dim=(0, 1))[middle], atol=1e-6)
        heads = site.by_head.findings(site.site.heads - 1)["raw"]
        last_head = Tally(Reader(), site.grid, 1, torch.device("cpu"))
        for maps_ThNN in maps_IThNN:
            last_head.add(maps_ThNN.mean(dim=0)[-1:], queries_N)
            last_head.close_image()
        assert heads == pytest.approx(last_head.findings()["raw"], rel=1e-4)


def whole_maps(model: Model, found) -> dict[str, torch.Tensor]:
    """(images, times, h, N, N) of every site."""
    with listening(model.denoiser) as listeners, torch.no_grad():
        for listener in listeners:
            listener.listens = True
        for moment in found:
            moment.call(model.denoiser)
        return {
            listener.site.path: torch.stack([each.maps() for each in listener.heard]).unflatten(0, (2, 2))
            for listener in listeners
        }


def test_small_blocks_and_little_memory_read_the_same(model: Model) -> None:
    found, _ = taken(model)
    read = survey(model.denoiser, found, Reader())
    frugal = survey(model.denoiser, found, Reader(), held_bytes=1, block_bytes=1)
    for one, other in zip(read, frugal, strict=True):
        wanted = one.mean.findings()
        for name, value in other.mean.findings().items():
            assert value == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("query", [(0.0, 0.0), (0.99, 0.99), (0.5, 0.0)])
def test_a_place_is_the_token_that_covers_it(query: tuple[float, float]) -> None:
    assert position_of(query, (4, 6)) == int(query[0] * 4) * 6 + int(query[1] * 6)


@pytest.mark.slow
def test_16384_tokens_of_8_heads_take_less_than_a_gigabyte_and_four_attentions() -> None:
    """One thread and the processor's own time: what else runs on the machine does not count."""
    script = Path(__file__).with_name("stream_large.py")
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    ratio, peak_mb = map(float, said.split()[:2])
    assert ratio <= 4
    assert peak_mb < 1024
