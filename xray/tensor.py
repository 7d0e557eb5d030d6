"""`DebugTensor`: an array that knows what it is and how to describe itself.

The lines one would type:

```python
latent = trace["sampler/latent"]                # DebugTensor sampler/latent (step 25, image 1, …
latent[1:] - latent[:-1]                        # by position, as in NumPy: 24 differences
latent.sel(step=12).image("rgb")                # PIL.Image
latent.normality()["ks"]                        # distance from pure noise
weights.word("star", occurrence=0).mean("head")
```
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.lib.mixins import NDArrayOperatorsMixin

from xray import card, pictures, positional, stats
from xray.pictures import fit_rgb_matrix

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import ArrayLike, DTypeLike

__all__ = ["DebugTensor", "fit_rgb_matrix"]

FORMAT = 1  # of what save() writes
Dim = str | Iterable[str] | None


class DebugTensor(NDArrayOperatorsMixin):
    """One `xarray.DataArray` with a read-only buffer, its origin, and ways to look at it.

    Operators and ufuncs work by *position*, as NumPy's do; xarray's would align labels, and
    `x[1:] - x[:-1]` would lose its answer. A coordinate is kept if no operand contradicts it.
    Operands must have the same dimensions in the same order (a DataArray counts as a
    DebugTensor); plain arrays and numbers broadcast, but may not enlarge the shape. Comparisons
    give DebugTensors of bool. Ufunc methods such as `np.add.reduce`, `np.matmul`, and functions
    such as `np.mean` or `np.concatenate` take a DebugTensor for the plain array it holds and
    return plain arrays.

    Args:
        values: the numbers, of any real type, or an `xarray.DataArray`, or a DebugTensor. An
            array is not copied: it must not be changed afterwards. Through the DebugTensor it
            cannot be.
        dims: a name for each dimension, such as `("step", "image", "y", "x", "channel")`.
        coords: coordinates as xarray takes them: `{"step": [0, 1]}`, or `{"word": ("token",
            ["", "red", "star"])}` for a second coordinate along a dimension.
        site: where it was observed, such as `"unet/mid/attn.0/cross/weights"`.
        model: the name of the model that made it.
        prompt: the prompt it was made with; a list for a batch.
        rgb_matrix: float (channel + 1, 3), the model's own matrix for `image("rgb")`.

    Raises:
        TypeError: if the values are complex, text, objects, or bfloat16.
        ValueError: if `dims` does not fit the shape.

    Example:

    ```python
    t = DebugTensor(np.zeros((2, 8, 8, 4), np.float32), ("step", "y", "x", "channel"))
    t.sel(step=1)   # needs the coordinate "step"
    t.isel(step=1)  # does not
    ```
    """

    __slots__ = ("_array",)

    def __init__(
        self,
        values: ArrayLike | xr.DataArray | DebugTensor,
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        *,
        site: str = "",
        model: str = "",
        prompt: str | list[str] = "",
        rgb_matrix: ArrayLike | None = None,
    ) -> None:
        if isinstance(values, DebugTensor):
            values = values._array
        if isinstance(values, xr.DataArray):
            if dims is not None or coords is not None:
                raise ValueError("a DataArray brings its own dims and coords: leave them out")
            array = values.copy(deep=False, data=positional.read_only(values.values))
        else:
            data = positional.read_only(values)
            dims = (dims,) if isinstance(dims, str) else tuple(dims or ())
            if len(dims) != data.ndim or len(set(dims)) != len(dims):
                raise ValueError(
                    f"dims must name each dimension of the shape {data.shape} once, not {dims}"
                )
            array = xr.DataArray(data, dims=dims, coords=coords)
        if rgb_matrix is not None:
            rgb_matrix = np.asarray(rgb_matrix, np.float32).tolist()  # lists: attributes are JSON
        given = {"site": site, "model": model, "prompt": prompt, "rgb_matrix": rgb_matrix}
        array.attrs.update({name: value for name, value in given.items() if value})
        self._array = array

    # ------------------------------------------------------------------------------- what it is

    @property
    def values(self) -> np.ndarray:
        """The numbers, as a read-only array (not a copy)."""
        return self._array.values

    @property
    def dims(self) -> tuple[str, ...]:
        return self._array.dims

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    @property
    def coords(self) -> Mapping[str, xr.DataArray]:
        """Coordinates by name, with those a selection has left as single labels."""
        return self.to_xarray().coords

    @property
    def site(self) -> str:
        return self._array.attrs.get("site", "")

    @property
    def model(self) -> str:
        return self._array.attrs.get("model", "")

    @property
    def prompt(self) -> str | list[str]:
        return self._array.attrs.get("prompt", "")

    @property
    def rgb_matrix(self) -> np.ndarray | None:
        """float32 (channel + 1, 3), the model's matrix from latents to colours, if known."""
        matrix = self._array.attrs.get("rgb_matrix")
        return None if matrix is None else np.asarray(matrix, np.float32)

    # ------------------------------------------------------------------------------- as an array

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if dtype is None and not copy:
            return self.values
        return np.array(self.values, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out", ())
        if any(isinstance(each, DebugTensor) for each in out):
            raise TypeError("a DebugTensor is read-only: write x = x + y instead of x += y")
        inputs = [DebugTensor(each) if isinstance(each, xr.DataArray) else each for each in inputs]
        if any(_has_ufuncs_of_its_own(each) for each in inputs):
            return NotImplemented
        operands = [each._array for each in inputs if isinstance(each, DebugTensor)]
        elementwise = method == "__call__" and ufunc.signature is None
        if elementwise:
            positional.check_dims(ufunc.__name__, operands)
            if not out:
                positional.check_shapes(ufunc.__name__, operands, inputs)
        result = getattr(ufunc, method)(*_plain(inputs), **_plain(kwargs))
        if out or not elementwise:
            return result
        if isinstance(result, tuple):
            return tuple(DebugTensor(positional.combine(each, operands)) for each in result)
        return DebugTensor(positional.combine(result, operands))

    def __array_function__(
        self, function: Callable, types: Any, args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        # Without this, np.mean(x, axis=0) would call x.mean(axis=0), whose argument is `dim`.
        return function(*_plain(args), **_plain(kwargs))

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a single number has no length")
        return self.shape[0]

    def __getitem__(self, key: Any) -> DebugTensor:
        """By position, with integers, slices and `...`; dimensions and coordinates follow."""
        for part in key if isinstance(key, tuple) else (key,):
            integer = isinstance(part, int | np.integer) and not isinstance(part, bool)
            if not (integer or isinstance(part, slice) or part is ...):
                raise TypeError(
                    f"{part!r} is no position: index with integers, slices and '...', or use "
                    "isel(dim=[…]), sel(dim=label), mask(…), or .values"
                )
        return DebugTensor(self._array[key])

    def __iter__(self) -> Iterator[DebugTensor]:
        return (self[index] for index in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    # -------------------------------------------------------------------------------- selections

    def isel(self, **positions: int | slice | Sequence[int]) -> DebugTensor:
        """Select by position along named dimensions: `isel(step=-1, head=[0, 3])`."""
        self._check_dims(positions)
        return DebugTensor(self._array.isel(positions))

    def sel(self, **labels: Any) -> DebugTensor:
        """Select by label: `sel(step=12, branch="cond")`, `sel(word="star")`.

        Args:
            **labels: for a dimension with a coordinate, a label, a list of labels, or a slice
                between two labels, both included. For a second coordinate along a dimension
                (`word`, `timestep`), one label, which must occur exactly once.

        Raises:
            KeyError: if there is no such label; says which there are.
            ValueError: if there is no such coordinate, or a label occurs more than once.
        """
        array = self._array
        for name, label in labels.items():
            if name in array.indexes:
                try:
                    array = array.sel({name: label})
                except KeyError:
                    raise KeyError(self._no_such(name, label)) from None
            else:
                dim, position = self._position(name, label)
                array = array.isel({dim: position})
        return DebugTensor(array)

    def _position(self, name: str, label: Any) -> tuple[str, int]:
        """Where the one place labelled `label` is, along which dimension."""
        coords = self._array.coords  # whose get() makes one up for a dimension without
        if name in coords and coords[name].ndim > 1:
            raise ValueError(self._choose_first(name, coords[name].dims[:-1]))
        if name not in coords or coords[name].ndim != 1:
            hint = f"; isel({name}=position) needs none" if name in self.dims else ""
            raise ValueError(
                f"{self._name} has no coordinate {name!r} to select by (it has "
                f"{', '.join(coords) or 'none'}){hint}"
            )
        if np.ndim(label) or isinstance(label, slice):
            raise ValueError(
                f"{name} takes one label here, got {label!r}: only dimensions "
                f"({', '.join(self.dims)}) take several"
            )
        coord = coords[name]
        (found,) = np.nonzero(coord.values == label)
        if len(found) == 0:
            raise KeyError(self._no_such(name, label))
        if len(found) > 1:
            hint = "use .word(word, occurrence=…)" if name == "word" else "select by position"
            raise ValueError(
                f"{name} {label!r} occurs {len(found)} times in {self._name} "
                f"({coord.dims[0]} {_listed(found)}): {hint}"
            )
        return coord.dims[0], int(found[0])

    def word(self, word: str, occurrence: int | None = None) -> DebugTensor:
        """The part that belongs to one word of the prompt, its tokens summed.

        Where only some tokens were recorded (`xray.observe(tokens=…)`), those of them that were.

        Args:
            word: a word of the prompt, upper or lower case.
            occurrence: which one, from 0, if the prompt has the word more than once.

        Returns:
            the same without the dimension `token`, in float32 at least, with the word as the
            coordinate `word`.

        Raises:
            KeyError: if the prompt has no such word; says which it has.
            ValueError: if there are no words here, several occurrences to choose from, or other
                words for each branch or image: choose one with `sel` or `isel` first.

        Example:

        ```python
        weights = trace["unet/up.3/attn.1/cross/weights"].sel(branch="cond")
        weights.word("star").mean(("step", "head"))
        ```
        """
        labelled = self._array["word"].dims if "word" in self._array.coords else ()
        if not labelled:
            raise ValueError(
                f"{self._name} has no coordinate 'word' along its tokens (dims: "
                f"{', '.join(self.dims)}); cross-attention weights and text tensors have"
            )
        *others, dim = labelled
        if others:
            raise ValueError(self._choose_first("word", others))
        runs = self._runs(word.casefold())
        if not runs:
            raise KeyError(self._no_such("word", word))
        if occurrence is None and len(runs) > 1 or not 0 <= (occurrence or 0) < len(runs):
            where = "; ".join(f"occurrence={i}: {dim} {_listed(r)}" for i, r in enumerate(runs))
            chosen = "" if occurrence is None else f", so there is no occurrence {occurrence}"
            raise ValueError(
                f"the word {word!r} occurs {len(runs)} times{chosen}. Choose one: {where}"
            )
        tokens = self._array.isel({dim: runs[occurrence or 0]})
        # A plain sum: an attention weight that is NaN is a fault that must stay visible.
        summed = tokens.sum(dim, dtype=np.float64, skipna=False, keep_attrs=True)
        summed = summed.astype(_float_type(self.dtype)).assign_coords(word=word)
        return DebugTensor(summed)

    def _choose_first(self, name: str, dims: Sequence[str]) -> str:
        how = {"branch": ".sel(branch='cond')", "image": ".isel(image=0)"}
        choose = "".join(how.get(dim, f".isel({dim}=0)") for dim in dims)
        return (
            f"{self._name} has another {name} for each {' and '.join(dims)}: choose first, "
            f"as by {choose}"
        )

    def _runs(self, word: str) -> list[list[int]]:
        """Positions of each occurrence: adjacent tokens of the same word in the same place."""
        words = [str(each).casefold() for each in self._array["word"].values]
        index = self._array.coords.get("word_index")
        places = [0] * len(words) if index is None else index.values.tolist()
        tokens = zip(words, places, range(len(words)), strict=True)
        grouped = itertools.groupby(tokens, key=lambda token: token[:2])
        return [[token[2] for token in run] for (text, _), run in grouped if text == word]

    def tile(self, origin: tuple[int, int], size: tuple[int, int]) -> DebugTensor:
        """Cut out a rectangle: `origin` (y, x) is its first pixel, `size` (height, width)."""
        self._check_dims(("y", "x"))
        cut = {}
        for dim, start, length in zip(("y", "x"), origin, size, strict=True):
            have = self._array.sizes[dim]
            if start < 0 or length < 1 or start + length > have:
                raise ValueError(
                    f"a tile from {dim}={start} of {length} pixels does not lie within 0…{have}"
                )
            cut[dim] = slice(start, start + length)
        return self.isel(**cut)

    def mask(self, mask: ArrayLike) -> DebugTensor:
        """Put NaN outside a region; statistics leave NaN out.

        Args:
            mask: bool (y, x), true inside. Each side may be a whole multiple of the tensor's
                (a place is inside if at least half of its block is) or the tensor's a multiple
                of it (every place is repeated).

        Raises:
            TypeError: if the tensor is not of a float type, or the mask not of bool.
            ValueError: if the sizes do not fit.
        """
        self._check_dims(("y", "x"))
        mask = np.asarray(mask.transpose("y", "x") if isinstance(mask, DebugTensor) else mask)
        if self.dtype.kind != "f":
            raise TypeError(f"{self.dtype} has no NaN to put outside the mask: use x * 1.0 first")
        if mask.dtype != bool or mask.ndim != 2:
            raise TypeError(f"expected a bool mask (y, x), got {mask.dtype} {mask.shape}")
        inside = pictures.resize_mask(mask, (self._array.sizes["y"], self._array.sizes["x"]))
        inside = inside if self.dims.index("y") < self.dims.index("x") else inside.T
        shape = [size if dim in ("y", "x") else 1 for dim, size in self._array.sizes.items()]
        nan = np.array(np.nan, self.dtype)
        return self._with(np.where(inside.reshape(shape), self.values, nan))

    def transpose(self, *dims: str) -> DebugTensor:
        """Reorder dimensions by name; `...` stands for those not named."""
        return DebugTensor(self._array.transpose(*dims))

    # -------------------------------------------------------------------------------- statistics

    def mean(self, dim: Dim = None) -> DebugTensor | float:
        """Mean along the named dimensions, or of everything; NaN is left out.

        Args:
            dim: a name, several, or None for all.

        Returns:
            a float if nothing is left of the dimensions, else a DebugTensor. Computed in float64,
            float32 at least in the result. The same goes for `std` (of the population), `sum`,
            `min`, `max`, and `norm` (Euclidean).
        """
        return self._reduce(stats.mean, dim)

    def std(self, dim: Dim = None) -> DebugTensor | float:
        """Population standard deviation; see `mean`."""
        return self._reduce(stats.std, dim)

    def sum(self, dim: Dim = None) -> DebugTensor | float:
        """Sum; see `mean`."""
        return self._reduce(stats.total, dim)

    def min(self, dim: Dim = None) -> DebugTensor | float:
        """Smallest value; see `mean`."""
        return self._reduce(stats.minimum, dim)

    def max(self, dim: Dim = None) -> DebugTensor | float:
        """Largest value; see `mean`."""
        return self._reduce(stats.maximum, dim)

    def norm(self, dim: Dim = None) -> DebugTensor | float:
        """Euclidean norm, the square root of the sum of squares; see `mean`."""
        return self._reduce(stats.norm, dim)

    def _reduce(self, function: Callable, dim: Dim) -> DebugTensor | float:
        dims = self.dims if dim is None else (dim,) if isinstance(dim, str) else tuple(dim)
        self._check_dims(dims)
        if set(dims) == set(self.dims):
            return float(function(self.values))
        array = self._array.reduce(function, dims, keep_attrs=True)
        return DebugTensor(array.astype(_float_type(self.dtype)))

    def describe(self) -> dict[str, Any]:
        """Everything at a glance: what it is, range, moments, NaN and infinities, `normality`.

        Returns:
            `site`, `dims`, `shape`, `dtype`, `nbytes`; `min`, `max`, `mean`, `std` of the finite
            values; the counts `nan` and `inf`; and `normality`, see there. Made of plain Python
            values.
        """
        return {
            "site": self.site,
            "dims": self.dims,
            "shape": self.shape,
            "dtype": str(self.dtype),
            **stats.summary(self.values),
            "nbytes": self.nbytes,
            "normality": self.normality(),
        }

    def histogram(
        self, bins: int = 50, range: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(counts, edges)` of the finite values, as `numpy.histogram` gives them."""
        return stats.histogram(self.values, bins, range)

    def normality(self) -> dict[str, float]:
        """Distance of the finite values from a standard normal sample.

        Returns:
            `mean`, `std`, `skewness`, excess `kurtosis`, and `ks`, the Kolmogorov–Smirnov
            distance sup|F_n − Φ| between the sample's distribution and N(0, 1). A sample of n
            from N(0, 1) stays below 1.36 / √n nineteen times in twenty.
        """
        return stats.normality(self.values)

    def diff(self, other: DebugTensor | ArrayLike) -> dict[str, float | bool]:
        """Distance from `other`, the reference, by position.

        Returns:
            `max_abs` max|a−b|; `rms` of a−b; `relative_rms` rms(a−b) / rms(b); `max_over_std`
            max|a−b| / std(b); `cosine`; and `equal`, whether type and bits agree (NaN equals
            NaN). Places that are NaN in both are left out; NaN in one only makes the distances
            NaN.

        Raises:
            ValueError: if dimensions or shapes differ.
        """
        return stats.difference(self.values, self._matched("diff", other))

    def cosine(self, other: DebugTensor | ArrayLike, dim: Dim = None) -> DebugTensor | float:
        """Cosine of the angle between two tensors, along `dim` or over everything.

        Places that are NaN in both are left out; NaN where either is all zero.

        Raises:
            ValueError: if dimensions or shapes differ.
        """
        values = self._matched("cosine", other)
        operands = [each._array for each in (self, other) if isinstance(each, DebugTensor)]

        def function(own: np.ndarray, axis: stats.Axis = None) -> np.ndarray:
            return stats.cosine(own, values, axis)

        return DebugTensor(positional.combine(self.values, operands))._reduce(function, dim)

    def _matched(self, name: str, other: DebugTensor | ArrayLike) -> np.ndarray:
        """The values of `other`, which must have the same dimensions and shape."""
        if isinstance(other, DebugTensor):
            positional.check_dims(name, [self._array, other._array])
        values = np.asarray(other)
        if values.shape != self.shape:
            raise ValueError(f"{name} of two shapes, {self.shape} and {values.shape}")
        return values

    # ----------------------------------------------------------------------------- to look at it

    def image(
        self, kind: str = "rgb", *, scale: int | None = None, matrix: ArrayLike | None = None
    ) -> PIL.Image.Image:
        """Draw the tensor, pixel by pixel.

        Dimensions other than `y`, `x` and `channel` become pictures side by side: the last of
        them across, the others down; those of size 1 do not count.

        Args:
            kind: `"rgb"`, latents through the model's matrix, or three channels as the colours
                they are; `"pca"`, the first three principal components over all positions;
                `"channels"`, a grey map for each channel, all on one scale: symmetric with 0 as
                mid grey, or from 0 (black) to the largest if nothing is negative (see
                `xray.pictures.grey`). NaN is magenta.
            scale: pixels to draw a pixel with; None enlarges the picture until its shorter side
                is 128.
            matrix: float (channel + 1, 3), instead of the model's own; see `fit_rgb_matrix`.

        Raises:
            ValueError: if there is no `y` and `x` (or `channel`, to colour by), no matrix, or
                too much to draw.

        Example:

        ```python
        trace["sampler/latent"].isel(step=slice(None, None, 5)).image("rgb")
        trace["unet/up.3/attn.1/out"].sel(step=3, branch="cond").image("pca", scale=4)
        ```
        """
        if kind not in ("rgb", "pca", "channels"):
            raise ValueError(f"no kind of image {kind!r}: choose 'rgb', 'pca' or 'channels'")
        last = ("y", "x", "channel") if "channel" in self.dims or kind != "channels" else ("y", "x")
        self._check_dims(last, f" to draw as {kind!r}")
        if self.size == 0:
            raise ValueError(f"{self._name} of shape {self.shape} has nothing to draw")
        outer = [dim for dim, size in self._array.sizes.items() if dim not in last and size > 1]
        single = {dim: 0 for dim in self.dims if dim not in (*outer, *last)}
        values = self._array.isel(single).transpose(*outer, *last).values
        if kind == "rgb":
            colours = pictures.rgb(values, self._matrix_for(values.shape[-1], matrix))
        elif kind == "pca":
            colours = pictures.pca(values)
        else:
            colours = pictures.channels(values) if "channel" in last else pictures.grey(values)
        return pictures.enlarge(pictures.lay_out(colours), scale)

    def _matrix_for(self, channels: int, matrix: ArrayLike | None) -> np.ndarray | None:
        if matrix is None and channels == 3:
            return None
        own = self.rgb_matrix if matrix is None else np.asarray(matrix)
        if own is None:
            raise ValueError(
                f"{self._name} carries no rgb_matrix and none was given: pass matrix= (see "
                "fit_rgb_matrix), or draw 'pca' or 'channels'"
            )
        if own.shape != (channels + 1, 3):
            raise ValueError(
                f"{self._name} has {channels} channels, for which an rgb matrix has the shape "
                f"({channels + 1}, 3), not {own.shape}: draw 'pca' or 'channels', or pass matrix="
            )
        return own

    def __repr__(self) -> str:
        return card.one_line(self)

    def _repr_html_(self) -> str:
        return card.table(self)

    # ------------------------------------------------------------------------------ to and from

    def to_xarray(self) -> xr.DataArray:
        """The same as an `xarray.DataArray`, with the same read-only buffer."""
        return self._array.copy(deep=False)

    @classmethod
    def from_xarray(cls, array: xr.DataArray) -> DebugTensor:
        """Wrap an `xarray.DataArray`; site, model and prompt come from its attributes."""
        return cls(array)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Zarr v3 store, whole or not at all, which `load` and `xarray.open_zarr` read.

        Args:
            path: a directory that does not exist yet, by custom `….zarr`.

        Raises:
            FileExistsError: if there is something already.
        """
        if os.path.lexists(path):
            raise FileExistsError(f"{os.fspath(path)} exists: choose another path, or remove it")
        # Zarr v3 has no fixed-length text; as objects the labels become its variable-length text.
        # How another store was encoded (chunks, fill values) need not suit what was cut from it.
        array = _with_text_as(object, self._array.drop_encoding())
        dataset = array.to_dataset(name="value").assign_attrs(xray_tensor=FORMAT)
        from xray.whole import whole

        with whole(path) as building, warnings.catch_warnings():
            # Consolidated metadata is an extension of Zarr v3, and zarr says so on every write.
            warnings.filterwarnings("ignore", "Consolidated metadata")
            # Without empty chunks, one that is all NaN or 0 could not be told from a lost one.
            dataset.to_zarr(
                building, mode="w-", zarr_format=3, consolidated=True, write_empty_chunks=True
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DebugTensor:
        """Read what `save` wrote, to the bit.

        Raises:
            FileNotFoundError: if there is nothing at `path`.
            ValueError: if it is no saved DebugTensor, damaged, or of a newer format.
        """
        name = os.fspath(path)
        if not os.path.exists(name):
            raise FileNotFoundError(f"nothing at {name}")
        try:
            with open(os.path.join(name, "zarr.json"), encoding="utf-8") as file:
                found = json.load(file)["attributes"]["xray_tensor"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} is not a saved DebugTensor") from error
        if found != FORMAT:
            raise ValueError(
                f"{name} has format {found}, and this version reads format {FORMAT}: "
                "upgrade diffusion-xray"
            )
        import zarr

        try:
            for part, chunked in zarr.open_group(name, mode="r").arrays():
                if lost := chunked.nchunks - chunked.nchunks_initialized:
                    raise ValueError(f"{lost} of {chunked.nchunks} chunks of {part} are missing")
            with xr.open_zarr(name) as dataset:
                array = dataset["value"].load()
        except Exception as error:  # zarr, its codecs and xarray each raise their own
            raise ValueError(f"{name} is damaged: {error}") from error
        return cls(_with_text_as(str, array))

    # ------------------------------------------------------------------------------------ inside

    @property
    def _name(self) -> str:
        return self.site or "this tensor"

    def _with(self, values: np.ndarray) -> DebugTensor:
        return DebugTensor(self._array.copy(deep=False, data=values))

    def _check_dims(self, dims: Iterable[str], purpose: str = "") -> None:
        missing = [dim for dim in dims if dim not in self.dims]
        if missing:
            raise ValueError(
                f"{self._name} has no dimension {', '.join(map(repr, missing))}{purpose}; "
                f"it has {', '.join(self.dims) or 'none'}"
            )

    def _no_such(self, name: str, label: Any) -> str:
        labels = dict.fromkeys(self._array[name].values.tolist())
        return f"no {name} {label!r} in {self._name}; there are {_listed(labels)}"


def _float_type(dtype: np.dtype) -> np.dtype:
    """float32 for float16 and float32, float64 for the rest: integers stay exact."""
    return np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.dtype(np.float64)


def _plain(value: Any) -> Any:
    """Every DebugTensor in `value` replaced by its array, inside lists, tuples and dicts too."""
    if isinstance(value, DebugTensor):
        return value.values
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _has_ufuncs_of_its_own(value: Any) -> bool:
    known = isinstance(value, DebugTensor | np.ndarray | np.generic)
    return not known and hasattr(value, "__array_ufunc__")


def _with_text_as(dtype: type, array: xr.DataArray) -> xr.DataArray:
    """The same with every coordinate of text converted."""
    text = {
        name: (coord.dims, np.array(coord.values.tolist(), dtype))
        for name, coord in array.coords.items()
        if coord.dtype.kind in "UTO"
    }
    return array.assign_coords(text)


def _listed(labels: Iterable[Any], most: int = 12) -> str:
    labels = [str(each) for each in labels]
    return ", ".join(labels[:most]) + (", …" if len(labels) > most else "")
