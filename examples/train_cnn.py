"""Trains a small CNN on handwritten digits twice, from the same weights: with tensorops.nn and with torch.nn.

    python examples/train_cnn.py                          # scikit-learn's digits
    python examples/train_cnn.py --data DIR               # MNIST's idx files, gzipped or not
    python examples/train_cnn.py --tensorboard runs       # then: tensorboard --logdir runs

It prints the held-out accuracy and the seconds per epoch of both, and plots both loss curves: they lie on each other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from digits import SIDE, DataError, Digits, load_digits, load_mnist

BATCH = 50
LEARNING_RATE = 1e-3


class Progress:
    """A tqdm bar on a terminal, where tqdm is installed; nothing otherwise."""

    def __init__(self, total: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self.bar = None
        else:
            self.bar = tqdm(total=total, unit="step", dynamic_ncols=True, disable=None)

    def step(self, what: str, loss: torch.Tensor) -> None:
        """Advances by one step; the loss is read, which waits for the device, only when the bar is redrawn."""
        if self.bar is None:
            return
        self.bar.set_description(what, refresh=False)
        if self.bar.update(1):
            self.bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()


def make_model(nn) -> torch.nn.Sequential:
    """The network; `nn` is torch.nn or tensorops.nn."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


class Run:
    """One library's training run: its model, its optimizer, and what was measured."""

    def __init__(self, name: str, nn, weights: dict[str, torch.Tensor], device: torch.device) -> None:
        self.name = name
        self.model = make_model(nn).to(device)
        self.model.load_state_dict(weights)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.accuracies: list[float] = []

    def train_epoch(self, data: Digits, order: torch.Tensor, progress: Progress) -> None:
        """One pass over the training images in the given order."""
        epoch = len(self.seconds) + 1
        device = data.train_images.device
        losses = []
        self.model.train()
        synchronize(device)
        started = time.perf_counter()
        for batch in order.split(BATCH):
            loss = self.criterion(self.model(data.train_images[batch]), data.train_labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            progress.step(f"{self.name}, epoch {epoch}", losses[-1])
        synchronize(device)
        self.seconds.append(time.perf_counter() - started)
        self.losses += torch.stack(losses).tolist()

    @torch.no_grad()
    def test(self, data: Digits) -> None:
        """Accuracy on the held-out images."""
        self.model.eval()
        batches = zip(data.test_images.split(1000), data.test_labels.split(1000), strict=True)
        correct = sum(int((self.model(images).argmax(1) == labels).sum()) for images, labels in batches)
        self.accuracies.append(correct / len(data.test_labels))


def synchronize(device: torch.device) -> None:
    """Waits for the device, so that a clock read now has seen all the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train(libraries: dict[str, object], data: Digits, epochs: int, device: torch.device, seed: int) -> list[Run]:
    """Trains with each library from the same weights on the same batches.

    The runs take turns epoch by epoch, and the one that goes first changes, so that neither has the quieter machine.
    """
    torch.manual_seed(seed)
    weights = make_model(torch.nn).state_dict()
    runs = [Run(name, nn, weights, device) for name, nn in libraries.items()]
    data = Digits(data.name, *(tensor.to(device) for tensor in data[1:]))
    count = len(data.train_labels)
    shuffle = torch.Generator().manual_seed(seed)
    progress = Progress(len(runs) * epochs * -(-count // BATCH))
    for epoch in range(epochs):
        order = torch.randperm(count, generator=shuffle).to(device)
        for run in runs if epoch % 2 == 0 else reversed(runs):
            run.train_epoch(data, order, progress)
            run.test(data)
    progress.close()
    return runs


def plot(runs: list[Run], data: Digits, path: Path) -> None:
    """Both loss curves, and below them how far they are from each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ours, reference = runs
    figure, (top, bottom) = pyplot.subplots(
        2, 1, sharex=True, figsize=(8, 6), height_ratios=[3, 1], layout="constrained"
    )
    top.plot(reference.losses, color="tab:orange", linewidth=4, alpha=0.5, label=reference.name)
    top.plot(ours.losses, color="tab:blue", linewidth=1, label=ours.name)
    top.set_yscale("log")
    top.set_ylabel("training loss")
    top.set_title(f"{data.name}: the same network, weights and batches")
    top.legend()
    # A floor keeps equal losses on the logarithmic axis.
    difference = [max(abs(a - b), 1e-9) for a, b in zip(ours.losses, reference.losses, strict=True)]
    bottom.plot(difference, color="tab:gray", linewidth=1)
    bottom.set_yscale("log")
    bottom.set_ylabel("|difference|")
    bottom.set_xlabel(f"step (batches of {BATCH})")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def log_to_tensorboard(runs: list[Run], data: Digits, folder: Path) -> None:
    """Scalars and the graph, one TensorBoard run per library."""
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        with SummaryWriter(str(folder / run.name)) as writer:
            steps = len(run.losses) // len(run.seconds)
            for step, loss in enumerate(run.losses):
                writer.add_scalar("loss/train", loss, step)
            for epoch, (accuracy, seconds) in enumerate(zip(run.accuracies, run.seconds, strict=True), 1):
                writer.add_scalar("accuracy/held-out", accuracy, epoch * steps)
                writer.add_scalar("seconds per epoch", seconds, epoch * steps)
            device = next(run.model.parameters()).device
            writer.add_graph(run.model, data.test_images[:1].to(device))


def report(runs: list[Run]) -> None:
    """The table at the end."""
    print(f"\n{'':12}{'held-out accuracy':>20}{'seconds per epoch':>20}{'final loss':>14}")
    for run in runs:
        final = statistics.fmean(run.losses[-len(run.losses) // len(run.seconds) :])
        print(f"{run.name:12}{run.accuracies[-1]:>20.2%}{statistics.median(run.seconds):>20.2f}{final:>14.4f}")
    ours, reference = runs
    ratio = statistics.median(b / a for a, b in zip(ours.seconds, reference.seconds, strict=True))
    gap = statistics.fmean(abs(a - b) for a, b in zip(ours.losses, reference.losses, strict=True))
    print(f"\ntime: {1 / ratio:.2f} of {reference.name}'s; the loss curves differ by {gap:.1e} on average")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="DIR", help="MNIST's four idx files (default: scikit-learn's digits)")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default: 10, with --data 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, help="for weights and batches (default: 0)")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        default=Path(__file__).with_suffix(".png"),
        help="where the loss curves go (default: %(default)s)",
    )
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="log scalars and the graph there")
    options = parser.parse_args(argv)
    if options.epochs is None:
        options.epochs = 1 if options.data else 10
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    if options.device.partition(":")[0] not in ("cpu", "cuda"):
        parser.error(f"--device must be cpu, cuda or cuda:N, got {options.device}")
    try:
        options.device = torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device}: {str(error).splitlines()[0]}")
    if not options.plot.parent.is_dir():
        parser.error(f"--plot {options.plot}: no such folder")
    if options.plot.is_dir():
        parser.error(f"--plot {options.plot}: a folder, not a file")
    if options.tensorboard:
        try:
            options.tensorboard.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--tensorboard {options.tensorboard}: {error.strerror}")
    return options


def main(argv: list[str] | None = None) -> list[Run]:
    """Runs the demo."""
    options = parse(argv)
    try:
        data = load_mnist(options.data) if options.data else load_digits()
    except DataError as error:
        sys.exit(f"train_cnn: {error}")
    import tensorops

    print(
        f"{data.name}: {len(data.train_labels)} images of {SIDE}x{SIDE} to train on, {len(data.test_labels)} held out; "
        f"{options.device}, {torch.get_num_threads()} threads"
    )
    libraries = {"tensorops": tensorops.nn, "torch.nn": torch.nn}
    runs = train(libraries, data, options.epochs, options.device, options.seed)
    report(runs)
    if tensorops.fallbacks():
        print(f"ran on torch's ops instead of ours: {tensorops.fallbacks()}")
    plot(runs, data, options.plot)
    print(f"loss curves: {options.plot}")
    if options.tensorboard:
        log_to_tensorboard(runs, data, options.tensorboard)
        print(f"TensorBoard: tensorboard --logdir {options.tensorboard}")
    return runs


if __name__ == "__main__":
    main()
