"""How good is the miniature?

    python -m xray.miniature.evaluate --model mini --out runs/evaluation

Prints a table of figures beside the ones to reach and writes it as ``evaluation.json`` and
``evaluation.md``, with the pictures of the first captions (``pictures.png``) and the guidance
curve (``guidance.png``). Parts, each written as soon as it is known, so that an evaluation may be
made in several runs (``--parts``):

- ``judge``: how far the network that looks at the pictures can be trusted.
- ``autoencoder``: PSNR and SSIM of rendered scenes after encoding and decoding.
- ``pictures``: whether pictures show what their captions state, held-out combinations among them.
- ``guidance``: the same over guidance scales.
- ``synonyms``: whether captions that mean the same are close.
- ``hearing``: whether the U-Net's error rises when a word is changed for another.
- ``attention``: whether words attend to the pixels that they speak of.
- ``diversity``: whether seeds give different pictures.

Captions are never ones that training had, but for the short one of ``diversity``; those of
``--quick`` may be, unless it is given ``--pictured`` and ``--described``. Every scene and every
noise comes from ``--seed``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import itertools
import json
import math
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray import fidelity, page
from xray.checkpoints import load
from xray.checkpoints.files import sha256
from xray.generator import Generator
from xray.miniature import grounding, metrics, numbers
from xray.miniature.corpus import captions_seen, stream_seed
from xray.miniature.hearing import heard
from xray.miniature.judge import accuracy, load_judge, round_trip, shipped_judge
from xray.miniature.scenes import Scene, caption_pairs, image, scene
from xray.miniature.scoring import Score, Seen, score, shares, statement
from xray.sheet import Sheet
from xray.whole import whole

STEPS, FEWER_STEPS = 25, 10
GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.5)
TIMESTEPS = (100.0, 300.0, 500.0, 700.0, 900.0)
DIVERSE_CAPTION = 20  # the seed of "a small red house": position, fill and background are open
JUDGED = {"judge", "pictures", "guidance"}  # parts that the judge is asked in
BATCH = 25
_STREAM = 7  # of scene seeds; see `xray.miniature.corpus`


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: is measured.
        figure: that was found.
        n: of how many it is the mean.
        unit: "%" for shares, which are kept as 0 … 1; "dB", "×" or "".
        reach: the least that it should be; None for figures that stand there for comparison.
    """

    what: str
    figure: float
    n: int
    unit: str = ""
    reach: float | None = None

    @property
    def reached(self) -> bool | None:
        return None if self.reach is None else bool(self.figure >= self.reach)

    def shown(self, figure: float) -> str:
        if self.unit == "%":
            return f"{100 * figure:.1f} %"
        return f"{figure:.2f} {self.unit}" if self.unit else f"{figure:.3f}"


@dataclass(frozen=True)
class Sizes:
    """How many of everything.

    Attributes:
        captions: for pictures, of each split.
        curve: captions for each guidance scale.
        scenes: for the autoencoder, the judge and each kind of caption pair.
        words: scenes whose words are changed, and whose words' attention is graded; a third as
            many fix its threshold.
        seeds: for diversity.
        pictured: scenes that diffusion was trained on, whose captions are avoided: how many, by the
            seed (a word, as JSON has it); by default, as with `described`, those of the shipped
            weights.
        described: captions that the text encoder was taught with, which are avoided too.
    """

    captions: int = 1000
    curve: int = 250
    scenes: int = 1000
    words: int = 200
    seeds: int = 64
    pictured: dict[str, int] = field(default_factory=lambda: {"0": 100_000})
    described: dict[str, int] = field(default_factory=lambda: {"0": 321_536, "2": 235_136})


QUICK = Sizes(captions=8, curve=4, scenes=16, words=3, seeds=4, pictured={}, described={})


@dataclass
class Bench:
    """What is evaluated, by whom, on what.

    Attributes:
        model: whose `generate`, `embed`, `encode`, `decoder` and `unet` are used.
        judge: uint8 pictures (n, 128, 128, 3) → a `Seen` for each; None if no part asks it.
        sizes: how many of everything.
        out: where pictures are written.
        seed: of all scenes and noises.
    """

    model: Generator
    judge: Callable[[np.ndarray], list[Seen]] | None
    sizes: Sizes
    out: Path
    seed: int = 0

    def scenes(self, count: int, part: int, split: str = "train") -> list[Scene]:
        """Scenes of which training saw neither picture nor caption; other ones for each part."""
        indices = itertools.count(part * 10_000_000)
        new = (scene(stream_seed(self.seed, _STREAM, index), split=split) for index in indices)
        unseen = (s for s in new if s.caption not in self.trained)
        return list(itertools.islice(unseen, count))

    @functools.cached_property
    def trained(self) -> set[str]:
        """The captions that training had."""
        sizes = (self.sizes.pictured, self.sizes.described)
        return captions_seen(*({int(s): n for s, n in seen.items()} for seen in sizes))

    def draw(self, scenes: Sequence[Scene], **options: Any) -> np.ndarray:
        """The model's pictures for the captions of scenes, uint8, each from a seed of its own."""
        pictures = []
        for start in range(0, len(scenes), BATCH):
            captions = [s.caption for s in scenes[start : start + BATCH]]
            seeds = [self.seed * 1_000_000 + start + i for i in range(len(captions))]
            trace = self.model.generate(
                captions, seed=seeds, record=[], progress=False, **{"steps": STEPS, **options}
            )
            pictures.append(trace["image"].values)
        return np.concatenate(pictures)

    def followed(self, scenes: Sequence[Scene], **options: Any) -> dict[str, tuple[float, int]]:
        """How well the model's pictures follow the captions, see `follows`."""
        return follows(self.draw(scenes, **options), scenes, self.judge)


def follows(
    pictures: np.ndarray, scenes: Sequence[Scene], judge: Callable[[np.ndarray], list[Seen]]
) -> dict[str, tuple[float, int]]:
    """How well pictures show what captions state.

    Args:
        pictures: uint8 (n, 128, 128, 3).
        scenes: whose captions they should show, in this order.
        judge: says what is to be seen in pictures.

    Returns:
        Share and number of cases, by name; see `xray.miniature.scoring.score`.
    """
    return shares(scored(pictures, scenes, judge))


def scored(
    pictures: np.ndarray, scenes: Sequence[Scene], judge: Callable[[np.ndarray], list[Seen]]
) -> list[Score]:
    """How well each picture shows what its caption states. Arguments as for `follows`."""
    return [score(statement(s), seen) for s, seen in zip(scenes, judge(pictures), strict=True)]


# ----------------------------------------------------------------------------------------- parts


def judge_part(bench: Bench) -> tuple[list[Row], Any]:
    scenes = bench.scenes(bench.sizes.scenes, 1, "any")
    rendered = np.stack([image(s) for s in scenes])
    rows = []
    for name, pictures, reach in (
        ("rendered scenes", rendered, 0.99),
        ("autoencoder round trips", round_trip(bench.model, rendered), 0.97),
    ):
        right = accuracy(bench.judge, pictures, scenes)
        rows += [
            Row(f"judge on {name}: captions all right", right["captions"], len(scenes), "%", reach),
            Row(
                f"judge on {name}: every attribute of everything", right["scenes"], len(scenes), "%"
            ),
        ]
    return rows, None


def autoencoder_part(bench: Bench) -> tuple[list[Row], Any]:
    scenes = bench.scenes(bench.sizes.scenes, 2, "any")
    before = np.stack([image(s) for s in scenes])
    after = round_trip(bench.model, before)
    n = len(scenes)
    return [
        Row("autoencoder: PSNR", float(fidelity.psnr(before, after).mean()), n, "dB", 33.0),
        Row("autoencoder: SSIM", float(fidelity.ssim(before, after).mean()), n, "", 0.96),
    ], None


_REACH = {
    "things": 0.95,
    "colours": 0.95,
    "backgrounds": 0.97,
    "relations": 0.90,
    "sizes": None,
    "fills": None,
    "pairs": None,
    "all right": 0.85,
}


def pictures_part(bench: Bench) -> tuple[list[Row], Any]:
    scenes = bench.scenes(bench.sizes.captions, 3)
    pictures = bench.draw(scenes)
    captions = [s.caption for s in scenes[:36]]
    unseen = "; no training scene had them" if bench.trained else ""  # else nobody looked
    told = f"The first captions of the evaluation{unseen} · {STEPS} steps"
    contact_sheet(pictures, captions, told).savefig(bench.out / "pictures.png")
    scores = scored(pictures, scenes, bench.judge)
    new = bench.scenes(bench.sizes.captions, 4, "held_out")
    new_scores = scored(bench.draw(new), new, bench.judge)
    usual, held_out = shares(scores), shares(new_scores)
    # How many things captions have differs between the two, and decides most.
    by_count = {"usual": _by_count(scores, scenes), "held_out": _by_count(new_scores, new)}
    fewer = bench.followed(scenes, steps=FEWER_STEPS)
    rows = [
        Row(f"pictures: {k}", *usual[k], "%", reach) for k, reach in _REACH.items() if k in usual
    ]
    rows += _count_rows("pictures", by_count["usual"])
    rows.append(Row("held-out combinations: all right", *held_out["all right"], "%", 0.70))
    rows += _count_rows("held-out combinations", by_count["held_out"])
    least = usual["all right"][0] - 0.05
    rows.append(Row(f"at {FEWER_STEPS} steps: all right", *fewer["all right"], "%", least))
    details = {
        "usual": usual,
        "held_out": held_out,
        "fewer_steps": fewer,
        "by_count": by_count,
        "captions": captions,
    }
    return rows, details


def _by_count(
    scores: Sequence[Score], scenes: Sequence[Scene]
) -> dict[str, dict[str, tuple[float, int]]]:
    counts = [len(s.objects) for s in scenes]
    return {
        str(n): shares(one for one, count in zip(scores, counts, strict=True) if count == n)
        for n in sorted(set(counts))
    }


def _count_rows(what: str, found: dict[str, dict[str, tuple[float, int]]]) -> list[Row]:
    return [
        Row(f"{what}: all right, {count} thing{'s' * (count != '1')}", *f["all right"], "%")
        for count, f in found.items()
    ]


def contact_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str], told: str) -> Figure:
    """Pictures with their captions, six in a row: as many as there are captions."""
    rows = -(-len(captions) // 6)
    sheet = Sheet(rows=rows, columns=6, head=0.1, caption=0.75, gap=0.1)
    below = sheet.tall + page.MARGIN
    figure = page.new("What the miniature draws", [told], below=below)
    wrapped = [textwrap.fill(caption, 22) for caption in captions]
    by_row = [slice(start, start + 6) for start in range(0, len(captions), 6)]
    shown = pictures[: len(captions)]
    sheet.draw(figure, below, [shown[k] for k in by_row], captions=[wrapped[k] for k in by_row])
    return figure


def guidance_part(bench: Bench) -> tuple[list[Row], Any]:
    default = inspect.signature(Generator.generate).parameters["guidance"].default
    scenes = bench.scenes(bench.sizes.curve, 5)
    curve = {g: bench.followed(scenes, guidance=g) for g in sorted({*GUIDANCES, default})}
    guidance_figure(curve, default).savefig(bench.out / "guidance.png")
    without = curve[1.0]["all right"][0]
    rows = []
    for g, followed in curve.items():
        # "Clearly higher": by more than chance makes of two shares of so many captions.
        reach = without + 1.96 * math.sqrt(0.5 / len(scenes)) if g == default else None
        name = f"guidance {g:g}{' (default)' * (g == default)}: all right"
        rows.append(Row(name, *followed["all right"], "%", reach))
    return rows, {f"{g:g}": followed for g, followed in curve.items()}


def synonyms_part(bench: Bench) -> tuple[list[Row], Any]:
    start = stream_seed(bench.seed, _STREAM, 60_000_000)
    count = bench.sizes.scenes
    pooled: dict[str, list[np.ndarray]] = {"end token": [], "mean over words": []}
    for same in (True, False):
        unseen = (p for p in caption_pairs(start, same=same) if not bench.trained.intersection(p))
        pairs = list(itertools.islice(unseen, count))
        embedded = [_pooled(bench.model, side) for side in zip(*pairs, strict=True)]
        for name, values in pooled.items():
            values.append(_cosine(*(side[name] for side in embedded)))
    rows = []
    for (name, (synonyms, others)), reach in zip(pooled.items(), (0.95, None), strict=True):
        rows.append(Row(f"synonyms: AUC, {name}", metrics.auc(synonyms, others), count, "", reach))
    medians = {k: [float(np.median(v)) for v in values] for k, values in pooled.items()}
    return rows, {"median cosine of synonyms and of other words": medians}


def _pooled(model: Generator, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """Captions' embeddings as one vector each, (n, channel): at the end token, as CLIP pools."""
    tokens = [model.tokenizer.tokens(caption) for caption in captions]
    out = np.concatenate(
        [model.embed(captions[k : k + 250]).values for k in range(0, len(captions), 250)]
    )
    ends = [[t.special for t in row].index("end") for row in tokens]
    return {
        "end token": out[np.arange(len(out)), ends],
        "mean over words": np.stack(
            [row[1:end].mean(axis=0) for row, end in zip(out, ends, strict=True)]
        ),
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / norms


def hearing_part(bench: Bench) -> tuple[list[Row], Any]:
    found = heard(bench.model, bench.scenes(bench.sizes.words, 9), TIMESTEPS, bench.seed)
    rows = [
        Row(f"another {role} word: error rises by", float(h.rise.mean()), h.scenes, "%")
        for role, h in found.items()
    ]
    by_role = {
        role: {
            "rise": h.rise.tolist(),
            # One scene has no spread, and JSON no nan.
            "error": [float(e) if math.isfinite(e) else None for e in h.error],
        }
        for role, h in found.items()
    }
    return rows, {"timesteps": TIMESTEPS, "by role": by_role}


def attention_part(bench: Bench) -> tuple[list[Row], Any]:
    count = bench.sizes.words
    others = bench.scenes(max(1, count // 3), 7)
    threshold = grounding.fixed_threshold(
        grounding.denoised_once(bench.model, others, TIMESTEPS, bench.seed), others
    )
    scenes = bench.scenes(count, 8)
    trace = grounding.denoised_once(bench.model, scenes, TIMESTEPS, bench.seed)
    grades = grounding.grade(trace, scenes, threshold)
    whole = {"layer": "all", "head": "all", "timestep": "all"}
    rows = []
    for role, g in grades.items():
        reach = (0.90, 0.50) if role == "thing" else (None, None)
        name = f"attention of {role} words"
        rows += [
            Row(f"{name}: pointing game", float(g.pointing.sel(whole)), g.words, "%", reach[0]),
            Row(f"{name}: IoU", float(g.iou.sel(whole)), g.words, "", reach[1]),
        ]
        if role == "thing":
            finest, name = whole | {"layer": "finest"}, f"{name}, finest layers"
            rows += [
                Row(f"{name}: pointing game", float(g.pointing.sel(finest)), g.words, "%"),
                Row(f"{name}: IoU", float(g.iou.sel(finest)), g.words),
            ]
    for name, blind in grounding.baselines(scenes, threshold).items():
        g = blind["thing"]
        rows += [
            Row(f"{name} map for thing words: pointing game", float(g.pointing), g.words, "%"),
            Row(f"{name} map for thing words: IoU", float(g.iou), g.words),
        ]
    details = {
        "threshold": threshold,
        "coordinates": {k: v.values.tolist() for k, v in grades["thing"].iou.coords.items()},
        "by role, (layer, head, timestep)": {
            role: {"pointing": g.pointing.values.tolist(), "iou": g.iou.values.tolist()}
            for role, g in grades.items()
        },
    }
    return rows, details


def diversity_part(bench: Bench) -> tuple[list[Row], Any]:
    asked, count = scene(DIVERSE_CAPTION), bench.sizes.seeds
    wanted = statement(asked)
    own = (
        scene(stream_seed(bench.seed, _STREAM, k), objects=(1,))
        for k in itertools.count(100_000_000)
    )
    rendered = itertools.islice((image(s) for s in own if statement(s) == wanted), count)
    usual = metrics.pairwise_distance(np.stack(list(rendered)))
    drawn = metrics.pairwise_distance(bench.draw([asked] * count))
    row = Row(f"diversity: {count} seeds of “{asked.caption}”", drawn / usual, count, "×", 0.7)
    return [row], {"pictures": drawn, "scenes that say the same": usual}


PARTS: dict[str, Callable[[Bench], tuple[list[Row], Any]]] = {
    "judge": judge_part,
    "autoencoder": autoencoder_part,
    "pictures": pictures_part,
    "guidance": guidance_part,
    "synonyms": synonyms_part,
    "hearing": hearing_part,
    "attention": attention_part,
    "diversity": diversity_part,
}


# ---------------------------------------------------------------------------------------- report


def add_part(out: Path, of: dict[str, Any], part: str, found: dict[str, Any]) -> str:
    """The report with one more part; returns its Markdown.

    Processes that make parts side by side wait for each other here, so that none is lost.
    """
    with _alone(out):
        return write_report(out, {**of, "parts": {**known_parts(out, of), part: found}})


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time in a folder; on Windows, which has no such locks, as many as there are.

    The lock goes with the process that has it, however it ends; its empty file stays.
    """
    with (out / ".evaluation.lock").open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def known_parts(out: Path, of: dict[str, Any]) -> dict[str, Any]:
    """What is written already, perhaps by another run beside; not of other weights or sizes."""
    path = out / "evaluation.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    parts = before.pop("parts", {})
    return parts if before == of else {}


def write_report(out: Path, report: dict[str, Any]) -> str:
    """``evaluation.json`` and ``evaluation.md``; returns the Markdown."""
    with whole(out / "evaluation.json") as partial:
        partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    lines = [
        f"Model {report['model']}, weights {report['digest'][:12]}, judge "
        f"{report['judge'][:12]}, seed {report['seed']}.",
        "",
        "| what | figure | to reach | | n |",
        "|---|---:|---:|---|---:|",
    ]
    for part in PARTS:
        for kept in report["parts"].get(part, {}).get("rows", ()):
            row = Row(**kept)
            mark = {None: "", True: "reached", False: "missed"}[row.reached]
            reach = f"≥ {row.shown(row.reach)}" if row.reach is not None else ""
            lines.append(f"| {row.what} | {row.shown(row.figure)} | {reach} | {mark} | {row.n} |")
    if details := report["parts"].get("hearing", {}).get("details"):
        lines += ["", *_hearing_table(details)]
    if details := report["parts"].get("attention", {}).get("details"):
        lines += ["", *_attention_tables(details)]
    text = "\n".join(lines) + "\n"
    with whole(out / "evaluation.md") as partial:
        partial.write_text(text)
    return text


def _hearing_table(details: dict[str, Any]) -> list[str]:
    """How much the error rises when a word is changed, by role and timestep."""
    times = [f"timestep {t:g}" for t in details["timesteps"]]
    lines = [
        "The error of the predicted noise with another word in a caption's place: rise, and its "
        "standard error.",
        "",
        "| word | " + " | ".join(times) + " |",
        "|---" * (1 + len(times)) + "|",
    ]
    for role, found in details["by role"].items():
        pairs = zip(found["rise"], found["error"], strict=True)
        cells = (
            f"{100 * rise:.1f} %" if error is None else f"{100 * rise:.1f} ± {100 * error:.1f} %"
            for rise, error in pairs
        )
        lines.append(f"| {role} | " + " | ".join(cells) + " |")
    return lines


def _attention_tables(details: dict[str, Any]) -> list[str]:
    """Things' words, by layer and timestep and by layer and head: pointing game / IoU; before
    them, what the rows of background words mean."""
    coords, things = details["coordinates"], details["by role, (layer, head, timestep)"]["thing"]
    points, ious = np.array(things["pointing"]), np.array(things["iou"])
    lines = [
        "Words of backgrounds are graded against all that no thing covers, even those that name a "
        "part of it, as “grass” or “clouds”.",
        "",
        f"Words for things: pointing game / IoU above {details['threshold']:.2f} of the range.",
    ]
    for axis, across, along in ((1, "timestep", "timestep"), (2, "head", "head")):
        p, i = np.take(points, -1, axis), np.take(ious, -1, axis)
        lines += ["", "| layer | " + " | ".join(f"{across} {c}" for c in coords[along]) + " |"]
        lines.append("|---" * (1 + len(coords[along])) + "|")
        for layer, name in enumerate(coords["layer"]):
            cells = (f"{100 * a:.0f} % / {b:.2f}" for a, b in zip(p[layer], i[layer], strict=True))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def guidance_figure(curve: dict[float, dict], default: float) -> Figure:
    """Shares that are right over guidance scales."""
    figure = page.new("How far pictures follow captions, by guidance", below=3.9)
    axes = page.style(page.axes(figure, 0.8, 0.6, 5.5, 3.0), x="guidance scale", y="right, %")
    names = ("things", "colours", "relations", "all right")
    for name, colour, dash in zip(names, page.CYCLE, page.DASHES):
        shown = {g: 100 * f[name][0] for g, f in curve.items() if name in f}
        axes.plot(list(shown), list(shown.values()), color=colour, ls=dash, marker="o", label=name)
    axes.axvline(default, color=page.FAINT, zorder=0)
    axes.set_ylim(0, 102)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, title="grey: default")
    return figure


def _seeded(text: str) -> tuple[str, int]:
    """``"0=64"``: how many, of which seed."""
    seed, _, count = text.partition("=")
    if not (seed.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: write SEED=COUNT, such as 0=64")
    return str(int(seed)), int(count)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m xray.miniature.evaluate", description=__doc__)
    parser.add_argument("--model", default="mini", help="mini, or a folder that was exported")
    parser.add_argument("--judge", type=Path, help="its weights; by default the shipped ones")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--captions", type=numbers.counted, help="of each split")
    for name, what in (("pictured", "encoded scenes"), ("described", "captions of the text stage")):
        parser.add_argument(
            f"--{name}",
            nargs="*",
            type=_seeded,
            metavar="SEED=COUNT",
            help=f"{what} of your own training, whose captions are avoided",
        )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=numbers.seed, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute or two")
    args = parser.parse_args(arguments)
    for name in ("pictured", "described"):
        seeds = [seed for seed, _ in getattr(args, name) or ()]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            parser.error(f"--{name}: seed {twice[0]} is given twice; its larger count is enough")

    given = {
        k: v if k == "captions" else dict(v)
        for k in ("captions", "pictured", "described")
        if (v := getattr(args, k)) is not None
    }
    sizes = Sizes(**{**asdict(QUICK if args.quick else Sizes()), **given})
    args.out.mkdir(parents=True, exist_ok=True)
    model = load(args.model)
    judge_path = args.judge or shipped_judge()
    judge = load_judge(judge_path) if JUDGED.intersection(args.parts) else None
    bench = Bench(model, judge, sizes, args.out, args.seed)
    of = {
        "model": model.name,
        "digest": model.digest,
        # Parts that ask no judge, too, or they would be of another report.
        "judge": sha256(judge_path) if judge_path.is_file() else "none",
        "seed": args.seed,
        "sizes": asdict(sizes),
    }
    for part in args.parts:
        print(f"{part} …", end=" ", flush=True)
        started = time.monotonic()
        rows, details = PARTS[part](bench)
        print(f"{time.monotonic() - started:.0f} s", flush=True)
        found = {"rows": [asdict(row) for row in rows], "details": details}
        text = add_part(args.out, of, part, found)
    print(text)


if __name__ == "__main__":
    main()
