"""The cross-products of many rows in one pass, about as fast as memory delivers them.

Rows are cut into chunks, which threads share. A chunk writes to the tasks that begin in it, and what it has
of the task that began before it to a slot of its own; those slots are added in order at the end. So no thread
waits for another, the result does not depend on how many there are, and sums are short: of rows in a block,
of blocks in a chunk, of chunks.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from bayes_mtl._typing import FloatArray, IntArray

_BLOCK_BYTES = 1 << 14  # half of the first-level cache


def cross_products(
    X: FloatArray,
    y: FloatArray,
    weights: FloatArray | None,
    reference: FloatArray,
    starts: IntArray,
    *,
    chunk: int = 1 << 16,
    threads: int | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return X'WX, X'Wr and r'Wr of every task, with r = y - X reference, and the sum of the log weights.

    Parameters
    ----------
    X : (N, F)
    y : (N,)
    weights : (N,) or None
        None: 1 for every row.
    reference : (F,)
    starts : (T + 1,)
        Task t owns rows starts[t] to starts[t + 1].
    chunk : int
        Rows that one thread takes at a time.
    threads : int, optional
        Default: as many as there are processors.
    """
    n_tasks, (n_rows, n_columns) = len(starts) - 1, X.shape
    firsts = np.arange(0, n_rows, chunk)
    tasks = np.searchsorted(starts, firsts, side="right") - 1
    n_slots = n_tasks + len(firsts)
    gram = np.zeros((n_slots, n_columns, n_columns))
    moment = np.zeros((n_slots, n_columns))
    square = np.zeros(n_slots)

    def add(c: int) -> float:
        first = firsts[c]
        rows = slice(first, first + chunk)
        w = np.ones(1) if weights is None else weights[rows]
        _add_rows(X[rows], y[rows], w, reference, starts, first, tasks[c], n_tasks + c, gram, moment, square)
        return float(np.log(w).sum())

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        log_weights = list(pool.map(add, range(len(firsts))))
    for sums in (gram, moment, square):
        np.add.at(sums[:n_tasks], tasks, sums[n_tasks:])
    return gram[:n_tasks], moment[:n_tasks], square[:n_tasks], sum(log_weights)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _add_rows(
    X: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    reference: FloatArray,
    starts: IntArray,
    first: int,
    task: int,
    slot_before: int,
    gram: FloatArray,
    moment: FloatArray,
    square: FloatArray,
) -> None:
    """Write the sums over rows that begin at `first`, in `task`; what began earlier goes to `slot_before`."""
    N, F = X.shape
    last = first + N
    # A block of rows is turned around: columns lie contiguous, the residual is one of them and a column of
    # zeros makes their number even. Products of columns, two by two, are then what a processor does best.
    width = F + 2 - F % 2
    length = min(256, max(128, _BLOCK_BYTES // (8 * width) // 16 * 16))
    block = np.zeros((width, length))
    cross = np.zeros((width, width))
    root = np.empty(length)
    for begin in range(0, N, length):
        n = min(length, N - begin)
        X_block, y_block = X[begin : begin + n], y[begin : begin + n]
        for i in range(n):
            block[F, i] = y_block[i]
        for p in range(F):
            for i in range(n):
                block[p, i] = X_block[i, p]
            for i in range(n):
                block[F, i] -= reference[p] * block[p, i]
        if len(weights) == N:
            w_block = weights[begin : begin + n]
            for i in range(n):
                root[i] = np.sqrt(w_block[i])
            for p in range(F + 1):
                for i in range(n):
                    block[p, i] *= root[i]
        done = 0
        while done < n:
            row = first + begin + done
            while starts[task + 1] <= row:
                task += 1
            end = min(starts[task + 1], last)
            m = min(n - done, end - row)
            part = block[:, done : done + m]
            for p in range(0, width, 2):
                for q in range(0, p + 1, 2):
                    a = b = c = d = 0.0
                    for i in range(m):
                        a += part[p, i] * part[q, i]
                        b += part[p, i] * part[q + 1, i]
                        c += part[p + 1, i] * part[q, i]
                        d += part[p + 1, i] * part[q + 1, i]
                    cross[p, q] += a
                    cross[p, q + 1] += b
                    cross[p + 1, q] += c
                    cross[p + 1, q + 1] += d
            done += m
            if row + m == end:
                slot = task if starts[task] >= first else slot_before
                for p in range(F):
                    for q in range(p + 1):
                        gram[slot, p, q] = gram[slot, q, p] = cross[p, q]
                    moment[slot, p] = cross[F, p]
                square[slot] = cross[F, F]
                cross[:] = 0.0
