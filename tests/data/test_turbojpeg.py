from __future__ import annotations

import random

import numpy as np
import pytest
from chipperf.data import turbojpeg
from chipperf.data.decode import decode_rgb
from chipperf.data.turbojpeg import LIBRARY_VARIABLE, Box, TurboJpegError, load_turbojpeg
from chipperf.errors import ConfigError


def boxes(height, width, count):
    rng = random.Random(0)
    yield Box(0, 0, height, width)
    yield Box(height - 1, width - 1, 1, 1)
    for _ in range(count):
        top, left = rng.randrange(height), rng.randrange(width)
        yield Box(top, left, rng.randint(1, height - top), rng.randint(1, width - left))


@pytest.fixture
def fresh_library(monkeypatch):
    load_turbojpeg.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    load_turbojpeg.cache_clear()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_region_has_exactly_the_pixels_of_the_whole_image(region_decoder, photo, encode, subsampling, progressive):
    data = encode(photo, subsampling=subsampling, progressive=progressive)
    whole = decode_rgb(data, "image")
    for box in boxes(*whole.shape[:2], count=150):
        region = region_decoder.decode_region(data, box)
        expected = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        np.testing.assert_array_equal(region, expected, err_msg=str(box))


def test_region_of_a_grayscale_image_is_rgb(region_decoder, photo, encode):
    data = encode(photo.convert("L"))
    region = region_decoder.decode_region(data, Box(3, 5, 70, 80))
    np.testing.assert_array_equal(region, decode_rgb(data, "image")[3:73, 5:85])


def test_one_decoder_takes_images_of_different_sizes(region_decoder, photo, encode):
    for size in ((163, 117), (20, 30), (163, 117)):
        data = encode(photo.resize(size))
        assert region_decoder.read_size(data) == (size[1], size[0])
        region = region_decoder.decode_region(data, Box(4, 9, 10, 11))
        np.testing.assert_array_equal(region, decode_rgb(data, "image")[4:14, 9:20])


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff\xd8junk", lambda data: b""]
)
def test_damaged_data_raise(region_decoder, photo, encode, damage):
    with pytest.raises(TurboJpegError, match=r"\w"):
        region_decoder.decode_region(damage(encode(photo)), Box(0, 0, 117, 163))


def test_a_region_outside_the_image_raises(region_decoder, photo, encode):
    with pytest.raises(TurboJpegError, match="exceeds"):
        region_decoder.decode_region(encode(photo), Box(100, 0, 30, 10))


def test_library_named_by_the_environment_must_be_usable(fresh_library, tmp_path):
    fresh_library.setenv(LIBRARY_VARIABLE, str(tmp_path / "missing.so"))
    with pytest.raises(ConfigError, match=r"PERF_LIBTURBOJPEG=.*missing\.so"):
        load_turbojpeg()


def test_region_decoding_can_be_switched_off(fresh_library):
    fresh_library.setenv(LIBRARY_VARIABLE, "off")
    assert load_turbojpeg() is None


@pytest.mark.parametrize("found", [None, "libc.so.6"])
def test_system_library_that_is_missing_or_too_old_is_not_used(fresh_library, found):
    fresh_library.delenv(LIBRARY_VARIABLE, raising=False)
    fresh_library.setattr(turbojpeg.ctypes.util, "find_library", lambda name: found)
    assert load_turbojpeg() is None
