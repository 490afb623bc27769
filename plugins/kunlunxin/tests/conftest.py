"""Fixtures of the Kunlunxin tests."""

from shared_fixtures import fp32_is_left_exact as fp32_is_left_exact
from shared_fixtures import image_folder as image_folder
from shared_fixtures import machine as machine
from shared_fixtures import perf as perf
