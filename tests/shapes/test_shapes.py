"""The embedded world: its grammar, its pictures, its tokenizers, and the probe that reads it."""

from itertools import islice

import pytest
import torch
from test_training import Stopped

from harness.distillation.training import Schedule, train
from harness.judged.attributes import right
from harness.records.case import Resolution
from harness.shapes.captions import CATEGORIES, PLACES, Scene, Thing, held_out_scenes, scenes, vocabulary
from harness.shapes.drawing import draw
from harness.shapes.extractors import main_class
from harness.shapes.part import WorldPart
from harness.shapes.probe import NOTHING, Sight, truth
from harness.shapes.reading import learn_to_read
from harness.shapes.teachers import _t5_encoder
from harness.shapes.tokenizers import LENGTH, clip_tokenizer, t5_tokenizer

QUICK = Schedule(steps=2, learning_rate=1e-2, warmup=1, precision="fp32")


def test_training_captions_and_held_out_captions_never_meet():
    training = {scene.caption for scene in islice(scenes(1), 3000)}
    tested = [scene.caption for scene in held_out_scenes(512)]
    assert len(set(tested)) == 512
    assert not training & set(tested)


def test_the_test_set_begins_the_same_at_every_length_and_holds_every_category():
    assert held_out_scenes(20) == held_out_scenes(40)[:20]
    assert {scene.category for scene in held_out_scenes(40)} == set(CATEGORIES)


def test_every_word_of_a_caption_is_in_the_vocabulary():
    words = {word for scene in islice(scenes(2), 2000) for word in scene.caption.split()}
    assert words <= set(vocabulary())


def test_an_image_depends_on_scene_and_seed_and_not_on_its_batch():
    chosen = held_out_scenes(6)
    together = draw(chosen, range(6))
    alone = draw(chosen[4:5], [4])
    assert torch.equal(together[4:5], alone)
    assert not torch.equal(alone, draw(chosen[4:5], [5]))


def test_a_mirrored_scene_is_its_own_mirror_image():
    scene = next(scene for scene in scenes(3) if scene.category == "mirror")
    image = draw([scene], [0])
    torch.testing.assert_close(image, image.flip(-1), atol=1e-5, rtol=0)


def test_a_matching_pair_shares_one_colour_which_its_caption_leaves_open():
    scene = next(scene for scene in scenes(3) if scene.category == "pair")
    first, second = scene.things
    assert first.colour == second.colour
    assert not any(colour in scene.caption for colour in ("red", "orange", "yellow", "green", "blue", "purple"))


def test_the_same_scene_at_twice_the_size_is_the_same_picture():
    chosen = held_out_scenes(8)
    small, large = draw(chosen, range(8)), draw(chosen, range(8), 128, 128)
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.005


def test_images_may_be_wider_than_tall():
    assert draw(held_out_scenes(2), range(2), 64, 96).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_every_word_is_one_token_and_any_other_word_can_still_be_read(make):
    tokenizer = make()
    empty = len(tokenizer("").input_ids)
    assert all(len(tokenizer(word).input_ids) == empty + 1 for word in vocabulary())
    assert tokenizer.unk_token_id not in tokenizer("zebra").input_ids[empty - 1 : -1]
    assert all(len(tokenizer(scene.caption).input_ids) <= LENGTH for scene in held_out_scenes(64))


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_a_tokenizer_is_the_same_at_every_making(make):
    assert make().get_vocab() == make().get_vocab()


def sight_of(scene: Scene) -> Sight:
    return truth([scene])


def test_a_perfect_image_has_every_attribute_right():
    for scene in held_out_scenes(16):
        assert right(scene, sight_of(scene), 0) == {"place": 1, "shape": 1, "colour": 1, "all": 1}


def test_a_wrong_colour_costs_the_colour_alone_and_something_extra_costs_the_whole():
    scene = Scene("place", "", 0, (Thing(colour=1, shape=2, size=0, place=4),))
    sight = sight_of(scene)
    sight.colour[0, 4] = 3
    assert right(scene, sight, 0) == {"place": 1, "shape": 1, "colour": 0, "all": 0}
    sight = sight_of(scene)
    sight.shape[0, 8] = 1
    assert right(scene, sight, 0) == {"place": 1, "shape": 1, "colour": 1, "all": 0}


def test_an_open_colour_is_right_where_the_pair_agrees():
    things = tuple(Thing(colour=1, shape=2, size=0, place=place, named=False) for place in (0, 8))
    scene = Scene("pair", "", 0, things)
    sight = sight_of(scene)
    sight.colour[0, [0, 8]] = 5
    assert right(scene, sight, 0)["colour"] == 1
    sight.colour[0, 8] = 2
    assert right(scene, sight, 0)["colour"] == 0.5


def test_truth_says_nothing_where_nothing_stands():
    scene = held_out_scenes(1)[0]
    assert (truth([scene]).shape[0] != NOTHING).sum() == len(scene.things)
    assert truth([scene]).shape.shape == (1, len(PLACES))


def test_the_classes_of_the_embedded_classifier_are_72():
    classes = {main_class(scene) for scene in islice(scenes(5), 3000)}
    assert classes == set(range(72))


def test_the_world_gives_references_of_the_asked_size():
    from harness.shapes.world import ShapesWorld

    world = ShapesWorld("shapes", dino=None, clip=None)  # type: ignore[arg-type]
    assert world.references(3, Resolution(96, 64)).shape == (3, 3, 64, 96)
    ((images, captions),) = world.training(4, Resolution(64, 64))
    assert images.shape == (4, 3, 64, 64)
    assert not set(captions) & set(world.prompts(512))


def test_an_encoder_that_has_learnt_to_read_is_the_same_when_its_denoiser_is_gone_on_with(tmp_path):
    chosen = held_out_scenes(4)
    found = t5_tokenizer()([scene.caption for scene in chosen], padding="max_length", max_length=LENGTH)
    tokens = torch.tensor(found["input_ids"]), torch.tensor(found["attention_mask"])
    states = []
    for seed, steps_to_take in ((0, 2), (1, 0)):
        torch.manual_seed(seed)
        encoder, calls = _t5_encoder(), []
        encoder.register_forward_hook(lambda *given, calls=calls: calls.append(1))
        learn_to_read(encoder, tokens, chosen, QUICK, tmp_path / "teacher.safetensors", batch=4)
        assert len(calls) == steps_to_take
        assert not any(weight.requires_grad for weight in encoder.parameters())
        states.append(encoder.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class TwoStages:
    """Trains one number in two stages; `stop` stops it in the second."""

    def __init__(self, stop: bool) -> None:
        self.stop = stop
        self.steps: list[int] = []

    def run(self, folder, scenes, checkpoint, device):
        module = torch.nn.Linear(1, 1)
        train(module, lambda step: self.loss(module, step), QUICK, "first", checkpoint)
        if self.stop:
            raise Stopped
        train(module, lambda step: self.loss(module, step), QUICK, "later", checkpoint.with_stem("x-checkpoint-later"))

    def loss(self, module, step):
        self.steps.append(step)
        return module(torch.ones(1, 1)).square().sum()

    def figures(self, folder):
        return {}


def test_a_lesson_goes_on_where_it_was_stopped_and_leaves_no_checkpoint_when_it_is_done(tmp_path):
    out = str(tmp_path / "x")
    with pytest.raises(Stopped):
        WorldPart(TwoStages(stop=True), out, scenes=1).train()
    assert [path.name for path in tmp_path.iterdir()] == ["x-checkpoint.safetensors"]
    again = TwoStages(stop=False)
    WorldPart(again, out, scenes=1).train()
    assert again.steps == [0, 1]
    assert not list(tmp_path.iterdir())
