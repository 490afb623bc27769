from __future__ import annotations

import io
import random
import re

import numpy as np
import pytest
import simplejpeg
from chipperf.data import decode
from chipperf.data.decode import Box, decode_region, decode_rgb, decoder_name, read_size
from chipperf.errors import DataError
from PIL import Image


def as_pillow_sees(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGB", "JPEG", {"subsampling": "4:2:0"}),
        ("RGB", "JPEG", {"subsampling": "4:4:4", "progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("L", "PNG", {}),
        ("1", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ],
)
def test_every_kind_of_file_has_the_pixels_of_the_reference_loader(photo, encode, mode, file_format, options):
    data = encode(photo.convert(mode), file_format, **options)
    pixels = decode_rgb(data, "image")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, as_pillow_sees(data))
    assert read_size(data, "image") == (117, 163)
    box = Box(top=11, left=17, height=40, width=60)
    np.testing.assert_array_equal(decode_region(data, box, "image"), pixels[11:51, 17:77])


def test_sixteen_bit_grayscale_keeps_its_high_byte(encode):
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = decode_rgb(encode(Image.fromarray(values), "PNG"), "image.png")
    np.testing.assert_array_equal(pixels, np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_palette_with_transparent_entries_decodes_without_a_warning(photo, encode):
    palette = photo.convert("P")
    data = encode(palette, "PNG", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(decode_rgb(data, "image"), np.asarray(palette.convert("RGB")))


def test_adobe_ycck_is_decoded(photo, encode):
    data = bytearray(encode(photo.convert("CMYK"), "JPEG"))
    transform = data.index(b"Adobe") + 11
    data[transform] = 2
    np.testing.assert_array_equal(decode_rgb(bytes(data), "image"), as_pillow_sees(bytes(data)))


def test_bytes_after_the_end_of_a_jpeg_do_not_matter(photo, encode):
    data = encode(photo)
    np.testing.assert_array_equal(decode_rgb(data + b"\0" * 100, "image"), decode_rgb(data, "image"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_truncated_file_is_an_error_that_names_it(photo, encode, file_format):
    data = encode(photo, file_format)
    with pytest.raises(DataError, match=r"n0123/broken\.JPEG: cannot be decoded"):
        decode_rgb(data[: len(data) // 2], "n0123/broken.JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not a known image format"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "cannot be decoded"),
    ],
)
@pytest.mark.parametrize(
    "function", [decode_rgb, read_size, lambda data, name: decode_region(data, Box(0, 0, 1, 1), name)]
)
def test_what_is_no_image_is_an_error_that_names_it(data, reason, function):
    with pytest.raises(DataError, match=f"class/x.jpg: .*{reason}|class/x.jpg: {reason}") as caught:
        function(data, "class/x.jpg")
    assert caught.value.hint is not None


def test_the_two_ways_to_decode_have_names():
    assert decoder_name() == f"simplejpeg {simplejpeg.__version__} whole"
    assert decoder_name(region=True) == f"simplejpeg {simplejpeg.__version__} region"


def boxes(height, width, count, seed=0):
    rng = random.Random(seed)
    yield Box(0, 0, height, width)
    yield Box(height - 1, width - 1, 1, 1)
    for _ in range(count):
        top, left = rng.randrange(height), rng.randrange(width)
        yield Box(top, left, rng.randint(1, height - top), rng.randint(1, width - left))


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:1:1"},
        {"subsampling": "4:2:0", "progressive": True},
        {"subsampling": "4:2:0", "restart_marker_blocks": 3},
        {"subsampling": "4:2:0", "exif": b"Exif\0\0" + b"\xff\xc0\x00\x11\x08\x00\x75\x00\xa3" * 2},
    ],
)
def test_region_has_exactly_the_pixels_of_the_whole_image(photo, encode, options):
    data = encode(photo, **options)
    whole = decode_rgb(data, "image")
    for box in boxes(*whole.shape[:2], count=100):
        expected = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        np.testing.assert_array_equal(decode_region(data, box, "image"), expected, err_msg=str(box))


@pytest.mark.parametrize("rows", range(1, 116))
def test_rows_below_a_region_are_not_decoded(photo, encode, rows, monkeypatch):
    data = encode(photo)
    whole = decode_rgb(data, "image")
    heights = []
    decode_jpeg = simplejpeg.decode_jpeg

    def noting(data, **arguments):
        heights.append(simplejpeg.decode_jpeg_header(data)[0])
        return decode_jpeg(data, **arguments)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noting)
    region = decode_region(data, Box(0, 0, rows, 163), "image")
    np.testing.assert_array_equal(region, whole[:rows])
    assert heights == [min(rows + 2, 117)]


def damaged(data, rng):
    """Return a file in which bytes were changed, lost or repeated, or which ends early but with the mark of the end."""
    changed = bytearray(data)
    place, length = rng.randrange(300, len(data) - 300), rng.randrange(1, 250)
    kind = rng.randrange(4)
    if kind == 0:
        changed[rng.randrange(2, len(data) - 2)] = rng.randrange(256)
    elif kind == 1:
        del changed[place : place + length]
    elif kind == 2:
        changed[place:place] = changed[place - length : place]
    else:
        changed[place:-2] = b""
    return bytes(changed)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restart", [0, 3])
def test_region_of_a_damaged_file_is_what_the_whole_has_there_or_the_same_error(photo, encode, progressive, restart):
    rng = random.Random(0)
    sound = encode(photo, progressive=progressive, restart_marker_blocks=restart)
    regions = 0
    for box in boxes(117, 163, count=300):
        data = damaged(sound, rng)
        try:
            if read_size(data, "image") != (117, 163):
                continue
            whole = decode_rgb(data, "image")
        except DataError:
            with pytest.raises(DataError):
                decode_region(data, box, "image")
            continue
        expected = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        np.testing.assert_array_equal(decode_region(data, box, "image"), expected, err_msg=str(box))
        regions += 1
    assert regions > 100


def test_region_of_a_truncated_file_is_an_error_though_it_lies_above_the_end(photo, encode):
    data = encode(photo)
    with pytest.raises(DataError, match="x.jpg: cannot be decoded"):
        decode_region(data[: len(data) // 2], Box(0, 0, 8, 8), "x.jpg")


def test_decoder_that_warns_in_other_words_decodes_the_whole(photo, encode, monkeypatch):
    monkeypatch.setattr(decode, "_ROWS_LEFT", re.compile("another wording"))
    data = encode(photo)
    np.testing.assert_array_equal(decode_region(data, Box(0, 0, 8, 8), "image"), decode_rgb(data, "image")[:8, :8])
