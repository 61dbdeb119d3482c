"""Image files as people have them are read as a person sees them, or refused by name."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.features.picture import Unreadable, read

STORED = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""EXIF orientation -> the transposition of PIL that stores an upright picture so that the tag puts it upright again."""


def scene() -> Image.Image:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24], pixels[:, 24:], pixels[:8, :8] = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels)


def gray() -> np.ndarray:
    return np.asarray(scene().convert("L"))


def seen(path: Path) -> np.ndarray:
    picture = read(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("name", ["plain.png", "UPPER.PNG", "später é 画.png", "a, b.webp", "x.tiff", "x.bmp", "x.gif"])
def test_names_and_lossless_formats_change_nothing(tmp_path, name):
    scene().save(tmp_path / name, lossless=True)
    assert np.array_equal(seen(tmp_path / name), np.asarray(scene()))


@pytest.mark.parametrize(("tag", "way"), STORED.items())
def test_pictures_are_put_upright(tmp_path, tag, way):
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = scene() if way is None else scene().transpose(Image.Transpose(way))
    stored.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(seen(tmp_path / "x.png"), np.asarray(scene()))


def test_what_is_transparent_is_seen_over_white(tmp_path):
    veil = np.array(scene().convert("RGBA"))
    veil[:8, :8] = (0, 255, 0, 0)
    Image.fromarray(veil).save(tmp_path / "x.png")
    assert np.array_equal(seen(tmp_path / "x.png"), np.asarray(scene()))
    Image.fromarray(np.array([[[0, 0]], [[0, 255]]], np.uint8)).save(tmp_path / "la.png")
    assert seen(tmp_path / "la.png").tolist() == [[[255] * 3], [[0] * 3]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 255, 0, 9, 9, 9])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png", transparency=0)
    assert seen(tmp_path / "p.png").tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_are_scaled(tmp_path, ending):
    Image.fromarray(gray().astype(np.uint16) * 257).save(tmp_path / f"x.{ending}")
    assert np.array_equal(seen(tmp_path / f"x.{ending}"), np.repeat(gray()[..., None], 3, 2))


def test_palettes_gray_bits_and_cmyk_are_converted(tmp_path):
    scene().quantize(8).save(tmp_path / "palette.png")
    assert np.array_equal(seen(tmp_path / "palette.png"), np.asarray(scene()))
    Image.fromarray(gray()).save(tmp_path / "gray.png")
    assert np.array_equal(seen(tmp_path / "gray.png")[..., 1], gray())
    Image.new("1", (3, 2), 1).save(tmp_path / "bits.png")
    assert seen(tmp_path / "bits.png").min() == 255
    scene().convert("CMYK").save(tmp_path / "cmyk.tiff")
    assert np.array_equal(seen(tmp_path / "cmyk.tiff"), np.asarray(scene()))


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_an_animation_is_its_first_frame(tmp_path, ending):
    more = {"default_image": False} if ending == "png" else {"lossless": True}
    scene().save(tmp_path / f"x.{ending}", save_all=True, append_images=[Image.new("RGB", (48, 32), "green")], **more)
    assert np.array_equal(seen(tmp_path / f"x.{ending}"), np.asarray(scene()))


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def truncated() -> bytes:
    import io

    whole = io.BytesIO()
    scene().resize((480, 320)).save(whole, "jpeg", quality=95)
    return whole.getvalue()[: len(whole.getvalue()) // 2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"not an image\n", "is no image of a kind that is read"),
        (bomb(60_000), "decompression bomb"),
        (bomb(0), "is damaged|is no image"),
        (bomb(40), "is damaged"),
        (truncated(), "is damaged .image file is truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image of a kind"),
    ],
    ids=["empty", "words", "bomb", "zero_size", "short", "truncated", "a_program"],
)
def test_what_is_no_picture_is_refused(tmp_path, content, sentence):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=sentence):
        read(path)
    if content:
        with pytest.raises(Unreadable, match=sentence):
            read(content)


def test_pipes_folders_and_nothing_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "."):
        with pytest.raises(Unreadable, match="no file but a folder, a pipe or a device"):
            read(tmp_path / name)
    with pytest.raises(Unreadable, match="is not there"):
        read(tmp_path / "none.png")
    with pytest.raises(Unreadable, match="no file but"):
        read(Path("/dev/zero"))


def test_numbers_without_a_known_white_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "f.tiff")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "i.tiff")
    for name in ("f.tiff", "i.tiff"):
        with pytest.raises(Unreadable, match="whose white is not known"):
            read(tmp_path / name)
