"""The frames of a film in a folder: what is there stays, whatever ends the run.

    frames = Frames("film/frames", {"prompt": ["a red star"], "steps": 25}, resume=True)
    for index in frames.missing(48):
        frames.keep(index, picture, latent=latent)     # 0007.png, and 0007.npz beside it
    frames.picture(7), frames.array(7, "latent")

Beside the frames stands ``settings.json``. Frames made with other settings are never mixed in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xray.whole import whole


class Frames:
    """A folder of numbered pictures with arrays beside them.

    Args:
        folder: made if it is not there.
        settings: all that the frames depend on, as JSON values.
        resume: take over the frames that are there, if they were made with the same settings.

    Raises:
        ValueError: to be resumed, and the frames there were made with other settings, which the
            message names, or nobody knows with which; or not to be resumed, and there are frames.
        OSError: the folder cannot be made or written to.
    """

    def __init__(
        self, folder: str | os.PathLike, settings: Mapping[str, Any], *, resume: bool = False
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))  # as they will be read
        path = self.folder / "settings.json"
        if path.exists():
            if not resume:
                raise ValueError(f"{self.folder} holds the frames of an earlier film")
            self._compare(_settings(path), settings)
        elif any(self.folder.glob("[0-9]*.png")):
            raise ValueError(
                f"{self.folder} holds pictures without the {path.name} that says how they were "
                "made; move them away, or take another folder"
            )
        text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
        with whole(path) as partial:
            partial.write_text(text, "utf-8")

    def missing(self, count: int) -> list[int]:
        """Which of the frames 0 … count − 1 are not there yet."""
        return [index for index in range(count) if not self._whole(index)]

    def keep(self, index: int, picture: Image.Image, **arrays: np.ndarray) -> None:
        """Put one frame there, whole or not at all.

        Raises:
            OSError: the disk is full, the folder is gone.
        """
        # The picture last: to whoever looks into the folder it stands for the frame.
        with whole(self.path(index).with_suffix(".npz")) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
        with whole(self.path(index)) as partial:
            picture.save(partial, "PNG")

    def picture(self, index: int) -> Image.Image:
        """One frame's picture.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with Image.open(self.path(index)) as file:
                return file.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise self._damaged(self.path(index), error) from error

    def array(self, index: int, name: str) -> np.ndarray:
        """One of the arrays that were kept with a frame.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path(index).with_suffix(".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                return file[name]
        except Exception as error:  # of many types, by the decoder that stumbles
            raise self._damaged(path, error) from error

    def path(self, index: int) -> Path:
        """Where a frame's picture is or will be."""
        return self.folder / f"{index:04d}.png"

    def _whole(self, index: int) -> bool:
        path = self.path(index)  # either file may have been removed because it was damaged
        return path.exists() and path.with_suffix(".npz").exists()

    def _damaged(self, path: Path, error: Exception) -> ValueError:
        return ValueError(f"{path} cannot be read ({error}); remove it, and it is made again")

    def _compare(self, there: Any, asked: dict[str, Any]) -> None:
        names = [*asked, *(name for name in there if name not in asked)]
        for name in names:
            if there.get(name) != asked.get(name):
                raise ValueError(
                    f"the frames in {self.folder} were made with {name} {there.get(name)!r}, not "
                    f"{asked.get(name)!r}; ask for the same, or take another folder"
                )


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is damaged: it holds no settings")
    return settings
