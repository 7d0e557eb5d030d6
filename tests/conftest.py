"""Shared by all tests: the smallest random model, quiet TensorFlow, and nobody's own cache."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores: one thread each
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# Before anything reads them: no test sees what its user has fetched.
_CACHES = tempfile.TemporaryDirectory(prefix="diffusion-xray-tests-")  # gone when Python ends
os.environ["XRAY_CACHE"] = os.path.join(_CACHES.name, "xray")
os.environ["HF_HOME"] = os.path.join(_CACHES.name, "huggingface")
os.environ["HF_HUB_CACHE"] = os.path.join(_CACHES.name, "huggingface", "hub")

import matplotlib  # noqa: E402

matplotlib.use("agg")
# Drawing takes as long as there are dots, of which no test but those of a figure's size looks at
# one: they ask for "figure", the page's own.
matplotlib.rcParams["savefig.dpi"] = 40

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A busy machine is no failure. Examples are others each time: what forty miss, the next forty may
# find.
settings.register_profile("unhurried", deadline=None, max_examples=40)
settings.load_profile("unhurried")

CAPTIONS = ["a red star above a blue moon", "a big green fish", "a red star and a red heart"]


@pytest.fixture(scope="session")
def tokenizer():
    from xray.tokenizer import Tokenizer, train_merges

    # Too few merges to make every word one token, so that words of several tokens are met.
    return Tokenizer(train_merges(CAPTIONS, 24), length=20)


@pytest.fixture(scope="session")
def tiny(tokenizer):
    """Stable Diffusion's topology at the smallest widths, with random weights."""
    from xray.architecture import Architecture

    return Architecture(
        vocab_size=len(tokenizer.vocabulary),
        text_length=20,
        text_width=16,
        text_heads=2,
        text_layers=2,
        widths=(8, 16, 16, 16),
        heads=(2, 2, 2, 2),
        blocks=1,
        groups=4,
        ae_widths=(4, 4, 8, 8),
        ae_blocks=1,
        ae_groups=4,
        size=64,
    )


@pytest.fixture(scope="session")
def model(tiny, tokenizer):
    import xray

    return xray.load(tiny, weights=None, tokenizer=tokenizer)


@pytest.fixture(scope="session")
def mini():
    """The miniature that ships, trained."""
    import xray

    return xray.load("mini", memory="fast")


@pytest.fixture(scope="session")
def spare(tiny):
    """Networks of the tiny model, for `loading.into`."""
    import numpy as np

    from xray.checkpoints import building

    return building.build(tiny, lambda shape: np.zeros(shape, np.float32))


@pytest.fixture(scope="session")
def saved(model, tmp_path_factory):
    """The tiny model's folder, which no test may change."""
    from xray.checkpoints import save

    folder = tmp_path_factory.mktemp("saved") / "tiny"
    save(model, folder, dtype="float32")
    return folder
