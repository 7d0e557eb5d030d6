"""How far Winograd's convolutions move a run of a full-size model, against exact=True.

    python tests/full_size_exactness.py FOLDER --size 512 --steps 25

FOLDER is any model that `xray.load` opens: of real weights, or of random ones, which ``python -m
xray.studies.random_weights FOLDER`` writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from xray.script import quiet_tensorflow, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    import xray

    traces = []
    for exact in (False, True):
        model = xray.load(args.folder, exact=exact)
        sizes = {"width": args.size, "height": args.size}
        traces.append(model.generate("a red boat", steps=args.steps, guidance=7.5, **sizes))
        del model
    fast, plain = (t["sampler/out"].values.astype(np.float64) for t in traces)
    apart = np.abs(np.subtract(*(t["image"].values.astype(int) for t in traces)))
    moved = np.sqrt(np.mean((fast - plain) ** 2) / np.mean(plain**2))
    rows = [
        ["latents, relative root mean square", f"{moved:.1e}", "≤ 1e-3"],
        ["numbers of the picture within 1 of 255", f"{np.mean(apart <= 1):.3%}", "≥ 99.9 %"],
        ["largest difference of the picture, of 255", int(apart.max()), ""],
    ]
    print(table(["", "found", "reach"], rows))


if __name__ == "__main__":
    with quiet_tensorflow():
        main()
