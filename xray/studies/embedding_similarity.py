"""Which prompts are near: cosines, a dendrogram, three maps, neighbours; the difference of two.

Directions are compared, so that all vectors are brought to norm 1 first: their squared distance is
then 2 − 2 cosine, and maps, dendrogram and neighbours all speak of the same.

Of more prompts than can be looked at one by one, the heat map, the dendrogram and the MDS map have
the prompts nearest to the centres of as many clusters, t-SNE a sample; the rest has all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from xray import embeddings
from xray.batch import prompt_tokens
from xray.prompts import Prompts

if TYPE_CHECKING:
    from xray.generator import Generator

MOST_SHOWN = 60  # rows of the heat map
MOST_TSNE = 1000
FEWEST = 3
FOUND_GROUPS = 6  # clusters, where a file says nothing of groups


def compare(
    model: Generator,
    prompts: Prompts,
    kind: str = "pooled",
    *,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> xarray.Dataset:
    """How near the prompts are to each other.

    Args:
        model: with a tokenizer. Prompts that are too long for it are cut.
        prompts: at least three, of `xray.prompts.read`. Without groups, six are found by k-means.
        kind: of vector, ``"pooled"`` or ``"whole"``; see `xray.embeddings`.
        seed: of k-means, t-SNE and samples.
        tick: called once for each prompt that is embedded.

    Returns:
        ``vector`` (prompt, dimension); ``group``, ``cut`` (prompt); ``pca``, ``tsne``, ``mds``
        (prompt, axis), NaN where a map has not all; ``explained`` (axis), PCA's share of variance;
        ``nearest`` and ``nearest_cosine`` (prompt, rank); and of what is ``shown``, in the order
        of the dendrogram's leaves: ``cosine`` (shown, other), ``stands_for`` (shown), how many
        prompts each is the nearest of those shown, and ``join`` (merge, part), as
        `scipy.cluster.hierarchy.linkage` has it. Attributes: ``stress``, Kruskal's, of the MDS map;
        ``kind``; ``set``, the prompts' name; ``groups_given``, whether they are not found ones.

    Raises:
        ValueError: fewer than three prompts, or the model reads all of them the same; or as
            `xray.embeddings.vectors`.

    Reference:
        van der Maaten & Hinton 2008, "Visualizing Data using t-SNE"; Kruskal 1964,
        "Multidimensional scaling by optimizing goodness of fit".
    """
    enough(prompts)
    texts, count = prompts.texts, len(prompts.texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each prompt that is cut
        vectors = embeddings.vectors(model, texts, kind, truncate=True, tick=tick)
    room = model.architecture.text_length - 2
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if _alike(unit):
        raise ValueError(
            f"the model reads all {count} prompts of {prompts.name} the same, as {texts[0]!r}; "
            "give some that differ in more than case and spaces"
        )

    shown = representatives(unit, MOST_SHOWN, seed)
    order, join = dendrogram(unit[shown])
    shown = shown[order]
    cosine = unit[shown] @ unit[shown].T
    nearest, nearest_cosine = neighbours(unit, min(5, count - 1))
    closest = np.argmax(unit @ unit[shown].T, axis=1)
    pca, explained = pca_map(unit)
    mds, stress = mds_map(unit[shown], pca[shown])
    given = bool(prompts.groups)
    groups = prompts.groups if given else find_groups(unit, texts, seed)
    return xarray.Dataset(
        {
            "vector": (("prompt", "dimension"), vectors),
            "cut": ("prompt", [len(model.tokenizer.encode(text)) > room for text in texts]),
            "pca": (("prompt", "axis"), pca),
            "explained": ("axis", explained),
            "tsne": (("prompt", "axis"), tsne_map(unit, seed)),
            "mds": (("prompt", "axis"), _spread(mds, shown, count)),
            "nearest": (("prompt", "rank"), nearest),
            "nearest_cosine": (("prompt", "rank"), nearest_cosine),
            "cosine": (("shown", "other"), cosine),
            "stands_for": ("shown", np.bincount(closest, minlength=len(shown))),
            "join": (("merge", "part"), join),
        },
        coords={
            "prompt": texts,
            "group": ("prompt", groups),
            "shown": shown,
            "other": shown,
        },
        attrs={"stress": stress, "kind": kind, "set": prompts.name, "groups_given": given},
    )


def enough(prompts: Prompts) -> None:
    """Refuse fewer than three prompts."""
    if (count := len(prompts.texts)) < FEWEST:
        raise ValueError(f"{prompts.name} has {count} prompts; a map needs at least {FEWEST}")


# ----------------------------------------------------------------------- of vectors of norm 1


def representatives(unit: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Positions of at most `most` vectors that stand for all: those nearest to k-means' centres."""
    if len(unit) <= most:
        return np.arange(len(unit))
    from sklearn.cluster import MiniBatchKMeans

    made = MiniBatchKMeans(most, random_state=seed, n_init=3).fit(unit)
    return np.unique(np.argmax(made.cluster_centers_ @ unit.T, axis=1))


def find_groups(unit: np.ndarray, texts: Sequence[str], seed: int = 0) -> list[str]:
    """A group for each vector by k-means, called as the prompt nearest to its centre."""
    if len(unit) < 3 * FOUND_GROUPS:
        return ["all"] * len(unit)
    from sklearn.cluster import KMeans

    made = KMeans(FOUND_GROUPS, random_state=seed, n_init=3).fit(unit)
    names = [texts[i] for i in np.argmax(made.cluster_centers_ @ unit.T, axis=1)]
    return [names[label] for label in made.labels_]


def dendrogram(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average linkage of cosine distances.

    Returns:
        The order in which neighbours are alike, and SciPy's linkage matrix of the vectors in it.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import pdist

    join = linkage(pdist(unit, "cosine").clip(0), "average", optimal_ordering=True)
    order = leaves_list(join)
    place = np.append(np.argsort(order), np.arange(len(unit), 2 * len(unit)))
    join[:, :2] = place[join[:, :2].astype(int)]
    return order, join


def pca_map(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, 2), and the share of the variance along each axis."""
    from sklearn.decomposition import PCA

    made = PCA(2, svd_solver="full" if len(unit) < 500 else "randomized", random_state=0)
    return made.fit_transform(unit), made.explained_variance_ratio_


def tsne_map(unit: np.ndarray, seed: int = 0) -> np.ndarray:
    """(prompt, 2) of all or, beyond `MOST_TSNE`, a sample; NaN for the others."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count = len(unit)
    chosen = np.arange(count)
    if count > MOST_TSNE:
        chosen = np.sort(np.random.default_rng(seed).choice(count, MOST_TSNE, replace=False))
    if _alike(unit[chosen]):  # scikit-learn would divide by how far they spread
        return _spread(np.zeros((len(chosen), 2)), chosen, count)
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    # Threads that wait for each other a thousand times cost more than they bring.
    with threadpool_limits(1, "openmp"):
        return _spread(made.fit_transform(unit[chosen]), chosen, count)


def mds_map(unit: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """(prompt, 2) whose distances are as near to the real ones as can be, and Kruskal's stress.

    Args:
        unit: (prompt, dimension).
        start: (prompt, 2) to begin with.
    """
    from scipy.spatial.distance import pdist, squareform
    from sklearn.manifold import smacof

    real = pdist(unit)
    made, _ = smacof(squareform(real), init=start, n_init=1, normalized_stress=False, eps=1e-9)
    return made, float(np.sqrt(np.sum((pdist(made) - real) ** 2) / (np.sum(real**2) or 1)))


def neighbours(unit: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest others of each: positions and cosines, nearest first."""
    found = np.empty((len(unit), count), np.int64)
    cosines = np.empty((len(unit), count), np.float32)
    for start in range(0, len(unit), 1024):
        block = unit[start : start + 1024] @ unit.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        near = np.argpartition(-block, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(near, np.argsort(-block[rows[:, None], near], axis=1), axis=1)
        found[start : start + len(block)] = near
        cosines[start : start + len(block)] = block[rows[:, None], near]
    return found, cosines


def _alike(unit: np.ndarray) -> bool:
    """Whether all are one vector, but for the last bits that batches differ in."""
    return bool(np.abs(unit - unit[0]).max() < 1e-6)


def _spread(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    spread = np.full((count, values.shape[1]), np.nan)
    spread[places] = values
    return spread


# ------------------------------------------------------------------------------------- told


def by_group(data: xarray.Dataset) -> list[dict]:
    """For each group: ``prompts``, the mean cosines ``within`` it and to all ``others``, and
    ``own_nearest``, the share of its prompts whose nearest neighbour is of it."""
    unit = data["vector"].values.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    groups, total = data["group"].values, unit.sum(axis=0)
    rows = []
    for name in dict.fromkeys(groups.tolist()):
        inside = groups == name
        count, own = int(inside.sum()), unit[inside].sum(axis=0)
        others = len(unit) - count
        near = groups[data["nearest"].values[inside, 0]] == name
        rows.append(
            {
                "group": name,
                "prompts": count,
                # |Σu|² has every pair twice, and each vector with itself.
                "within": (own @ own - count) / (count * (count - 1)) if count > 1 else None,
                "others": own @ (total - own) / (count * others) if others else None,
                "own_nearest": float(near.mean()) if count > 1 else None,
            }
        )
    return rows


def neighbour_table(data: xarray.Dataset) -> tuple[list[str], list[list]]:
    """Header and rows: for each prompt its nearest others."""
    texts, found = data["prompt"].values, data["nearest_cosine"].values
    rows = [
        [str(texts[i]), rank + 1, str(texts[j]), float(found[i, rank])]
        for i, near in enumerate(data["nearest"].values)
        for rank, j in enumerate(near)
    ]
    return ["prompt", "rank", "neighbour", "cosine"], rows


def difference(model: Generator, first: str, second: str) -> xarray.Dataset:
    """What one prompt's embedding has more than another's: ``difference`` (token, channel).

    With ``word`` and ``other_word`` (token), the words that stand there. Prompts that are too long
    are cut, with a warning.
    """
    rows = [prompt_tokens(model, text, truncate=True) for text in (first, second)]
    states = model.text(np.array([[token.id for token in row] for row in rows], np.int32))
    words = [[token.word for token in row] for row in rows]
    return xarray.Dataset(
        {"difference": (("token", "channel"), states[0] - states[1])},
        coords={"word": ("token", words[0]), "other_word": ("token", words[1])},
        attrs={"first": first, "second": second},
    )
