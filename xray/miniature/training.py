"""What every training here shares: one loop, checkpoints, loss curves.

fit(folder, variables, loss, batches, minutes=60, checkpoint_minutes=4, learning_rate=1e-3)
averages(folder)                  # the moving average of the weights, once trained
progress(folder)["samples"]
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import load_file

from xray.checkpoints.files import save_tensors
from xray.miniature.loss_curve import loss_figure
from xray.miniature.optimizer import Muon

CHECKPOINT = "checkpoint.safetensors"
LONGEST_STEP = 10.0  # seconds


def fit(
    folder: Path,
    net: dict[str, Any],
    loss: Callable,
    batches: Callable[[int], Iterator[tuple[np.ndarray, ...]]],
    *,
    minutes: float,
    checkpoint_minutes: float,
    learning_rate: float,
) -> None:
    """Muon under warm-up and linear decay over a budget of minutes, checkpointed and resumed.

    Without a checkpoint it begins from the weights that ``net`` has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = [v.value for v in net.values()]
    average = [tf.Variable(v) for v in values]
    optimizer = Muon(learning_rate)
    optimizer.build(list(net.values()))
    kept = {
        **{f"net/{k}": v.value for k, v in net.items()},
        **{f"average/{k}": v for k, v in zip(net, average, strict=True)},
        **{f"optimizer/{i}": v.value for i, v in enumerate(optimizer.variables)},
    }
    checkpoint, curve = folder / CHECKPOINT, folder / "loss.csv"
    done = {"steps": 0, "seconds": 0.0, "samples": 0}
    if checkpoint.exists():
        done = progress(folder)
        for name, value in load_file(checkpoint).items():
            kept[name].assign(value)
    _forget_after(curve, done["samples"])

    @tf.function(autograph=False)
    def step(decay: Any, *batch: Any) -> Any:
        with tf.GradientTape() as tape:
            value = tf.add_n([loss(*half) for half in _halves(batch)]) / 2.0
        gradients = tape.gradient(value, values)
        optimizer.apply([tf.convert_to_tensor(g) for g in gradients], list(net.values()))
        for mean, v in zip(average, values, strict=True):
            mean.assign_add((1.0 - decay) * (v - mean))
        return value

    def save() -> None:
        # One file, replaced whole: weights and progress are never of different steps.
        arrays = {k: np.asarray(v) for k, v in kept.items()}
        save_tensors(arrays, checkpoint, {"progress": json.dumps(done)})
        if curve.exists():
            loss_figure(curve).savefig(folder / "loss.png")

    report = Report(folder.name, curve)
    saved, losses = time.monotonic(), []
    before = None  # when the last step ended
    with ThreadPoolExecutor(1) as pool:
        stream = batches(done["steps"])
        following = pool.submit(next, stream)
        while (fraction := done["seconds"] / (60.0 * minutes)) < 1.0:
            batch, following = following.result(), pool.submit(next, stream)
            warm_up = min(1.0, (done["steps"] + 1) / 200)
            optimizer.learning_rate.assign(learning_rate * warm_up * (1.0 - fraction))
            # A short memory at first, when the weights still move fast.
            decay = min(0.999, (1 + done["steps"]) / (10 + done["steps"]))
            losses.append(float(step(tf.constant(decay, tf.float32), *map(tf.constant, batch))))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"{folder.name}: the loss is {losses[-1]} at step {done['steps']}; "
                    f"the last checkpoint is {checkpoint}"
                )
            done["steps"] += 1
            done["samples"] += len(batch[0])
            # Tracing, which the first step waits for, is not training; nor is it when the process
            # is stopped or the laptop sleeps.
            before = before or time.monotonic()
            now = time.monotonic()
            done["seconds"] += min(now - before, LONGEST_STEP)
            before = now
            if len(losses) == 50:
                report(done["samples"], float(np.mean(losses)), fraction, done["seconds"])
                losses.clear()
            if time.monotonic() - saved > 60.0 * checkpoint_minutes:
                save()
                saved = time.monotonic()
    save()


class Report:
    """A line on the terminal every half minute, a row in the loss curve every call."""

    def __init__(self, name: str, curve: Path | None):
        self.name, self.curve = name, curve
        self.started = self.spoke = time.monotonic()

    def __call__(self, samples: int, loss: float, fraction: float, seconds: float = 0.0) -> None:
        if self.curve:
            with self.curve.open("a", newline="") as file:
                csv.writer(file).writerow([samples, f"{seconds:.1f}", f"{loss:.6f}"])
        now = time.monotonic()
        if now - self.spoke > 30.0:
            self.spoke = now
            total = (
                (now - self.started) / max(fraction, 1e-9) if not seconds else seconds / fraction
            )
            left = total * (1.0 - fraction) / 60.0
            print(
                f"{self.name}: {samples:,} samples, loss {loss:.5f}, {left:.0f} min left",
                flush=True,
            )


def _halves(batch: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    # Each half has a thread of its own from the first layer to the last. Two threads in every
    # operation wait for each other thousands of times a step, long where the machine is shared.
    return zip(*(tf.split(x, 2) for x in batch), strict=True)


def progress(folder: Path) -> dict[str, float]:
    """The steps, seconds and samples of a checkpoint."""
    with safe_open(folder / CHECKPOINT, "np") as file:
        return json.loads(file.metadata()["progress"])


def _forget_after(curve: Path, samples: int) -> None:
    """Cut what a loss curve has of steps that no checkpoint has; an empty one cannot be drawn."""
    rows = curve.read_text().splitlines(keepends=True) if curve.exists() else []
    kept = [row for row in rows if int(row.split(",")[0]) <= samples]
    if not kept:
        curve.unlink(missing_ok=True)
    elif len(kept) < len(rows):
        curve.write_text("".join(kept))


def averages(folder: Path) -> dict[str, np.ndarray]:
    """The moving average of the weights, from a checkpoint."""
    kept = load_file(folder / CHECKPOINT)
    return {k.removeprefix("average/"): v for k, v in kept.items() if k.startswith("average/")}


def assign(net: dict[str, Any], values: dict[str, np.ndarray]) -> None:
    for name, variable in net.items():
        variable.assign(values[name])
