"""The convolution family: what is asked of every case, over its table."""

from tests.generic import *  # noqa: F403

FAMILY = "convolution"
