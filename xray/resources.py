"""Where the shipped weights and scripts are: in a wheel, an editable install or a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The folder `name` (``"weights"`` or ``"experiments"``) that came with this package.

    In a wheel it lies inside the package, in a checkout beside it.

    Raises:
        FileNotFoundError: it is in neither place, so the installation is not whole.
    """
    for place in (_PACKAGE / "shipped" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"the folder {name!r} is neither in {_PACKAGE / 'shipped'} nor beside {_PACKAGE}: "
        "the installation is not whole; reinstall diffusion-xray"
    )
