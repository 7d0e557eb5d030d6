"""Models by their names on the Hugging Face Hub, in the cache that diffusers keeps there too.

    fetch("stabilityai/sd-vae-ft-ema")             # only if asked to: what else is here is local
    cached("stabilityai/sd-vae-ft-ema")            # its folder; None if it was never fetched

Configurations, vocabularies and safetensors are fetched: no pickles, and no code.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xray.checkpoints.diffusers import FOLDERS, INDEX, STEMS

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_id(name: Any) -> bool:
    """Whether a name can be one of the Hub's, ``owner/model``, and is not a path that exists."""
    return bool(_ID.fullmatch(str(name))) and not Path(name).exists()


def cached(name: Any) -> Path | None:
    """The folder of a model that has been fetched, by this package or by diffusers.

    What a folder holds are links to files beside it; parts of the model may be lacking.
    """
    if not is_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError):
        for file in (INDEX, "config.json"):
            found = try_to_load_from_cache(str(name), file)
            if isinstance(found, str):
                return Path(found).parent
    return None


def about_missing(name: Any) -> str:
    """What to tell who asks for a model of which nothing is on this machine."""
    return (
        f"{str(name)!r} is no path that exists, and of a model of that name on the Hugging Face "
        f"Hub nothing is on this machine. Fetch it with xray.load({str(name)!r}, download=True) or "
        "with an experiment's --download"
    )


def fetch(
    name: str,
    parts: Sequence[str] = tuple(FOLDERS),
    *,
    variant: str | None = None,
    say: Callable[[str], Any] | None = None,
) -> None:
    """Bring what is missing here of a model into the Hub's cache; its library resumes and checks.

    Args:
        name: ``owner/model``, a whole model or a single component.
        parts: of a whole model, the components that are wanted.
        variant: of the weights, such as ``"fp16"``; by default those without.
        say: told where from; by default the error stream is.

    Raises:
        ConnectionError: the Hub cannot be reached, or has no such model, or not for everyone.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    refused = HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    address = f"{constants.ENDPOINT}/{name}"
    say = say or (lambda line: print(line, file=sys.stderr))
    say(f"{name}: from {address}, which tells its licence, to {constants.HF_HUB_CACHE}")
    try:
        snapshot_download(name, allow_patterns=_wanted(parts, variant))
    except Exception as error:
        if not _lost_connection(error) and not isinstance(error, refused):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConnectionError(
            f"{address} cannot be fetched ({reason}); what has come is kept. Is the name right? "
            "Where its owner asks for consent, give it on that page, and then run hf auth login"
        ) from error


def _lost_connection(error: Exception) -> bool:
    # Those of httpx or httpx2, by the release of huggingface_hub. Files come in several threads;
    # where one finds no connection, the library closes the client that all of them share.
    return type(error).__module__.startswith("httpx") or "client has been closed" in str(error)


def _wanted(parts: Sequence[str], variant: str | None) -> list[str]:
    """Patterns of the files: of a whole model's folders, or of one component's."""
    dotted = f".{variant}" if variant else ""
    wanted = [INDEX, "config.json", "scheduler/*.json"]
    wanted += [f"tokenizer/*.{ending}" for ending in ("json", "txt")]
    for part in parts:
        for place in (f"{FOLDERS[part]}/", ""):
            wanted.append(f"{place}config.json")
            for stem in STEMS[part]:
                wanted.append(f"{place}{stem}{dotted}.safetensors")
                wanted.append(f"{place}{stem}{dotted}-?????-of-?????.safetensors")
                wanted.append(f"{place}{stem}.safetensors.index{dotted}.json")
    return wanted
