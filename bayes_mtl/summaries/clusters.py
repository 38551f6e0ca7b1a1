"""Which tasks are in one cluster: answers that do not depend on how clusters are numbered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import schema_of, spec_of
from bayes_mtl.inference.components import draw_labels
from bayes_mtl.inference.deviations import cluster_weights
from bayes_mtl.structures import Clusters
from bayes_mtl.summaries.correlation import interval_probability

_STABLE = 0.9  # adjusted Rand index
_CHUNK = 2**22  # memberships at a time


def clusters(idata: xr.DataTree, *, ci_prob: float | None = None) -> xr.Dataset:
    """Summarise which tasks are in one cluster.

    Parameters
    ----------
    idata : DataTree
        A fit with `Clusters` or `DirichletProcess`.
    ci_prob : float, optional
        Probability of the intervals; default ArviZ's ``stats.ci_prob``.

    Returns
    -------
    Dataset
        ``co_clustering`` (task, task_bis): the probability that two tasks are in one cluster.
        ``co_clustering_range`` (task, task_bis): how far chains differ in it; large where chains found
        different clusters. ``partition`` (task): one division into clusters, numbered by their first task,
        that minimises the expected number of pairs put wrongly together or apart (Binder's loss); never of
        more clusters than the description has.
        ``certainty`` (task): the probability that the task is with another of its cluster, on average (of
        being alone, for a cluster of one). ``n_clusters`` (count): probability of the number of clusters in
        use. ``with_new_task`` (task): the probability that a new task is in the cluster of this one.
        ``coefficient`` (kind, feature): the average of the coefficients of the tasks that the partition puts
        together, with ``coefficient_lower``, ``coefficient_upper``.
        Of clusters with `gating`, where a new task falls depends on what is known of it (`predict`), and
        there is ``co_clustering_by_gating`` (task, task_bis) instead: what `gating` says by itself; and
        ``known`` (kind, gate), the average of its columns. Attributes ``words`` and ``agreement`` say
        whether chains found the same division (adjusted Rand index of theirs, 1 if they did).

    Raises
    ------
    SpecError
        If the fit has no clusters.

    References
    ----------
    Binder (1978), Biometrika 65; Dahl (2006), in Bayesian Inference for Gene Expression and Proteomics.

    Examples
    --------
    >>> mtl.clusters(idata)["partition"].to_series()  # doctest: +SKIP
    """
    structure = spec_of(idata).task_covariance
    posterior = idata["posterior"].to_dataset()
    if "cluster_mean" not in posterior:
        name = type(structure).__name__
        hint = "Use Clusters or DirichletProcess; or group tasks by their correlation"
        raise SpecError(Finding("clusters", f"are not part of this fit, whose structure is {name}", hint))
    member = posterior["cluster_probability"].transpose("chain", "draw", "task", "cluster").to_numpy()
    (n_chains, _, n_tasks, most), of_chains = member.shape, []
    same, least, largest = (np.full((n_tasks, n_tasks), start) for start in (0.0, np.inf, -np.inf))
    for chain in member:
        found = _together(chain)
        of_chains.append(point_partition(found, most))
        same += found / n_chains
        np.minimum(least, found, out=least)
        np.maximum(largest, found, out=largest)
    partition = point_partition(same, most)
    agreement, words = _stability(of_chains, partition)
    rng = np.random.default_rng(0)
    used = np.array([len(np.unique(row)) for some in _pieces(member) for row in draw_labels(some, rng)])
    counts = np.arange(1, member.shape[3] + 1)
    tasks = posterior["task"].to_numpy()
    square = ("task", "task_bis")
    of_weights: dict[str, Any]
    if isinstance(structure, Clusters) and structure.gating is not None:
        labels_of_tasks = tasks.tolist()
        before = cluster_weights(structure, posterior, labels_of_tasks)
        of_weights = {"co_clustering_by_gating": (square, _together(before.reshape(-1, *before.shape[2:])))}
        known = dict(structure.gating)
        columns = np.array([known[task] for task in labels_of_tasks])
        of_weights["known"] = (("kind", "gate"), _by_kind(columns, partition))
    else:
        weight = posterior["cluster_weight"].transpose("chain", "draw", "cluster").to_numpy()
        with_new = np.einsum("cdtk,cdk->t", member, weight) / weight[..., 0].size
        of_weights = {"with_new_task": ("task", with_new)}
    return xr.Dataset(
        {
            "co_clustering": (square, same),
            "co_clustering_range": (square, largest - least),
            "partition": ("task", partition),
            "certainty": ("task", _certainty(same, partition)),
            "n_clusters": ("count", np.array([(used == c).mean() for c in counts])),
            **of_weights,
            **_coefficients(posterior, partition, interval_probability(ci_prob)),
        },
        coords={
            "task": tasks,
            "task_bis": tasks,
            "count": counts,
            "kind": np.arange(1, partition.max() + 1),
            "feature": posterior["feature"].to_numpy(),
            **({"gate": posterior["gate"].to_numpy()} if "gate" in posterior else {}),
        },
        attrs={
            "task": schema_of(idata).task or "outcome",
            "structure": type(structure).__name__,
            "agreement": agreement,
            "words": words,
        },
    )


def point_partition(same: FloatArray, most: int | None = None) -> IntArray:
    """Return the division that minimises Binder's loss among the cuts of an average-linkage tree.

    Parameters
    ----------
    same : (T, T)
        Probability that two tasks are in one cluster.
    most : int, optional
        How many clusters there may be: more than the model has would describe doubt, not clusters.
    """
    n = len(same)
    if n == 1:
        return np.array([1])
    tree = linkage(squareform(np.clip(1.0 - same, 0.0, 1.0), checks=False), "average")
    # Joining two clusters at height h, the mean of 1 - P(together) over their pairs, adds 2 h - 1 to the
    # loss of each pair; heights rise, so all are joined up to 1/2.
    best = fcluster(tree, min(n - int((tree[:, 2] <= 0.5).sum()), most or n), criterion="maxclust")
    number = {label: i for i, label in enumerate(dict.fromkeys(best.tolist()), start=1)}
    return np.array([number[label] for label in best.tolist()])


def _stability(by_chain: Sequence[IntArray], partition: IntArray) -> tuple[float, str]:
    """Return how well the divisions of chains agree with each other, and say so if they do not.

    The measure is Rand's, adjusted for chance (Hubert & Arabie 1985, Journal of Classification 2): 1 if all
    are the same, around 0 if they have no more in common than chance would give them.
    """
    pairs = list(combinations(by_chain, 2))
    if not pairs:
        return float(
            "nan"
        ), "There is one chain only: whether others would find the same division is not known."
    agreement = float(np.mean([adjusted_rand(a, b) for a, b in pairs]))
    if agreement >= _STABLE:
        return agreement, "Chains found the same division."
    number = sorted({int(p.max()) for p in by_chain})
    found = f"{number[0]}" if len(number) == 1 else f"{number[0]} to {number[-1]}"
    return agreement, (
        f"Not stable: chains found different divisions (of {found} clusters; adjusted Rand index "
        f"{agreement:z.2f}), so that another seed may give another `partition` than this one of "
        f"{partition.max()}. Look at co_clustering and certainty instead."
    )


def adjusted_rand(a: IntArray, b: IntArray) -> float:
    """Return the Rand index of two divisions, adjusted for chance; 1 if both are the same."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1.0)

    def together(counts: FloatArray) -> float:
        return float((counts * (counts - 1.0)).sum() / 2.0)

    both, in_a, in_b = together(table), together(table.sum(axis=1)), together(table.sum(axis=0))
    expected = in_a * in_b / max(together(np.array([len(a)], dtype=float)), 1.0)
    spare = (in_a + in_b) / 2.0 - expected
    return 1.0 if abs(spare) < 1e-12 else (both - expected) / spare


def _by_kind(values: FloatArray, partition: IntArray) -> FloatArray:
    """Return averages over the tasks (first axis) of each cluster of the partition."""
    return np.stack([values[partition == k].mean(axis=0) for k in range(1, partition.max() + 1)])


def _coefficients(posterior: xr.Dataset, partition: IntArray, prob: float) -> dict[str, Any]:
    beta = posterior["beta"].transpose("task", "chain", "draw", "feature").to_numpy()
    drawn = _by_kind(beta.reshape(len(beta), -1, beta.shape[-1]), partition)
    lower, upper = np.quantile(drawn, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    named = {"coefficient": drawn.mean(axis=1), "coefficient_lower": lower, "coefficient_upper": upper}
    return {name: (("kind", "feature"), values) for name, values in named.items()}


def _together(member: FloatArray) -> FloatArray:
    """Return the probability that two tasks are in one cluster, from their memberships (D, T, K)."""
    n_draws, n_tasks, _ = member.shape
    same = np.zeros((n_tasks, n_tasks))
    for some in _pieces(member):
        flat = np.moveaxis(some, 1, 0).reshape(n_tasks, -1)
        same += flat @ flat.T / n_draws
    np.fill_diagonal(same, 1.0)
    return same


def _pieces(member: FloatArray) -> list[FloatArray]:
    """Split the draws of memberships (..., T, K), chains one after the other, into pieces that are small."""
    every = member.reshape(-1, *member.shape[-2:])
    return np.array_split(every, max(1, min(len(every), -(-every.size // _CHUNK))))


def _certainty(same: FloatArray, partition: IntArray) -> FloatArray:
    out = np.empty(len(same))
    for label in np.unique(partition):
        own = np.flatnonzero(partition == label)
        if len(own) > 1:
            out[own] = (same[np.ix_(own, own)].sum(axis=1) - np.diagonal(same)[own]) / (len(own) - 1)
        else:
            rest = np.delete(same[own[0]], own[0])
            out[own] = (1.0 - rest).min(initial=1.0)
    return out
