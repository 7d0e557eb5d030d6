"""Published weights, fetched into the cache and checked.

    fetch(published("sd-v1-4"))
    fetch(published("sd-v1-4"), source="/media/usb/weights")     # or the address of a mirror

A file grows as NAME.part, which the next fetch goes on with; once whole and of the right digest it
gets its name. So what has its name in the cache was complete when it came.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import xray
from xray.checkpoints import hub, registry
from xray.checkpoints.diffusers import FOLDERS
from xray.checkpoints.files import mistaken
from xray.checkpoints.registry import File, Published, cache
from xray.stats import format_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT)


def fetch(
    model: Published, source: str | Path | None = None, say: Callable[[str], Any] | None = None
) -> None:
    """Bring the files of a model that are missing here, or damaged, into the cache.

    Args:
        model: from `xray.checkpoints.registry`.
        source: in place of where they are published: a folder, or the address of one, that holds
            files of the same names.
        say: told, line by line, under what licence they are and what is being fetched; by default
            the error stream is.

    Raises:
        ConnectionError: a server cannot be reached, or refuses; names the address.
        ValueError: what came is not what was published.
        OSError: there is no room; or the cache cannot be written. What has come is kept.
        KeyboardInterrupt: as always; what has come is kept.

    Example:
        >>> fetch(published("sd-v1-4"), "~/.keras/datasets")
    """
    say = say or (lambda line: print(line, file=sys.stderr))
    folder = _folder(source)
    with _alone():
        for file in model.files.values():
            if file.present and digest(file.path) != file.sha256:
                say(f"{file.name} is here, but damaged: it is fetched again")
                file.path.unlink()
        missing = model.missing
        if missing:
            licence = model.licence
            say(f"{model.name}: {model.what}")
            say(f"Its weights are under the {licence.name} licence: {licence.url}")
            say(licence.summary)
            say("")
        there = [file for file in missing if folder is None or (folder / file.name).is_file()]
        for i, file in enumerate(there, 1):
            where = file.url if source is None else f"{str(source).rstrip('/')}/{file.name}"
            say(f"{i} of {len(there)}: {about(file)} from {where}")
            with _kept(file):
                _check_room(file)
                if folder is None:
                    _download(file, where)
                else:
                    _copy(file, folder / file.name)
            _accept(file, where)
    if model.missing:
        raise ValueError(
            f"{source} has no {' and no '.join(file.name for file in model.missing)}; without "
            "--from they are fetched from where they are published"
        )
    say(f"{model.name} is whole, in {cache()}")


def ensure(
    name: str,
    *,
    download: bool,
    parts: Sequence[str] = tuple(FOLDERS),
    variant: str | None = None,
) -> None:
    """Have the weights of a registered model, or of one of the Hub, here; or say how to get them.

    Args:
        name: as `xray.load` takes it.
        download: fetch what is missing; without it nothing is ever downloaded.
        parts, variant: of a model of the Hub, as `xray.checkpoints.hub.fetch`.

    Raises:
        ValueError: they are not here; says how large they are and how to fetch them.
        ConnectionError, OSError: as `fetch`.
    """
    model = registry.registered().get(name)
    if model is None and hub.is_id(name):
        if download:
            hub.fetch(name, parts, variant=variant)
        elif hub.cached(name) is None:
            raise ValueError(hub.about_missing(name))
    if model is None or not model.missing:
        return
    if not download:
        raise ValueError(registry.about_missing(model))
    fetch(model)


def verify(model: Published) -> dict[str, str]:
    """Read the files of a model and compare their digests.

    Returns:
        By name: ``"ok"``, ``"damaged"``, ``"absent"`` or, begun, ``"52 % fetched"``.
    """
    found = {}
    for file in model.files.values():
        if file.path.is_file():
            found[file.name] = "ok" if digest(file.path) == file.sha256 else "damaged"
        else:
            found[file.name] = f"{file.here / file.size:.0%} fetched" if file.here else "absent"
    return found


def remove(model: Published) -> list[File]:
    """Delete the files of a model, but not those that another whole model uses.

    Returns:
        What was deleted.
    """
    others = [m for m in registry.registered().values() if m.name != model.name and not m.missing]
    shared = {file.name for other in others for file in other.files.values()}
    removed = []
    with _alone():
        for file in model.files.values():
            found = [path for path in (file.path, file.part) if path.exists()]
            if found and file.name not in shared:
                removed.append(file)
                for path in found:
                    path.unlink()
    return removed


def digest(path: Path) -> str:
    """The sha256 of a file; shows how far it is, on a terminal."""
    with _watched(path, f"checking {path.name}") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def about(thing: File | Published) -> str:
    """A file's name, or a model's, with its size: ``kcv_encoder.h5 (492 MB)``."""
    exact = thing.exact if isinstance(thing, Published) else thing.bytes is not None
    return f"{thing.name} ({'' if exact else 'about '}{format_bytes(thing.size)})"


# ------------------------------------------------------------------------------------- one file


def _folder(source: str | Path | None) -> Path | None:
    """The local folder to copy from, or None where there is an address."""
    if source is None or str(source).startswith(("http://", "https://")):
        return None
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{source} is neither a folder nor an address (https://…)")
    return folder


def _check_room(file: File) -> None:
    if file.bytes is not None and file.here > file.bytes:
        file.part.unlink()  # of another file, since this one is smaller
    needed, free = file.size - file.here, shutil.disk_usage(cache()).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{format_bytes(needed)} to come, {format_bytes(free)} free")


def _download(file: File, url: str) -> None:
    """Go on with the part that is here, over HTTP."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    headers = {
        "User-Agent": f"diffusion-xray/{xray.__version__}",
        "Accept-Encoding": "identity",  # so that positions in the part are those on the server
    }
    try:
        with file.part.open("ab") as part:
            http_get(
                url,
                part,
                resume_size=part.tell(),
                headers=headers,
                expected_size=file.bytes,
                displayed_filename=file.name,
            )
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 416:  # nothing after what is here: it was whole
            return
        raise ConnectionError(
            f"{url}: the server answers {status}, {error.response.reason_phrase}; if it is not "
            f"there any more, give another place that has {file.name} with --from"
        ) from error
    except OSError as error:
        if error.errno is not None or isinstance(error, ConnectionError):
            raise
        if page := mistaken(file.part):
            file.part.unlink()
            raise ConnectionError(f"{url}: what came {page}") from error
        raise ConnectionError(
            f"{url}: {format_bytes(file.part.stat().st_size)} came where {about(file)} was to; "
            "what has come is kept: fetch again to go on, or from another place with --from"
        ) from error
    except Exception as error:
        # httpx or httpx2, by the release of huggingface_hub.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise ConnectionError(
            f"{url} does not answer ({str(error) or type(error).__name__}); "
            "what has come is kept: fetch again to go on"
        ) from error


def _copy(file: File, path: Path) -> None:
    with _watched(path, f"copying {path.name}") as source, file.part.open("wb") as part:
        shutil.copyfileobj(source, part, 1 << 20)


def _accept(file: File, source: str) -> None:
    """Give the file its name, if it is what was published."""
    found = digest(file.part)
    if found != file.sha256:
        size = format_bytes(file.part.stat().st_size)
        file.part.unlink()
        raise ValueError(
            f"{source}: what came ({size}) is not what was published: its sha256 is "
            f"{found[:12]}…, the registry has {file.sha256[:12]}…. It is deleted; fetch again, or "
            "from another place with --from"
        )
    file.part.replace(file.path)


# ------------------------------------------------------------------------------------- around it


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody else changes the cache meanwhile."""
    from filelock import FileLock, Timeout

    cache().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache() / ".lock", timeout=0):
            yield
    except Timeout:
        raise OSError(f"{cache()} is in use: another fetch is under way") from None


@contextlib.contextmanager
def _kept(file: File) -> Iterator[None]:
    """Whatever ends it, what has come is kept, and the error says so."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"{_progress(file)} is kept: fetch again to go on")
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"no room for {about(file)} in {cache()}: {error.strerror}; {_progress(file)} is kept. "
            "Make room and fetch again, or set XRAY_CACHE to a folder on another disk"
        ) from error
    finally:
        if file.part.is_file() and not file.part.stat().st_size:
            file.part.unlink()


def _progress(file: File) -> str:
    return f"{format_bytes(file.here)} of {about(file)}"


@contextlib.contextmanager
def _watched(path: Path, label: str) -> Iterator[Any]:
    """A file open for reading, with a bar on the terminal's error stream."""
    from rich.console import Console
    from rich.progress import open as watched

    console = Console(stderr=True)
    with watched(
        path,
        "rb",
        description=label,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as file:
        yield file
