"""A diffusers folder of full size with random weights, in float16.

    python -m xray.studies.random_weights runs/random_weights              # sd-v1-4, 2.1 GB
    python -m xray.studies.random_weights runs/random_weights_2 sd-v2-1    # 2.6 GB

For measurements, which do not depend on what the weights are, where the published ones are not at
hand.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from xray.script import quiet_tensorflow


def write(folder: Path, name: str = "sd-v1-4") -> None:
    """A model with random weights, and a vocabulary of as many words."""
    import xray
    from xray.checkpoints import export_diffusers
    from xray.tokenizer import Tokenizer

    letters = Tokenizer([]).vocabulary[:256]
    model = xray.load(name, weights=None)
    pairs = itertools.product(letters, letters)
    count = model.architecture.vocab_size - len(Tokenizer([]).vocabulary)
    model.tokenizer = Tokenizer(list(itertools.islice(pairs, count)))
    export_diffusers(model, folder, dtype="float16")


def write_apart(folder: Path) -> None:
    """`write` in a process of its own, whose memory is given back at its end."""
    subprocess.run([sys.executable, "-m", __name__, folder], check=True)


if __name__ == "__main__":
    with quiet_tensorflow():
        write(Path(sys.argv[1]), *sys.argv[2:])
