"""Serving and batch scoring, measured: `python -m benchmarks.serving`.

Trains two small projects. The first one, of the embedded digits at 28×28 pixels, is served with `recursight serve`. Its
latency as stated by the evaluation is compared with the time that the server's model takes for single requests. Then
one PNG a request is sent, open-loop: each request leaves when it is due, whatever became of those before it, and its
time counts from when it was due; in the second measurement the champion changes half way.

The second project is of photographs: random crops of 224×224 pixels from scikit-learn's two sample images, as JPEG.
`recursight predict FOLDER` scores a folder of them, against the same model on arrays in memory.

Writes benchmarks/results/serving.md and serving.json.
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.account import commit, machine
from recursight.data.published import make_digits
from recursight.data.store import open_store
from recursight.files import read_json, write_json, write_text
from recursight.layout import Layout

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FOLDER = ROOT / ".recursight" / "benchmarks" / "serving"
SIDE = 28  # of the digits
PHOTOGRAPH = 224
CANDIDATES = ("conv_gru", "lstm")  # as in params.yaml: with convolutions, and without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60, help="of each load; 0 leaves the loads out")
    parser.add_argument("--images", type=int, default=3000, help="in the folder that is scored")
    parser.add_argument("--rounds", type=int, default=7, help="of the batch scoring")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"account": account()}
    digits = make_project(FOLDER / "digits", make_digits, [SIDE, SIDE], epochs=2)
    result["latency"] = [latency(digits, name) for name in CANDIDATES]
    loads = (False, True) if arguments.seconds else ()
    result["open_loop"] = [open_loop(digits, arguments.rate, arguments.seconds, change=change) for change in loads]
    result["closed_loop"] = [closed_loop(digits, batch) for batch in ((1, 64) if arguments.seconds else ())]
    photographs = make_project(FOLDER / "photographs", make_photographs, "keep", epochs=1)
    result["folder"] = [score(photographs, name, arguments.images, arguments.rounds) for name in CANDIDATES]
    result["account"]["load"] = f"{os.getloadavg()[0]:.1f} at the end"
    write_json(RESULTS / "serving.json", result)
    write_text(RESULTS / "serving.md", markdown(result))
    print(markdown(result))


def account() -> dict[str, str]:
    import torch

    return {
        "command": " ".join(["python -m benchmarks.serving", *sys.argv[1:]]),
        "commit": commit(),
        "machine": f"{machine()}; server and load generator share them",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


# Projects with two versions.


def make_project(folder: Path, make_data: Callable[[Path], Any], size: Any, epochs: int) -> Layout:
    """Version 1 is conv_gru, version 2 lstm; trained briefly, since only their speed counts."""
    from recursight.registry import register
    from recursight.stages import evaluate, prepare, train

    layout = Layout(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["prepare"]["size"] = size
    params["train"] |= {"epochs": epochs, "patience": 0}
    params["registry"]["minimums"] = dict.fromkeys(params["registry"]["minimums"], 0.0)
    params["serve"] |= {"poll_seconds": 1}
    params["candidates"] = {name: params["candidates"][name] for name in CANDIDATES}
    layout.params.write_text(yaml.safe_dump(params))
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    layout.data.mkdir()
    make_data(layout.data)
    prepare.run(layout)
    for name in CANDIDATES:
        train.run(layout, name, defer_tracking=True)
        evaluate.run(layout, name)
        write_json(layout.comparison / "comparison.json", {"winner": name, "winner_seed": 0, "ranking": []})
        register(layout)
    return layout


def make_photographs(folder: Path) -> None:
    """Two classes, fifty crops each."""
    for number, (name, picture) in enumerate(photographs(100)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{number}.jpg").write_bytes(picture)


def photographs(count: int) -> Iterator[tuple[str, bytes]]:
    """Name of the photograph, and a crop of it as JPEG, half of them mirrored; no two alike."""
    from sklearn.datasets import load_sample_image

    whole = [("china", load_sample_image("china.jpg")), ("flower", load_sample_image("flower.jpg"))]
    draw = np.random.default_rng(0)
    for number in range(count):
        name, image = whole[number % 2]
        top, left = (draw.integers(0, length - PHOTOGRAPH + 1) for length in image.shape[:2])
        crop = image[top : top + PHOTOGRAPH, left : left + PHOTOGRAPH, :]
        with io.BytesIO() as file:
            Image.fromarray(crop[:, :: draw.choice([-1, 1])]).save(file, "JPEG", quality=88)
            yield name, file.getvalue()


def set_champion(layout: Layout, version: int) -> None:
    from recursight.tracking import connect

    connect(layout).set_registered_model_alias("recursight", "champion", str(version))


# Serving.


@contextmanager
def served(layout: Layout, batch: int | None = None, version: int = 1) -> Iterator[str]:
    """Where `recursight serve` takes images."""
    set_champion(layout, version)
    if batch is not None:
        params = yaml.safe_load(layout.params.read_text())
        params["serve"]["batch_images"] = batch
        layout.params.write_text(yaml.safe_dump(params))
    command = [Path(sys.executable).parent / "recursight", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=layout.root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield next(word for word in process.stdout.readline().split() if word.startswith("http"))
    finally:
        process.terminate()
        if process.wait(timeout=60) != 0:
            raise SystemExit(f"the server ended with {process.returncode}")


def pictures(layout: Layout, count: int) -> Iterator[bytes]:
    """PNG files of digits, no two alike."""
    images = open_store(layout.store).frames[:, :, :, 0]
    noise = np.random.default_rng(0)
    for number in range(count):
        image = images[number % len(images)]
        with io.BytesIO() as file:
            Image.fromarray(image | noise.integers(0, 4, image.shape, dtype=np.uint8)).save(file, "PNG")
            yield file.getvalue()


def form(picture: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of multipart/form-data, and its headers."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="digit.png"\r\n\r\n'
    return head + picture + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def latency(layout: Layout, name: str, rounds: int = 5) -> dict[str, Any]:
    """The latency of the evaluation, the same measured anew, and the time in the server; the last two taking turns."""
    stated = read_json(layout.evaluation_of(name, 0) / "metrics.json")
    alone, served_ms = [], []
    for _ in range(rounds):  # the machine may be faster or slower than when it evaluated
        served_ms.append(served_latency(layout, name))
        alone.append(float(in_process(f"latency_alone({str(layout.root)!r})")))
    return {
        "model": name,
        "stated_ms": stated["latency_ms"],
        "stated_on": stated["latency_on"],
        "alone_ms": float(np.median(alone)),
        "served_ms": float(np.median(served_ms)),
        "ratio": float(np.median(np.divide(served_ms, alone))),
    }


def latency_alone(root: str) -> None:
    """As the evaluation measures it, of the registered program."""
    import torch

    from recursight.params import load
    from recursight.serving.champion import load_champion

    layout = Layout(Path(root))
    torch.set_num_threads(load(layout.params).serve.threads)
    print(load_champion(layout).latency_milliseconds(np.array(open_store(layout.store).frames[0])))


def in_process(call: str) -> str:
    """The last line that a function of this module prints in a process of its own."""
    code = f"from benchmarks.serving import *; {call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def served_latency(layout: Layout, name: str, requests: int = 200) -> float:
    """Milliseconds that the server's model takes for requests that come one by one."""
    seconds, total = [], 0.0
    with served(layout, version=CANDIDATES.index(name) + 1) as url:
        for picture in pictures(layout, requests):
            body, headers = form(picture)
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                answer.read()
            before, total = total, model_seconds(url)
            seconds.append(total - before)
            time.sleep(0.02)
    return 1000 * float(np.median(seconds[requests // 10 :]))


def model_seconds(url: str) -> float:
    """Time that the model of a server has taken so far."""
    with urllib.request.urlopen(url.replace("/predict", "/metrics")) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("recursight_model_seconds_sum")))


def open_loop(layout: Layout, rate: float, seconds: float, *, change: bool) -> dict[str, Any]:
    bodies = [form(picture) for picture in pictures(layout, 200)]
    with served(layout) as url:
        asyncio.run(send(url, bodies, rate, 2))  # not counted
        half_way = (lambda: set_champion(layout, 2)) if change else None
        answers = asyncio.run(send(url, bodies, rate, seconds, half_way))
    name = f"{rate:.0f} requests/s for {seconds:.0f} s" + ", the champion changes" * change
    return {"name": name, **summary(answers)}


Answer = tuple[float, int, int]  # milliseconds, status (0 for none), version


async def send(url: str, bodies: list[Any], rate: float, seconds: float, half_way: Any = None) -> list[Answer]:
    import aiohttp

    async def one(due: float, number: int) -> Answer:
        body, headers = bodies[number % len(bodies)]
        try:
            async with session.post(url, data=body, headers=headers) as answer:
                content = await answer.json()
                return 1000 * (time.perf_counter() - due), answer.status, content["version"]
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 1000 * (time.perf_counter() - due), 0, 0

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        started, count, tasks = time.perf_counter() + 0.1, round(rate * seconds), []
        for number in range(count):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due, number)))
            if half_way and number == count // 2:
                tasks.append(asyncio.create_task(asyncio.to_thread(half_way)))
        return [answer for answer in await asyncio.gather(*tasks) if answer is not None]


def summary(answers: list[Answer]) -> dict[str, Any]:
    times = np.array([milliseconds for milliseconds, _, _ in answers])
    figures = {f"p{level}_ms": round(float(np.percentile(times, level)), 2) for level in (50, 90, 99)}
    versions = Counter(version for _, _, version in answers)
    failures = sum(status != 200 for _, status, _ in answers)
    answered = {str(version): number for version, number in sorted(versions.items())}
    return {
        "requests": len(answers),
        "failures": failures,
        **figures,
        "highest_ms": round(float(times.max()), 2),
        "by_version": answered,
    }


def closed_loop(layout: Layout, batch: int, connections: int = 16, seconds: float = 10) -> dict[str, Any]:
    """As many requests as the server answers, some connections at once; with and without batches."""
    bodies = [form(picture) for picture in pictures(layout, 200)]

    async def drive(url: str) -> list[Answer]:
        import aiohttp

        async def caller(first: int) -> list[Answer]:
            answers: list[Answer] = []
            end, number = time.perf_counter() + seconds, first
            while (started := time.perf_counter()) < end:
                body, headers = bodies[number % len(bodies)]
                async with session.post(url, data=body, headers=headers) as answer:
                    version = (await answer.json())["version"]
                    answers.append((1000 * (time.perf_counter() - started), answer.status, version))
                number += connections
            return answers

        async with aiohttp.ClientSession() as session:
            return [answer for one in await asyncio.gather(*map(caller, range(connections))) for answer in one]

    with served(layout, batch) as url:
        asyncio.run(send(url, bodies, 50, 2))
        answers = asyncio.run(drive(url))
    found = summary(answers)
    return {
        "name": f"{connections} connections, batches of up to {batch}",
        "per_second": len(answers) / seconds,
        **found,
    }


# Batch scoring.


def score(layout: Layout, name: str, count: int, rounds: int) -> dict[str, Any]:
    """`recursight predict FOLDER` against its model alone, taking turns."""
    set_champion(layout, CANDIDATES.index(name) + 1)
    folder, out = layout.root / "pictures", layout.root / "predictions.parquet"
    if not folder.exists():
        for number, (_, picture) in enumerate(photographs(count)):
            path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
    command = [Path(sys.executable).parent / "recursight", "predict", folder, "--out", out, "--json"]
    alone: dict[str, list[float]] = {"one model, all threads": [], "one thread a processor": []}
    whole = []
    for _ in range(rounds):
        done = subprocess.run(command, cwd=layout.root, capture_output=True, text=True, check=True)
        whole.append(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
        for way, rate in model_alone(layout, count).items():
            alone[way].append(rate)
    medians = {way: float(np.median(rates)) for way, rates in alone.items()}
    shares = [rate / max(each) for rate, *each in zip(whole, *alone.values(), strict=True)]
    return {
        "model": name,
        "images": count,
        "command_per_second": float(np.median(whole)),
        "alone_per_second": medians,
        "share": float(np.median(shares)),
        "shares": [min(shares), max(shares)],
    }


def model_alone(layout: Layout, count: int) -> dict[str, float]:
    """Images a second of the loaded model on decoded arrays: on all threads together, or as the command asks."""
    found: dict[str, float] = json.loads(in_process(f"rates({str(layout.root)!r}, {count})"))
    return found


def rates(root: str, count: int) -> None:
    import torch

    from recursight.serving.champion import load_champion
    from recursight.serving.folder import batch_size

    layout = Layout(Path(root))
    model = load_champion(layout)
    images, size = np.array(open_store(layout.store).frames), batch_size(model)
    batches = [images[np.arange(start, min(start + size, count)) % len(images)] for start in range(0, count, size)]
    processors = os.cpu_count() or 1
    torch.set_num_threads(processors)
    found = {}
    model.answers(batches[0])
    started = time.perf_counter()
    for batch in batches:
        model.answers(batch)
    found["one model, all threads"] = count / (time.perf_counter() - started)
    with ThreadPoolExecutor(processors, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(model.answers, batches[:4]))
        started = time.perf_counter()
        list(pool.map(model.answers, batches))
        found["one thread a processor"] = count / (time.perf_counter() - started)
    print(json.dumps(found))


def markdown(result: dict[str, Any]) -> str:
    lines = ["# Serving", "", *(f"- {key}: {value}" for key, value in result["account"].items()), ""]
    lines += [
        "Time of the model for one image, in milliseconds: stated by the evaluation; measured anew in the same way;",
        "taken in `recursight serve`. The last two take turns; the ratio is the median of their rounds.",
        "",
        "| model | stated | on | anew | served | served / anew |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for row in result["latency"]:
        stated, anew, served_ms, ratio = (f"{row[key]:.2f}" for key in ("stated_ms", "alone_ms", "served_ms", "ratio"))
        lines.append(f"| {row['model']} | {stated} | {row['stated_on']} | {anew} | {served_ms} | {ratio} |")
    lines += [
        "",
        "One PNG of 28×28 a request; version 1 is conv_gru, version 2 lstm, as in params.yaml. Milliseconds from when",
        "a request was due to its whole answer.",
        "",
        "| load | requests | failures | p50 | p90 | p99 | highest | answers by version |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in result["open_loop"]:
        versions = ", ".join(f"{version}: {count:,}" for version, count in row["by_version"].items())
        lines.append(
            f"| {row['name']} | {row['requests']:,} | {row['failures']} | {row['p50_ms']:.1f} | {row['p90_ms']:.1f} "
            f"| {row['p99_ms']:.1f} | {row['highest_ms']:.1f} | {versions} |"
        )
    lines += [
        "",
        "As fast as it goes:",
        "",
        "| callers | requests/s | failures | p50 | p99 |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['name']} | {row['per_second']:,.0f} | {row['failures']} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |"
        for row in result["closed_loop"]
    ]
    lines += [
        "",
        f"Batch scoring of {result['folder'][0]['images']:,} JPEG photographs of 224×224 pixels, images a second; "
        "medians. "
        "The share is of the faster way to run the model in the same round: the median (lowest to highest).",
        "",
        "| model | `recursight predict FOLDER` | model alone, all threads | alone, one thread a processor | share |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in result["folder"]:
        figures = (row["command_per_second"], *row["alone_per_second"].values())
        lowest, highest = row["shares"]
        share = f"{row['share']:.0%} ({lowest:.0%} to {highest:.0%})"
        lines.append(f"| {row['model']} | {' | '.join(f'{rate:,.0f}' for rate in figures)} | {share} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
