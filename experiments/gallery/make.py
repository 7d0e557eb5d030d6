"""Draw the gallery again: run each script and keep its main figure, small.

python experiments/gallery/make.py                       # all of it, some minutes
python experiments/gallery/make.py guidance latent_walk  # these only
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageSequence

HERE = Path(__file__).parent
WIDTH, FILM = 1000, 224  # pixels of a picture in the gallery, and of a film

# What a script is asked, and what of its results is shown; the picture's own name if not NAME.png.
SHOWN: dict[str, tuple[list[str], dict[str, str]]] = {
    "record_generation": (
        [],
        {"figures/timeline.png": "timeline.png", "figures/word_maps.png": "word_maps.png"},
    ),
    "autoencoder_roundtrip": ([], {"figures/roundtrip.png": "autoencoder_roundtrip.png"}),
    "denoising_steps": ([], {"figures/settling.png": "denoising_steps.png"}),
    "embedding_similarity": ([], {"figures/similarity.png": "embedding_similarity.png"}),
    "forward_process": ([], {"figures/noised.png": "forward_process.png"}),
    "guidance": ([], {"figures/scales.png": "guidance.png"}),
    "image_decoder": ([], {"figures/constants.png": "image_decoder.png"}),
    "image_encoder": ([], {"figures/channels.png": "image_encoder.png"}),
    "image_to_image": ([], {"figures/resumed.png": "image_to_image.png"}),
    "latent_interpolation": ([], {"figures/pictures.png": "latent_interpolation.png"}),
    "latent_walk": (["--loop", "--caption", "--inset", "latent"], {"film.gif": "latent_walk.gif"}),
    "noise_corruption": ([], {"figures/grid.png": "noise_corruption.png"}),
    "pipeline_map": (
        ["--model", "sd-v1-4", "--repeats", "0"],
        {"figures/map.png": "pipeline_map.png"},
    ),
    "samplers": ([], {"figures/paths.png": "samplers.png"}),
    "stabilizing_noise": ([], {"figures/pictures.png": "stabilizing_noise.png"}),
    "text_encoder": ([], {"figures/tokens.png": "text_encoder.png"}),
    "text_interpolation": ([], {"figures/pictures.png": "text_interpolation.png"}),
    "tokenizer": ([], {"figures/merges.png": "tokenizer.png"}),
}


def main(names: list[str]) -> None:
    if unknown := set(names) - SHOWN.keys():
        sys.exit(f"not in the gallery: {', '.join(sorted(unknown))}; it has {', '.join(SHOWN)}")
    for name in names or SHOWN:
        arguments, files = SHOWN[name]
        with tempfile.TemporaryDirectory() as folder:
            script = HERE.parent / f"{name}.py"
            out = Path(folder, "out")
            subprocess.run([sys.executable, script, *arguments, "--out", out], check=True)
            for source, target in files.items():
                keep(out / source, HERE / target)


def keep(source: Path, target: Path) -> None:
    """A small copy: no wider than `WIDTH`, a film than `FILM` and of fewer colours."""
    with Image.open(source) as picture:
        if getattr(picture, "n_frames", 1) == 1:
            small(picture, WIDTH).save(target, optimize=True)
            return
        duration = picture.info["duration"]
        first, *more = [
            small(frame, FILM).quantize(128, dither=Image.Dither.NONE)
            for frame in ImageSequence.Iterator(picture)
        ]
    first.save(target, save_all=True, append_images=more, duration=duration, loop=0)


def small(picture: Image.Image, width: int) -> Image.Image:
    height = round(picture.height * width / picture.width)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main(sys.argv[1:])
