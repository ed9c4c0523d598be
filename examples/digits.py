"""Handwritten digits for the examples: scikit-learn's bundled set, or MNIST's idx files from a folder."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

SIDE = 28


class DataError(Exception):
    """Wrong or missing data; the message is one line that names the file and what is wrong with it."""


class Digits(NamedTuple):
    """Images [N, 1, 28, 28], float32, scaled for training; labels [N], int64."""

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def read_idx(path: Path) -> np.ndarray:
    """Reads one idx file of unsigned bytes, gzipped or not: a magic number, the sizes, then the data."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions.
    if len(content) < 4 or content[:2] != b"\0\0" or not 1 <= content[3] <= 4:
        raise DataError(f"{path}: not an idx file (it starts with {content[:4].hex(' ') or 'nothing'})")
    kind, dimensions = content[2], content[3]
    if kind != 8:
        raise DataError(f"{path}: expected unsigned bytes (type 0x08), got type 0x{kind:02x}")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: truncated within its header ({len(content)} of {header} bytes)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    size = math.prod(shape)
    if len(content) - header != size:
        what = "truncated" if len(content) - header < size else "too long"
        raise DataError(f"{path}: {what}: {len(content) - header} bytes of data, but its header {shape} says {size}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load_mnist(folder: str | Path) -> Digits:
    """Reads MNIST from `folder`, or from MNIST/raw below it, where torchvision puts it; images from -1 to 1."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return Digits("MNIST", *_read_part(folder, "train"), *_read_part(folder, "t10k"))


def load_digits(held_out: float = 0.2, seed: int = 0) -> Digits:
    """scikit-learn's 1797 digits of 8x8, standardized and resized to 28x28; a fifth is held out for testing."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError("the default data needs scikit-learn (pip install scikit-learn), or give --data DIR") from error
    bundle = datasets.load_digits()
    images = torch.from_numpy(bundle.images).float()[:, None]
    images = (images - images.mean()) / images.std()
    images = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(bundle.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order.tensor_split([round(held_out * len(order))])
    return Digits("scikit-learn's digits", images[train], labels[train], images[test], labels[test])


def _read_part(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    image_path = _find(folder, f"{part}-images-idx3-ubyte")
    label_path = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{image_path}: expected images of {SIDE}x{SIDE}, got the shape {images.shape}")
    if labels.ndim != 1:
        raise DataError(f"{label_path}: expected a list of labels, got the shape {labels.shape}")
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {len(images)} images in {image_path.name}, {len(labels)} labels in {label_path.name}"
        )
    if len(labels) == 0:
        raise DataError(f"{image_path}: no images")
    if labels.max() > 9:
        raise DataError(f"{label_path}: labels must be 0 to 9, found {labels.max()}")
    return torch.tensor(images)[:, None].float() / 127.5 - 1, torch.tensor(labels).long()


def _find(folder: Path, name: str) -> Path:
    """The file `name`, gzipped or not, with a dot for its second dash as some mirrors have it, or in MNIST/raw."""
    places = [folder, folder / "MNIST" / "raw", folder / "raw"]
    for place in places:
        for spelling in (name, name.replace("-idx", ".idx")):
            for suffix in ("", ".gz"):
                path = place / (spelling + suffix)
                if path.is_file():
                    return path
    raise DataError(f"{folder}: no {name} or {name}.gz there, nor in MNIST/raw or raw below it")
