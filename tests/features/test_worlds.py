"""Worlds of real data: every layout that people have, every caption, and what is refused before anything is made."""

import io
import json
import os
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import baselines
from harness.features.clip import ClipExtractor
from harness.features.dino import DinoExtractor
from harness.features.listing import entries
from harness.features.world import FolderWorld, to_draw, untaught
from harness.records.case import BadInput, Resolution
from harness.seats.factory import is_training_free

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def world(folder: Path | None, **settings: Any) -> FolderWorld:
    return FolderWorld("own", DinoExtractor("/nowhere"), ClipExtractor("/nowhere"), folder, **settings)


def painted(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def colours(found: FolderWorld, n: int) -> list[tuple[int, ...]]:
    images = found.references(n, Resolution(4, 4))
    return [tuple(int(255 * value) for value in image[:, 0, 0].tolist()) for image in images]


def listed(folder: Path, *rows: Any, name: str = "metadata.jsonl") -> Path:
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def packed(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 4), colour).save(file, "png")
    return file.getvalue()


def json_lines(folder: Path) -> dict[str, Any]:
    painted(folder / "b.png", RED), painted(folder / "sub" / "a.png", BLUE)
    listed(folder, {"file_name": "b.png", "text": "red"}, {"file_name": "sub/a.png", "text": "blue"})
    return {}


def csv_with_a_byte_order_mark(folder: Path) -> dict[str, Any]:
    painted(folder / "b, 1.png", RED), painted(folder / "a.png", BLUE)
    (folder / "metadata.csv").write_text('\ufefffile_name,text\r\n"b, 1.png",red\r\na.png,blue\r\n', newline="")
    return {}


def the_papers_list(folder: Path) -> dict[str, Any]:
    painted(folder / "imgs" / "1.png", RED), painted(folder / "2.png", BLUE)
    rows = [{"img_path": "/elsewhere/1.png", "prompt": "red"}, {"img_path": "../../2.png", "prompt": "blue"}]
    (folder / "LAION_10000.json").write_text(json.dumps(rows))
    return {"captions": "LAION_10000.json"}


def texts_beside(folder: Path) -> dict[str, Any]:
    for name, colour, text in (("x/1.JPG", RED, "red\n"), ("y/1.jpg", BLUE, "\ufeffblue")):
        painted(folder / name, colour)
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    painted(folder / "uncaptioned.png", GREEN)
    return {"fit": "crop"}


def img2dataset_files(folder: Path) -> dict[str, Any]:
    from pyarrow import parquet, table

    for name, colour, text in (("000000000", RED, "red"), ("000000001", BLUE, "blue")):
        painted(folder / "00000" / f"{name}.png", colour)
        (folder / "00000" / f"{name}.json").write_text(json.dumps({"caption": text, "key": name}))
    parquet.write_table(table({"caption": ["red", "blue"], "url": ["u", "v"]}), folder / "00000.parquet")
    return {}


def webdataset(folder: Path) -> dict[str, Any]:
    packed(folder / "00000.tar", {"a/1.png": png(RED), "a/1.txt": b"red", "a/1.json": b"{}", "README": b"?"})
    packed(folder / "00001.tar", {"a/1.json": b'{"caption": "blue"}', "a/1.png": png(BLUE)})
    return {}


def parquet_of_bytes(folder: Path) -> dict[str, Any]:
    from pyarrow import parquet, table

    pictures = [{"bytes": png(RED), "path": None}, {"bytes": png(BLUE), "path": "x.png"}]
    parquet.write_table(table({"image": pictures, "text": ["red", "blue"]}), folder / "0.parquet", row_group_size=1)
    return {}


LAYOUTS = (
    json_lines,
    csv_with_a_byte_order_mark,
    the_papers_list,
    texts_beside,
    img2dataset_files,
    webdataset,
    parquet_of_bytes,
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_captions_with_their_own_pictures(tmp_path, layout):
    found = world(tmp_path, **layout(tmp_path))
    assert found.prompts(2) == ["red", "blue"]
    near = [tuple(round(value / 255) * 255 for value in colour) for colour in colours(found, 2)]  # JPEG is near
    assert near == [RED, BLUE]
    assert found.pictured
    assert (found.held(2), found.held(5)) == (2, 2)
    assert found.notes == ()


def test_categories_sizes_and_fits(tmp_path):
    painted(tmp_path / "a.png", RED)
    listed(tmp_path, {"file_name": "a.png", "text": "red", "category": "colour"})
    assert [entry.category for entry in entries(tmp_path, None)] == ["colour"]
    assert world(tmp_path).references(1, Resolution(6, 10)).shape == (1, 3, 10, 6)
    assert world(tmp_path, side=5).references(1, Resolution(64, 64)).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompts.txt", "red\n\nblue\n"),
        ("p.json", '["red", "blue"]'),
        ("p.jsonl", '{"prompt": "red"}\n{"prompt": "blue"}\n'),
        ("p.csv", "text\nred\nblue\n"),
        ("p.tsv", "text\tmore\nred\t1\nblue\t2\n"),
    ],
)
def test_prompts_alone_are_a_world_without_references(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    for found in (world(tmp_path, captions=name), world(tmp_path / name)):
        assert found.prompts(2) == ["red", "blue"]
        assert not found.pictured
        assert found.held(2) == 0
        with pytest.raises(BadInput, match="is a prompt without a picture"):
            found.references(1, Resolution(4, 4))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a\nb\r\n\tc ", "a b c"),
        ("a\u2028b\u00a0c", "a b c"),
        (["first", "second"], "first"),
        ("x" * 9_999, "x" * 9_999),
        ("“curly” &amp; é 画", "“curly” &amp; é 画"),
    ],
)
def test_captions_that_are_mended(tmp_path, given, read):
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": given}, ensure_ascii=False))
    assert world(tmp_path / "p.jsonl").prompts(1) == [read]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "has nothing where its caption should be"),
        ([], "has nothing where its caption should be"),
        (7, "has a number where its caption should be"),
        ({"a": 1}, "has a dict where"),
        ("", "has an empty caption"),
        (" \n", "has an empty caption"),
        ("x" * 100_000, "has a caption of 100000 characters"),
        ("half \ud83d", "has a caption that is no text"),
        ("nul \0", "has a caption that is no text"),
    ],
)
def test_captions_that_are_refused_are_named_and_can_be_left_out(tmp_path, given, sentence):
    rows = [{"text": "good"}, {"text": given}, {"text": "good"}]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(BadInput, match=rf"^p\.jsonl line 2 {sentence}.*skip_bad=true$"):
        world(tmp_path / "p.jsonl").prompts(1)
    found = world(tmp_path / "p.jsonl", skip_bad=True)
    assert found.prompts(2) == ["good", "good"]  # twice the same is no fault
    assert found.notes[0].startswith("1 entries of world own were left out: p.jsonl line 2")


def test_a_bad_picture_is_named_before_anything_is_made_and_left_out_only_if_asked(tmp_path):
    for i in range(6):
        painted(tmp_path / f"{i}.png", RED if i % 2 else BLUE)
    (tmp_path / "1.png").write_bytes(b"")
    os.unlink(tmp_path / "4.png")
    listed(tmp_path, *({"file_name": f"{i}.png", "text": f"{i}"} for i in range(6)))
    with pytest.raises(BadInput, match=r"^1\.png is empty; 4\.png is not there: mend what is named"):
        world(tmp_path).prompts(3)
    found = world(tmp_path, skip_bad=True)
    assert found.prompts(4) == ["0", "2", "3", "5"]
    assert found.held(8) == 4
    assert colours(found, 4) == [BLUE, BLUE, RED, RED]
    assert found.notes == ("2 entries of world own were left out: 1.png is empty; 4.png is not there",)
    with pytest.raises(BadInput, match="holds 4 entries that can serve, n=5 asks for more"):
        found.prompts(5)


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png"])
def test_files_outside_of_the_folder_are_refused(tmp_path, name):
    painted(tmp_path / "a.png", RED)
    (tmp_path / "inside").mkdir()
    listed(tmp_path / "inside", {"file_name": name, "text": "x"})
    with pytest.raises(BadInput, match=r"metadata\.jsonl line 1: .* points outside of its folder"):
        world(tmp_path / "inside").prompts(1)


def test_a_pipe_among_the_pictures_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    listed(tmp_path, {"file_name": "a.png", "text": "x"})
    with pytest.raises(BadInput, match=r"a\.png is no file but a folder, a pipe or a device"):
        world(tmp_path).prompts(1)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"}', r"line 1 has no caption in its columns file_name: name one"),
        ("metadata.csv", b"file_name,words\na.png,x\n", r"line 2 has no caption in its columns file_name, words"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n{"file', r"line 2 is not JSON"),
        ("metadata.jsonl", b'{"file_name": null, "text": "x"}', r"names no file in its column 'file_name'"),
        ("metadata.jsonl", b"3", r"line 1 is a int: write an object"),
        ("metadata.jsonl", b"\n", r"holds nothing"),
        ("metadata.csv", "file_name,text\na.png,caf\xe9\n".encode("latin-1"), r"is not UTF-8 \(byte 0xe9 in line 2\)"),
        ("metadata.csv", b'file_name,text\na.png,"x', r"cannot be read"),
        ("metadata.json", '["x"]'.encode("utf-16"), r"is not UTF-8"),
        ("0.tar", b"no tar", r"archive .* cannot be read"),
        ("0.parquet", b"no table", r"table .* cannot be read"),
    ],
)
def test_lists_that_cannot_be_read_are_one_sentence(tmp_path, name, data, sentence):
    painted(tmp_path / "a.png", RED)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=sentence):
        world(tmp_path).prompts(1)


def test_a_line_separator_inside_json_ends_no_line(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"text": "a\u2028b"}\n{"text": "c\u0085d"}\n', encoding="utf-8")
    assert world(tmp_path / "p.jsonl").prompts(2) == ["a b", "c d"]


def test_a_text_beside_that_is_latin_1_is_named(tmp_path):
    painted(tmp_path / "a.png", RED)
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(BadInput, match=r"caption file .*a\.txt' cannot be read"):
        world(tmp_path).prompts(1)


def test_a_misspelt_list_is_answered_with_those_that_are_there(tmp_path):
    listed(tmp_path, {"text": "x"})
    with pytest.raises(BadInput, match=r"captions=metdata\.jsonl is no list in .*: there are metadata\.jsonl"):
        world(tmp_path, captions="metdata.jsonl").prompts(1)
    with pytest.raises(BadInput, match="points outside"):
        world(tmp_path, captions="../metadata.jsonl").prompts(1)


def test_a_world_that_cannot_serve_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"give them with catalog\.worlds\.own\.folder=FOLDER"):
        world(None).prompts(1)
    with pytest.raises(BadInput, match="is no folder and no list"):
        world(tmp_path / "none").prompts(1)
    with pytest.raises(BadInput, match="holds no captioned images"):
        world(tmp_path).prompts(1)
    with pytest.raises(BadInput, match="has nothing to distil a student on"):
        list(world(tmp_path).training(1, Resolution(4, 4)))


def test_a_world_without_training_data_says_why_it_teaches_nothing(tmp_path):
    assert "has nothing to distil a student on: give captioned images, or a list of captions" in untaught(
        world(tmp_path)
    )
    assert untaught(world(tmp_path, training_folder=tmp_path)) == ""
    assert untaught(object()) == ""  # a world that says nothing of it, such as the embedded one, teaches without end


def test_what_takes_all_its_weights_from_its_teacher_needs_no_training():
    inheriting = partial(baselines.NeighborhoodAttention.for_site, kernel_size=5)
    assert is_training_free(inheriting)
    assert is_training_free(partial(baselines.TokenMerging.for_site))
    assert not is_training_free(partial(inheriting, inherit=False))
    assert not is_training_free(partial(baselines.LinFusionAttention.for_site))
    assert not is_training_free(lambda site, attention: None)


def test_a_training_folder_is_read_as_any_other(tmp_path):
    painted(tmp_path / "a.png", RED)
    listed(tmp_path, {"file_name": "a.png", "text": "red"})
    ((images, captions),) = world(None, training_folder=tmp_path).training(1, Resolution(4, 4))
    assert images.shape == (1, 3, 4, 4)
    assert captions == ["red"]


def test_what_students_learn_from_is_named_by_its_entries_and_how_they_are_resized(tmp_path):
    painted(tmp_path / "a.png", RED)
    listed(tmp_path, {"file_name": "a.png", "text": "red"})
    names = [world(None, training_folder=tmp_path, resize=way).taught_on() for way in ("bilinear", "bicubic")]
    assert world(None, training_folder=tmp_path).taught_on() == names[0] != names[1]


def test_a_training_folder_that_cannot_teach_is_one_sentence(tmp_path):
    painted(tmp_path / "a.png", RED)
    with pytest.raises(BadInput, match="holds no captioned images"):
        world(None, training_folder=tmp_path).require_training(1)
    listed(tmp_path, {"text": "red"}, {"file_name": "a.png", "text": "red"})
    with pytest.raises(BadInput, match=r"metadata\.jsonl line 1 is a caption without an image: nothing"):
        world(None, training_folder=tmp_path).require_training(2)
    with pytest.raises(BadInput, match=r"2 entries can serve to distil .* train\.samples=3 asks for more"):
        world(None, training_folder=tmp_path).require_training(3)
    assert (
        world(None, training_folder=tmp_path).taught_on()
        != world(None, training_folder=tmp_path, resize="bicubic").taught_on()
    )


def test_a_sorted_training_folder_is_shuffled_the_same_way_each_time(tmp_path):
    for number in range(20):
        painted(tmp_path / f"{number:02}.png", RED)
    listed(tmp_path, *({"file_name": f"{number:02}.png", "text": f"{number:02}"} for number in range(20)))

    def captions(n: int) -> list[str]:
        return [
            each for _, some in world(None, training_folder=tmp_path).training(n, Resolution(4, 4)) for each in some
        ]

    whole = captions(20)
    assert whole == captions(20) != sorted(whole) == [f"{number:02}" for number in range(20)]
    assert captions(5) == whole[:5]


def test_captions_alone_are_for_a_teacher_to_draw_each_several_times_where_they_are_few(tmp_path):
    listed(tmp_path, {"text": "red"}, {"text": "blue"}, name="prompts.jsonl")
    found = world(None, training_folder=tmp_path / "prompts.jsonl")
    found.require_training(5)
    drawn = to_draw(found, 5)
    assert drawn[:2] == drawn[2:4]
    assert sorted(drawn[:2]) == ["blue", "red"]
    painted(tmp_path / "a.png", RED)
    listed(tmp_path, {"file_name": "a.png", "text": "red"})
    assert to_draw(world(None, training_folder=tmp_path), 5) == to_draw(world(tmp_path), 5) == []


def test_what_is_left_out_of_a_training_folder_is_counted(tmp_path):
    painted(tmp_path / "a.png", RED), painted(tmp_path / "b.png", BLUE)
    (tmp_path / "a.png").write_bytes(b"no picture")
    listed(tmp_path, {"file_name": "a.png", "text": "red"}, {"file_name": "b.png", "text": "blue"})
    found = world(None, training_folder=tmp_path)
    ((_, captions),) = found.training(2, Resolution(4, 4))
    assert captions == ["blue"]
    assert found.notes[0].startswith("1 entries of world own to learn from were left out: a.png is no image")
