"""Arithmetic of `xarray.DataArray` by position: what may be combined, and what the result is.

xarray aligns labels first: of `x[1:] - x[:-1]` it keeps the steps both have, and subtracts each
from itself. Here operands meet as NumPy's do, and labels that then disagree are dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

ATTRIBUTES = ("site", "model", "prompt", "rgb_matrix")


def read_only(values: ArrayLike) -> np.ndarray:
    """A view of `values` that cannot be written through.

    Raises:
        TypeError: if they are not real numbers that NumPy knows itself.
    """
    view = np.asarray(values).view()
    if view.dtype.kind not in "biuf":
        raise TypeError(
            f"a DebugTensor holds real numbers, not {view.dtype}: convert them first "
            "(bfloat16 to float32, complex to its parts)"
        )
    view.flags.writeable = False
    return view


def check_dims(name: str, operands: Sequence[xr.DataArray]) -> None:
    """All must have the same dimensions in the same order, or it is a ValueError."""
    for each in operands[1:]:
        if each.dims != operands[0].dims:
            raise ValueError(
                f"{name} of tensors with the dimensions {operands[0].dims} and {each.dims}: select "
                "or transpose one to fit, or pass its .values to broadcast as NumPy does"
            )


def check_shapes(name: str, operands: Sequence[xr.DataArray], inputs: Iterable[Any]) -> None:
    """All `inputs` must fit into the shape the labelled ones make, whose dims name the result."""
    shapes = [np.shape(each) for each in inputs]
    try:
        shape = np.broadcast_shapes(*(each.shape for each in operands))
        fits = np.broadcast_shapes(shape, *shapes) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} of shapes {' and '.join(map(str, shapes))}: by position they do not fit into "
            f"the dimensions {operands[0].dims}"
        )


def combine(values: ArrayLike, operands: Sequence[xr.DataArray]) -> xr.DataArray:
    """A result of `operands`, with every coordinate and attribute that none contradicts."""
    values, dims = np.asarray(values), operands[0].dims
    sizes = dict(zip(dims, values.shape, strict=True))
    coords = {}
    for name in dict.fromkeys(itertools.chain(*(each.coords for each in operands))):
        first, *others = (each.coords[name].variable for each in operands if name in each.coords)
        fits = all(sizes[dim] == size for dim, size in first.sizes.items())
        if fits and all(first.equals(other) for other in others):
            coords[name] = first
    attrs = {}
    for name in ATTRIBUTES:
        found = [each.attrs[name] for each in operands if name in each.attrs]
        if found and all(np.array_equal(found[0], other) for other in found[1:]):
            attrs[name] = found[0]
    return xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)
