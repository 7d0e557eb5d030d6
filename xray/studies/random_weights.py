"""A diffusers folder of Stable Diffusion 1.4's sizes with random weights, 2.1 GB in float16.

    python -m xray.studies.random_weights runs/random_weights

For measurements, which do not depend on what the weights are, where the published ones are not at
hand. In a process of its own, whose memory is given back at its end.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from xray.script import quiet_tensorflow


def write(folder: Path) -> None:
    """A model with random weights, and a vocabulary of as many words."""
    import xray
    from xray.architecture import SD1
    from xray.checkpoints import export_diffusers
    from xray.tokenizer import Tokenizer

    letters = Tokenizer([]).vocabulary[:256]
    pairs = itertools.product(letters, letters)
    merges = list(itertools.islice(pairs, SD1.vocab_size - len(Tokenizer([]).vocabulary)))
    model = xray.load("sd-v1-4", weights=None, tokenizer=Tokenizer(merges))
    export_diffusers(model, folder, dtype="float16")


if __name__ == "__main__":
    with quiet_tensorflow():
        write(Path(sys.argv[1]))
