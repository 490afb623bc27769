from __future__ import annotations

import io

import numpy as np
import pytest
from chipperf.data import decode
from chipperf.data.decode import decode_region, decode_rgb, decoder_name, read_size
from chipperf.data.turbojpeg import Box
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


def test_decoder_in_force_is_named(monkeypatch):
    monkeypatch.setattr(decode, "load_turbojpeg", lambda: None)
    assert decoder_name().startswith("simplejpeg ")
    monkeypatch.setattr(decode, "load_turbojpeg", lambda: object())
    assert decoder_name() == "libjpeg-turbo 3 region"


def test_region_without_libturbojpeg_is_cut_from_the_whole(monkeypatch, photo, encode):
    monkeypatch.setattr(decode, "load_turbojpeg", lambda: None)
    data = encode(photo)
    region = decode_region(data, Box(top=5, left=7, height=20, width=30), "image")
    np.testing.assert_array_equal(region, decode_rgb(data, "image")[5:25, 7:37])
