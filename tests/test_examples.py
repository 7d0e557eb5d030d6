"""What the README and the docstrings show does what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import xray

ROOT = Path(__file__).parents[1]
MODULES = [
    path for path in sorted((ROOT / "xray").rglob("*.py")) if ">>>" in path.read_text("utf-8")
]
# Of a user's own files and pictures, of a clock, of full size (which takes 13 s).
OTHERS = {
    "xray.checkpoints.outline",
    "xray.clock.Clock",
    "xray.inversion.invert",
    "xray.replay.replay",
    "xray.studies.denoising_steps.settled",
    "xray.trace.diff",
    "xray.video.probe",
}


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def recorded(mini):
    return mini.generate("a red star", seed=7, record=["sampler/*"])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_give_what_stands_below_them(path, mini, recorded):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    given = {"xray": xray, "model": mini, "tokenizer": mini.tokenizer, "trace": recorded}
    said = []
    for example in doctest.DocTestFinder().find(module, name, globs=vars(module) | given):
        if any(each.want for each in example.examples) and example.name not in OTHERS:
            doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_the_ten_lines_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks("python")[0], names)
    whole, without = names["trace"], xray.open("boat.zarr")
    assert whole.image.size == without.image.size == (128, 128)
    assert list(whole.steps) == list(without.steps) == list(range(25))
    rows = xray.diff(whole, without).rows
    assert not all(row.equal for row in rows)  # the skip connection matters


PAGES = [
    path
    for folder in ("", "docs", "experiments", "weights")
    for path in (ROOT / folder).glob("*.md")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    linked = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    gone = [link for link in linked if "://" not in link and not (page.parent / link).exists()]
    assert not gone
