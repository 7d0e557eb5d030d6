"""One system of the full-size benchmark, in a process of its own.

    python -m xray.studies.fullsize_systems ours FOLDER --size 512 --steps 6

It says on its standard output what it has done, a line of JSON each, and waits for a line on its
standard input before it does the next thing. What it times is from the one to the other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DECODES = 3
GUIDANCE = 7.5
POOL = 16
PROMPT = "a red boat"
Turn = Callable[[str], None]
"""``turn("step")``: a step is done; waits until it may go on."""
Decode = Callable[[np.ndarray], Any]
"""Pixels of a latent (1, h/8, w/8, 4); every system returns its own after its run."""


def ours(turn: Turn, asked: argparse.Namespace) -> Decode:
    """diffusion-xray; recording to disk if there is anything to `record`."""
    import keras_cv.src.backend  # noqa: F401

    import xray.generator  # noqa: F401

    turn("import")
    model = xray.load(asked.folder, dtype=asked.dtype, memory=asked.memory)
    turn("load")
    record: list = list(asked.record)
    if asked.pooled:
        record.append(xray.observe("unet/**/self/weights", mean="head", pool=POOL))
    model.generate(
        PROMPT,
        steps=asked.steps,
        guidance=GUIDANCE,
        width=asked.size,
        height=asked.size,
        record=record,
        store=asked.scratch / "trace.zarr" if record else None,
        progress=lambda done, steps: turn("step"),
    )
    return model.decode


def keras_cv(turn: Turn, asked: argparse.Namespace) -> Decode:
    """KerasCV's own StableDiffusion, compiled with XLA, on random weights of its own."""
    import keras_cv
    from keras_cv.src.models.stable_diffusion.decoder import Decoder
    from keras_cv.src.models.stable_diffusion.diffusion_model import DiffusionModel
    from keras_cv.src.models.stable_diffusion.text_encoder import TextEncoder

    from xray.architecture import initial_weights

    turn("import")
    stock = keras_cv.models.StableDiffusion(asked.size, asked.size, jit_compile=True)
    block = np.random.default_rng(0).standard_normal(1 << 20, np.float32)
    with initial_weights(lambda s: np.resize(block, s) * math.prod(s[:-1]) ** -0.5):
        # KerasCV would download them if they were not there.
        stock._text_encoder = TextEncoder(77, download_weights=False)
        stock._diffusion_model = DiffusionModel(asked.size, asked.size, 77, download_weights=False)
        stock._decoder = Decoder(asked.size, asked.size, download_weights=False)
    for part in (stock._text_encoder, stock._diffusion_model, stock._decoder):
        part.compile(jit_compile=True)
    stock._diffusion_model = _EverySecond(stock._diffusion_model, lambda: turn("step"))
    turn("load")
    embedding = np.random.default_rng(0).standard_normal((1, 77, 768), np.float32)
    stock.generate_image(
        embedding, num_steps=asked.steps, unconditional_guidance_scale=GUIDANCE, seed=0
    )
    return stock.decoder.predict_on_batch


class _EverySecond:
    """Stands where KerasCV keeps the U-Net, which it calls twice in a guided step."""

    def __init__(self, network: Any, after: Callable[[], None]):
        self.network, self.after, self.calls = network, after, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def predict_on_batch(self, inputs: Any) -> Any:
        output = self.network.predict_on_batch(inputs)
        self.calls += 1
        if self.calls % 2 == 0:
            self.after()
        return output


def diffusers(turn: Turn, asked: argparse.Namespace) -> Decode:
    """diffusers on torch, with its fused attention."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    turn("import")
    pipeline = StableDiffusionPipeline.from_pretrained(
        asked.folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    turn("load")

    def after(*told: Any) -> dict:
        turn("step")
        return told[-1]

    pipeline(
        PROMPT,
        width=asked.size,
        height=asked.size,
        num_inference_steps=asked.steps,
        guidance_scale=GUIDANCE,
        callback_on_step_end=after,
    )

    def decode(latent: np.ndarray) -> Any:
        with torch.no_grad():
            return pipeline.vae.decode(torch.from_numpy(latent).permute(0, 3, 1, 2).contiguous())

    return decode


SYSTEMS: dict[str, Callable[[Turn, argparse.Namespace], Decode]] = {
    "ours": ours,
    "keras_cv": keras_cv,
    "diffusers": diffusers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("folder", type=Path, help="a diffusers folder")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--dtype", default="float32", help="of our weights in memory")
    parser.add_argument("--memory", default="fast", help="of our model: fast or low")
    parser.add_argument("--record", nargs="*", default=[])
    parser.add_argument("--pooled", action="store_true", help="record self-attention, averaged")
    parser.add_argument("--scratch", type=Path, help="where recordings go and are removed")
    asked = parser.parse_args()
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is not for the one who listens
    begun = time.perf_counter()

    def turn(phase: str) -> None:
        nonlocal begun
        seconds = time.perf_counter() - begun
        print(json.dumps({"phase": phase, "seconds": seconds}), file=told, flush=True)
        if not sys.stdin.readline():
            sys.exit(f"{asked.system}: nobody listens any more")
        begun = time.perf_counter()

    latent = np.zeros((1, asked.size // 8, asked.size // 8, 4), np.float32)
    with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
        asked.scratch = Path(folder)
        decode = SYSTEMS[asked.system](turn, asked)
        turn("decode")  # the run's own
        for _ in range(DECODES):
            decode(latent)
            turn("decode")


if __name__ == "__main__":
    main()
