"""Training on clips against the plain way, and conv_lstm against the usual loop.

    python -m benchmarks.clips

`clips`: a convolutional stem for each grey 60×80 frame and an LSTM over time, trained with Adam on 128 synthetic clips
of 41 to 125 frames, half of them from 58 to 77, as in a set of recorded actions; batches of 16. The plain way is the
same network of torch.nn modules, with a DataLoader that pads each batch to its longest clip. `conv_lstm`: forward and
backward pass of one layer over maps, against a loop that concatenates input and state, convolves them with one Conv2d
a step and splits the gates; on clips of equal length, and on half of the clips above, which the loop pads. Frames a
second, those of the padding not counted.

Each contender is a process of its own. They take turns; the first round is not counted, and ratios are medians of the
ratios within a round. Both keep freed memory. Writes benchmarks/results/clips.md.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.account import commit, machine
from benchmarks.contender import Contender
from recursight.models.assembly import assemble
from recursight.models.clips import ClipNetwork
from recursight.models.layers.conv_lstm import ConvLSTM
from recursight.params import Candidate
from recursight.tasks.classification import Classification
from recursight.training.batches import Batches
from recursight.training.loop import fit
from recursight.training.optimizers import build_optimizer

CLIPS, BATCH, CLASSES, HEIGHT, WIDTH, CHANNELS, HIDDEN = 128, 16, 27, 60, 80, (16, 32, 32), 128
MAPS = {
    "conv_lstm 16×16, 16 → 32": (8, 20, 16, 16, 16, 32),
    "conv_lstm 16×16, 64 → 64": (8, 20, 16, 16, 64, 64),
    "conv_lstm 32×32, 1 → 64": (8, 20, 32, 32, 1, 64),
}
"""Batch, steps, height, width, features and hidden."""
ON_CLIPS = "conv_lstm 15×20, 32 → 32, 41 to 125 frames"
TASK = Classification()
Round = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--contender", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(*arguments.contender)
        return
    load = os.getloadavg()[0]
    rows = [row(case, arguments.rounds, arguments.threads) for case in ("clips", *MAPS, ON_CLIPS)]
    target = Path(__file__).parent / "results" / "clips.md"
    target.write_text(page(rows, arguments.threads, load), encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


def row(case: str, rounds: int, threads: int) -> str:
    command = [sys.executable, "-m", "benchmarks.clips", "--contender", case]
    environment = dict.fromkeys(("ours", "torch"), threads)
    contenders = [Contender.start(name, [*command, name], count) for name, count in environment.items()]
    found = [[contender.ask()[0] for contender in contenders] for _ in range(rounds + 1)][1:]
    for contender in contenders:
        contender.process.communicate()  # without another line to read it ends
    own, other = (statistics.median(rates) for rates in zip(*found, strict=True))
    ratios = [one / two for one, two in found]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"| {case} | {own:,.0f} | {other:,.0f} | {statistics.median(ratios):.2f} | {spread} |"


def contend(case: str, name: str) -> None:
    makers: dict[str, Callable[[], Round]] = {"ours": our_clips, "torch": plain_clips}
    if case in MAPS:
        makers = {"ours": lambda: our_maps(case), "torch": lambda: looped_maps(case)}
    round_ = makers[name]()
    print(float("nan"), flush=True)  # where others print their loss before any training
    for _ in sys.stdin:
        print(round_(), flush=True)


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of all clips, the clips' lengths and classes."""
    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(np.log(67), 0.21, CLIPS)), 41, 125).astype(np.int64)
    frames = generator.integers(0, 256, (lengths.sum(), HEIGHT, WIDTH, 1), np.uint8)
    return frames, lengths, generator.integers(0, CLASSES, CLIPS)


def network() -> ClipNetwork:
    candidate = Candidate(
        stem={"conv": {"channels": list(CHANNELS)}},
        scan="whole",
        layer="none",
        over_time={"layer": "lstm", "hidden": HIDDEN, "readout": "last"},
    )
    made = assemble(candidate.architecture, input_shape=[HEIGHT, WIDTH, 1], outputs=CLASSES, mean=[0.5], std=[0.29])
    assert isinstance(made, ClipNetwork)
    return made


def our_clips() -> Round:
    """Frames a second through the loop of `recursight train`."""
    frames, lengths, labels = draw()
    first = np.cumsum(lengths) - lengths
    settings = {"batch_size": BATCH, "device": torch.device("cpu"), "memory_fraction": 0.5}
    model = network()
    epochs = fit(
        model,
        Batches(frames, first, lengths, labels, **settings),
        Batches(frames, first[:1], lengths[:1], labels[:1], **settings),
        optimizer=build_optimizer("adam", model.parameters(), learning_rate=1e-3, weight_decay=0, momentum=0),
        learning_rate=lambda step: 1e-3,
        augment=lambda batch, generator: batch,
        clip_norm=0,
        loss=TASK.loss,
        validation_loss=TASK.loss,
        curves=lambda outputs, batch: {},
        seed=0,
        epochs=range(1, 1_000_000),
    )
    return lambda: next(epochs).images_per_second


class Plain(nn.Module):
    """The same network as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        features, height, width = 1, HEIGHT, WIDTH
        for out in CHANNELS:
            blocks += [nn.Conv2d(features, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            blocks.append(nn.MaxPool2d(2))
            features, height, width = out, height // 2, width // 2
        self.stem = nn.Sequential(*blocks)
        self.lstm = nn.LSTM(features * height * width, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Padded clips (B, T, 1, H, W) to logits."""
        vectors = self.stem(clips.flatten(0, 1)).flatten(1).unflatten(0, clips.shape[:2])
        states, _ = self.lstm(vectors)
        logits: Tensor = self.head(states[torch.arange(len(clips)), lengths - 1])
        return logits


def plain_clips() -> Round:
    """Frames a second, those of the padding not counted, with the loop of every tutorial."""
    frames, lengths, labels = draw()
    clips = np.split(frames, np.cumsum(lengths)[:-1])

    def collate(chosen: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        floats = [((torch.from_numpy(clips[one]).float() / 255 - 0.5) / 0.29).permute(0, 3, 1, 2) for one in chosen]
        padded = nn.utils.rnn.pad_sequence(floats, batch_first=True)
        return padded, torch.from_numpy(lengths[chosen]), torch.from_numpy(labels[chosen])

    loader = DataLoader(range(CLIPS), BATCH, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def round_() -> float:
        started = time.perf_counter()
        for padded, counts, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(padded, counts), targets)
            torch.autograd.backward(loss)
            optimizer.step()
        return float(lengths.sum() / (time.perf_counter() - started))

    return round_


def our_maps(case: str) -> Round:
    *_, features, hidden = shape_of(case)
    layer = ConvLSTM(features, hidden)
    return rate(case, lambda inputs, lengths: layer(inputs, None, lengths)[0], in_order=True)


def looped_maps(case: str) -> Round:
    *_, features, hidden = shape_of(case)
    convolution = nn.Conv2d(features + hidden, 4 * hidden, 3, padding=1)

    def forward(inputs: Tensor, lengths: Tensor) -> Tensor:
        steps = inputs.permute(0, 1, 4, 2, 3).contiguous()
        h = c = steps.new_zeros(len(steps), hidden, *steps.shape[3:])
        outputs = []
        for step in range(steps.shape[1]):
            gates = convolution(torch.cat([steps[:, step], h], dim=1))
            i, f, o, g = gates.split(hidden, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)

    return rate(case, forward, in_order=False)


def shape_of(case: str) -> tuple[int, ...]:
    return MAPS.get(case, (BATCH, 0, 15, 20, 32, 32))


def rate(case: str, forward: Callable[[Tensor, Tensor], Tensor], *, in_order: bool) -> Round:
    """Frames a second of forward and backward pass; batches of similar length if `in_order`, as in our training."""
    batch, steps, *size, _ = shape_of(case)
    lengths = torch.from_numpy(draw()[1])[: CLIPS // 2] if case == ON_CLIPS else torch.full((4 * batch,), steps)
    batches = (lengths.sort()[0] if in_order else lengths).split(batch)
    inputs = [torch.randn(batch, int(some.max()), *size, requires_grad=True) for some in batches]

    def round_() -> float:
        started = time.perf_counter()
        for some, frames in zip(batches, inputs, strict=True):
            torch.autograd.backward(forward(frames, some).sum())
        return float(lengths.sum() / (time.perf_counter() - started))

    return round_


def page(rows: list[str], threads: int, load: float) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].partition(" Writes")[0]
    head = [
        "# Clips",
        "",
        *about.splitlines(),
        "",
        f"{machine()}, torch {torch.__version__}, {threads} threads, load {load:.1f} at the start, commit {commit()}, "
        f"{datetime.now(UTC):%Y-%m-%d}: `python -m benchmarks.clips`",
        "",
        "| case | ours, frames/s | plain, frames/s | ratio | lowest to highest ratio |",
        "|---|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    main()
