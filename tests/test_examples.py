"""The demo end to end on a handful of images, and its reader of idx files against files that are wrong."""

from __future__ import annotations

import gzip
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorops import _fallback
from torch.utils._python_dispatch import TorchDispatchMode

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import digits  # noqa: E402
import train_cnn  # noqa: E402


def idx(array: np.ndarray) -> bytes:
    """The content of an idx file of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, suffix: str = "", train: int = 120, test: int = 20) -> Path:
    """A folder in MNIST's layout: class k is a bright row k on noise, so that a few steps learn something."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 50, (count, 28, 28))
        images[np.arange(count), 2 * labels + 4] = 250
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array)
            (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("layout", ["", "MNIST/raw"])
def test_mnist_layouts(tmp_path, suffix, layout):
    write_mnist(tmp_path / layout, suffix=suffix)
    data = digits.load_mnist(tmp_path)
    assert data.train_images.shape == (120, 1, 28, 28)
    assert data.test_labels.tolist() == [i % 10 for i in range(20)]
    assert data.train_images.min() == -1
    assert data.train_images.max() == pytest.approx(250 / 127.5 - 1)


def test_idx_round_trip(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "f").write_bytes(idx(array))
    assert (digits.read_idx(tmp_path / "f") == array).all()


GOOD = idx(np.zeros((3, 28, 28)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"", "not an idx file", id="empty"),
        pytest.param(b"\x89PNG" + GOOD, "not an idx file", id="wrong magic"),
        pytest.param(b"\0\0\x0d\x01" + GOOD[4:], "type 0x0d", id="floats"),
        pytest.param(GOOD[:10], "truncated within its header", id="truncated header"),
        pytest.param(GOOD[:-1], "truncated: 2351 bytes", id="truncated data"),
        pytest.param(GOOD + b"\0", "too long", id="too long"),
        pytest.param(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated", id="absurd header"),
        pytest.param(gzip.compress(GOOD)[:-20], "cannot be read", id="truncated gzip"),
        pytest.param(gzip.compress(GOOD)[:40] + b"junk" * 20, "cannot be read", id="corrupt gzip"),
    ],
)
def test_bad_idx_files(tmp_path, content, complaint):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(digits.DataError, match=complaint) as caught:
        digits.read_idx(tmp_path / "f")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("train-labels-idx1-ubyte", np.zeros(119), "120 images .* 119 labels"),
        ("t10k-labels-idx1-ubyte", np.full(20, 10), "labels must be 0 to 9, found 10"),
        ("t10k-labels-idx1-ubyte", np.zeros((20, 1)), "expected a list of labels"),
        ("train-images-idx3-ubyte", np.zeros((120, 28, 27)), "expected images of 28x28"),
    ],
)
def test_inconsistent_mnist(tmp_path, name, array, complaint):
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(digits.DataError, match=complaint):
        digits.load_mnist(tmp_path)


def test_empty_mnist(tmp_path):
    write_mnist(tmp_path, train=0)
    with pytest.raises(digits.DataError, match="no images"):
        digits.load_mnist(tmp_path)


@pytest.mark.parametrize("folder", ["", "absent"])
def test_missing_data_gives_one_line(tmp_path, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        train_cnn.main(["--data", str(tmp_path / folder)])
    message = str(caught.value)
    assert message.startswith("train_cnn: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--device", "meta"], "--device must be cpu, cuda or cuda:N"),
        (["--device", "cuda:999"], "--device cuda:999"),
        (["--plot", "absent/folder/x.png"], "no such folder"),
        (["--plot", "."], "a folder, not a file"),
        (["--tensorboard", __file__ + "/runs"], "Not a directory"),
    ],
)
def test_bad_arguments(arguments, complaint, capsys):
    with pytest.raises(SystemExit):
        train_cnn.main(arguments)
    assert complaint in capsys.readouterr().err


def test_demo(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboard")
    # The process's counter; a test before this one may have counted.
    monkeypatch.setattr(_fallback, "_counts", Counter())
    folder = write_mnist(tmp_path / "data", train=300)
    picture, logs = tmp_path / "curves.png", tmp_path / "logs"
    ours, reference = train_cnn.main(
        ["--data", str(folder), "--epochs", "3", "--plot", str(picture), "--tensorboard", str(logs)]
    )
    assert type(ours.model[0]).__module__.startswith("tensorops.")
    assert len(ours.losses) == len(reference.losses) == 18
    assert ours.losses[-1] < ours.losses[0] / 2
    # The same weights and batches: the first losses agree to rounding, and no step drifts away.
    assert ours.losses[0] == pytest.approx(reference.losses[0], rel=1e-5)
    assert ours.losses == pytest.approx(reference.losses, rel=1e-2)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list(logs.glob("*/events*"))) == 2
    printed = capsys.readouterr().out
    assert "held-out accuracy" in printed
    assert "instead of ours" not in printed


class Recorder(TorchDispatchMode):
    """Names every op that reaches a kernel, forward and backward."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name().partition(".")[0])
        return function(*args, **(kwargs or {}))


def test_the_demo_trains_on_our_kernels():
    import tensorops

    model, criterion = train_cnn.make_model(tensorops.nn), tensorops.nn.CrossEntropyLoss()
    images, labels = torch.randn(4, 1, 28, 28), torch.arange(4)
    with tensorops.strict(), Recorder() as recorder:
        criterion(model(images), labels).backward()
    # Views and the sums of gradients are autograd's own; arithmetic must be ours.
    bookkeeping = {
        "view",
        "_unsafe_view",
        "detach",
        "ones",
        "ones_like",
        "t",
        "transpose",
        "expand",
        "alias",
        "add_",
        "as_strided",
    }
    theirs = {name for name in recorder.names if not name.startswith("tensorops::")}
    assert theirs <= {f"aten::{name}" for name in bookkeeping}
    ours = " ".join(recorder.names - theirs)
    assert all(stem in ours for stem in ("conv", "relu", "max_pool2d", "linear", "cross_entropy"))


def test_bundled_digits():
    pytest.importorskip("sklearn")
    data = digits.load_digits()
    assert data.train_images.shape == (1438, 1, 28, 28)
    assert data.test_images.shape == (359, 1, 28, 28)
    assert set(data.test_labels.tolist()) == set(range(10))
