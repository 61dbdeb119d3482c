"""Cases and records are values: the key hashes what changes a result, JSON and pickle give them back unchanged."""

import json
import pickle
from dataclasses import fields, replace

import pytest

from harness.records.case import BadInput, Case, Resolution
from harness.records.record import Reading, Record, SiteAccount


@pytest.mark.parametrize(
    ("given", "width", "height", "text"),
    [
        (512, 512, 512, "512"),
        ("512", 512, 512, "512"),
        (" 1024x1536 ", 1024, 1536, "1024x1536"),
        ("64x64", 64, 64, "64"),
    ],
)
def test_a_resolution_is_a_side_or_width_by_height(given, width, height, text):
    resolution = Resolution.parse(given)
    assert (resolution.width, resolution.height) == (width, height)
    assert str(resolution) == text
    assert Resolution.parse(resolution) is resolution


@pytest.mark.parametrize("given", ["", "big", "512px", "-64", "64x", "x64", "64x64x64", 64.5, None, True])
def test_what_is_no_size_is_bad_input_that_says_what_is(given):
    with pytest.raises(BadInput, match=r"is not a size: give a side such as 512, or WIDTHxHEIGHT such as 1024x1536"):
        Resolution.parse(given)


@pytest.mark.parametrize("given", [0, "0", "0x64", "64x0"])
def test_a_size_without_pixels_is_bad_input(given):
    with pytest.raises(BadInput, match="has no pixels"):
        Resolution.parse(given)


CHANGES = {
    "model": "tiny_pixart",
    "variant": "linfusion",
    "resolution": Resolution(64, 128),
    "world": "laion",
    "n": 5,
    "steps": 11,
    "guidance": 3.5,
    "seeds": (1,),
    "batch": 8,
    "dtype": "bf16",
    "device": "cuda",
    "weights": "other",
    "mixer": '{"mixer": "baselines.pooling", "parameters": {}}',
    "config": "another",
    "processor": "another",
    "sampler": "ddim",
}


def test_every_field_but_the_metrics_changes_the_key(make_case):
    case = make_case()
    assert CHANGES.keys() == {field.name for field in fields(Case)} - {"metrics"}
    keys = {replace(case, **{name: value}).key for name, value in CHANGES.items()}
    assert len(keys | {case.key}) == len(CHANGES) + 1
    assert replace(case, metrics=("fdd",)).key == case.key
    assert len(case.key) == 16


def test_a_case_without_a_mixer_keeps_the_key_that_it_had_before_mixers_were_told(make_case):
    assert not {"mixer", "config", "processor"} & make_case().identity().keys()
    assert make_case().key == "6d26277c3dce9188"


def test_of_a_device_its_kind_counts_and_not_which_of_several_it_is(make_case):
    assert make_case(device="cuda:0").key == make_case(device="cuda:1").key == make_case(device="cuda").key


def test_width_and_height_are_not_exchangeable(make_case):
    assert make_case(resolution=Resolution(64, 128)).key != make_case(resolution=Resolution(128, 64)).key


def test_a_record_survives_json_and_pickle(make_record):
    site = SiteAccount("mid.attn1", 64, 4, (7, 13), "LinFusionAttention", 123, 45, "a note")
    record = replace(make_record(), sites=(site,), notes=("clamped",), artifacts={"image/0": "images/x/0.png"})
    text = json.dumps(record.to_json(), allow_nan=False)
    assert Record.from_json(json.loads(text)) == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert json.loads(text)["case"]["key"] == record.case.key


def test_exact_integers_stay_exact_beyond_the_reach_of_floats(make_record):
    flops = 2**70 + 1
    record = make_record(readings=(Reading("flops", "flops", flops, "FLOP", "lower", "flops/v1"),))
    back = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert back.readings[0].value == flops


def test_a_record_of_another_schema_is_refused(make_record):
    with pytest.raises(ValueError, match="schema 99, this version reads 1"):
        Record.from_json(make_record().to_json() | {"schema": 99})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="a number that could not be taken is None with a reason"):
        Reading("m", "m", value, "ms", "lower", "p")


def test_a_dash_needs_its_reason():
    with pytest.raises(ValueError, match="neither a value nor a reason"):
        Reading("m", "m", None, "ms", "lower", "p")


def test_a_later_run_replaces_the_metrics_that_it_took_and_keeps_the_others(make_record):
    flops, latency, clip = make_record().readings
    flops, latency = (replace(reading, origin={"cpu": "the first"}) for reading in (flops, latency))
    earlier = replace(
        make_record(metrics=("flops", "latency"), readings=(flops, latency)),
        artifacts={"a": "1", "b": "1"},
        notes=("published weights, all of them",),
        elapsed_s=35.5,
        seconds={"flops": 1.0, "latency": 4.0, "training": 30.0, "rest": 0.5},
        identities={"flops": "1", "latency": "1"},
    )
    faster, clip = (replace(reading, origin={"cpu": "the second"}) for reading in (replace(latency, value=9.0), clip))
    later = replace(
        make_record(metrics=("latency", "clip_score"), readings=(faster, clip)),
        artifacts={"b": "2"},
        elapsed_s=7.25,
        seconds={"latency": 2.0, "clip_score": 5.0, "rest": 0.25},
        identities={"latency": "2", "clip_score": "2"},
    )
    joined = earlier.merged(later)
    assert joined.readings == (flops, faster, clip)
    assert [reading.origin["cpu"] for reading in joined.readings] == ["the first", "the second", "the second"]
    assert joined.notes == earlier.notes
    assert joined.identities == {"flops": "1", "latency": "2", "clip_score": "2"}
    assert Record.from_json(json.loads(json.dumps(joined.to_json()))) == joined
    assert joined.case.metrics == ("flops", "latency", "clip_score")
    assert joined.case.key == earlier.case.key
    assert joined.artifacts == {"a": "1", "b": "2"}
    assert joined.seconds == {"flops": 1.0, "latency": 2.0, "training": 30.0, "rest": 0.25, "clip_score": 5.0}
    assert joined.elapsed_s == sum(joined.seconds.values())


def test_a_case_that_many_runs_took_at_once_took_the_seconds_of_one(make_record):
    one = replace(make_record(), elapsed_s=8.1, seconds={"flops": 0.1, "latency": 3.3, "clip_score": 4.5, "rest": 0.2})
    joined = one
    for _ in range(200):
        joined = joined.merged(one)
    assert joined == one
    lost = replace(one, readings=(), elapsed_s=0.0, seconds=dict.fromkeys(one.seconds, 0.0))
    assert joined.merged(lost).elapsed_s == 0.0


def test_a_record_that_does_not_say_what_its_seconds_went_into_keeps_them_all(make_record):
    later = replace(make_record(), elapsed_s=2.0, seconds={"latency": 2.0})
    assert make_record().merged(later).elapsed_s == 1.5 + 2.0
