"""Is a model of full size here the one that diffusers runs?

    python tests/full_size_parity.py FOLDER --size 512 --run-size 256 --steps 25

FOLDER is a diffusers folder: of real weights, or of random ones, which ``python -m
xray.studies.random_weights FOLDER`` writes. diffusers and transformers (the extra ``parity``)
compute in a process of their own, which ends before ours begin, so that one model at a time is in
memory. Errors are max|a − b| / std(b).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from xray.script import quiet_tensorflow, table

REACH = {"latents of the guided run": 1e-3}  # and 1e-4 for each network
TIMESTEPS = (981, 501, 1)


def inputs(words: int, length: int, width: int, size: int, run_size: int) -> dict[str, np.ndarray]:
    """What both are given, (n, y, x, channel); token ids of no words in particular."""
    random = np.random.default_rng(0)
    side, run_side = size // 8, run_size // 8
    return {
        "ids": random.integers(0, words, (2, length)),
        "latent": random.standard_normal((1, side, side, 4), np.float32),
        "context": random.standard_normal((1, length, width), np.float32),
        "pixels": np.tanh(random.standard_normal((1, size, size, 3), np.float32)),
        "noise": random.standard_normal((1, run_side, run_side, 4), np.float32),
    }


def theirs(folder: Path, size: int, run_size: int, steps: int) -> dict[str, np.ndarray]:
    """Every network's output and a guided run of DDIM, by diffusers and transformers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    text = pipeline.text_encoder.config
    shape = text.vocab_size, text.max_position_embeddings, text.hidden_size
    given = inputs(*shape, size, run_size)
    latent, context = _first(given["latent"]), torch.from_numpy(given["context"])
    vae, factor = pipeline.vae, pipeline.vae.config.scaling_factor
    with torch.no_grad():
        embedded = pipeline.text_encoder(torch.from_numpy(given["ids"]))[0]
        found = {"text encoder": embedded.numpy()}
        for t in TIMESTEPS:
            found[f"U-Net at timestep {t}"] = _last(pipeline.unet(latent, t, context).sample)
        moments = vae.encode(_first(given["pixels"])).latent_dist
        found["encoder"] = _last(moments.mean * factor)
        found["decoder"] = _last(vae.decode(latent / factor).sample)
        run = pipeline(
            prompt_embeds=embedded[:1],
            negative_prompt_embeds=embedded[1:],
            latents=_first(given["noise"]),
            guidance_scale=5.0,
            num_inference_steps=steps,
            output_type="latent",
        )
        found["latents of the guided run"] = _last(run.images)
    return {**found, "embeddings": embedded.numpy()}


def ours(
    folder: Path, size: int, run_size: int, steps: int, exact: bool, embeddings: np.ndarray
) -> dict[str, np.ndarray]:
    """The same by this package."""
    import xray

    model = xray.load(folder, exact=exact)
    arch = model.architecture
    given = inputs(arch.vocab_size, arch.text_length, arch.text_width, size, run_size)
    found = {"text encoder": np.asarray(model.text(given["ids"].astype(np.int32)))}
    for t in TIMESTEPS:
        embedding = model.timestep_embedding(t)[None]
        found[f"U-Net at timestep {t}"] = model.unet(given["latent"], embedding, given["context"])
    found["encoder"] = model.encoder(given["pixels"])
    found["decoder"] = model.decoder(given["latent"])
    trace = model.generate(
        embeddings[0],
        negative=embeddings[1],
        latent=given["noise"],
        guidance=5.0,
        steps=steps,
        width=run_size,
        height=run_size,
        record=[],
    )
    return {**found, "latents of the guided run": trace["sampler/out"].values}


def _last(tensor) -> np.ndarray:
    return np.moveaxis(tensor.numpy(), 1, -1)


def _first(array: np.ndarray):
    import torch

    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512, help="pixels a side, for each network")
    parser.add_argument("--run-size", type=int, default=512, help="for the guided run")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--exact", action="store_true", help="without Winograd's convolution")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    asked = (args.folder, args.size, args.run_size, args.steps)
    if args.theirs:
        np.savez(args.theirs, **theirs(*asked))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept, started = Path(folder, "theirs.npz"), time.perf_counter()
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--theirs", kept], check=True)
        print(f"diffusers: {time.perf_counter() - started:.0f} s")
        with np.load(kept) as file:
            expected = dict(file)
    started = time.perf_counter()
    with quiet_tensorflow():
        found = ours(*asked, args.exact, expected.pop("embeddings"))
    print(f"diffusion-xray: {time.perf_counter() - started:.0f} s\n")
    rows = []
    for name, value in expected.items():
        value = value.astype(np.float64)
        error = float(np.abs(np.asarray(found[name], np.float64) - value).max() / value.std())
        reach = REACH.get(name, 1e-4)
        rows.append(
            [name, f"{error:.1e}", f"{reach:.0e}", "reached" if error <= reach else "missed"]
        )
    print(table(["", "max|a-b| / std", "to reach", ""], rows))


if __name__ == "__main__":
    main()
