"""Tasks by the thousand: what is computed in pieces, or from a tree instead of all pairs, is what it was."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from bayes_mtl.summaries.clusters import _pieces, _together, point_partition


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([None, 1, 2, 4]))
def test_point_partition_is_the_best_cut_of_its_tree(seed, n, most):
    rng = np.random.default_rng(seed)
    same = rng.uniform(0.0, 1.0, (n, n)) ** rng.uniform(0.3, 3.0)
    same = (same + same.T) / 2
    np.fill_diagonal(same, 1.0)
    tree = linkage(squareform(1.0 - same, checks=False), "average")

    def loss(labels):
        together = np.equal.outer(labels, labels)
        return np.where(together, 1 - same, same)[np.triu_indices(n, 1)].sum()

    cuts = [fcluster(tree, k, criterion="maxclust") for k in range(1, min(n, most or n) + 1)]
    np.testing.assert_allclose(loss(point_partition(same, most)), min(map(loss, cuts)), rtol=1e-9)


def test_memberships_in_pieces_are_those_at_once():
    member = np.random.default_rng(0).dirichlet(np.full(3, 0.3), size=(70_000, 21))
    assert len(_pieces(member)) > 1
    same = np.einsum("dtk,dsk->ts", member, member, optimize=True) / len(member)
    np.fill_diagonal(same, 1.0)
    np.testing.assert_allclose(_together(member), same, rtol=1e-10)
