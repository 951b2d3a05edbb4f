"""Compiled loops over shortlists: bids, and shortest augmenting paths that know where they may end.

A row's shortlist holds some of its columns with their costs.  Of all others it is known that
c_ij − v_j ≥ limit_i as long as no v_j rises, so duals with u_i ≤ limit_i are feasible for them unseen.
A row may also stay unmatched at its price.  `stop_i` is the lesser of the two: a search may end at
any row of its tree, for stop_i − u_i.

Throughout, no known pair has a negative reduced cost c_ij − u_i − v_j, and pairs of the matching have 0: so
the matching is the best there is once no row is left to search from (problem.py).  A search is Dijkstra's
over reduced costs, from an unmatched row to a column (the reduced cost) and on to that column's row (0).  At
its end, nodes nearer than the end move their duals by how much nearer they are: the path becomes tight, no
reduced cost negative, and exchanging the pairs along it matches one row more.  Column duals only fall, which
is what keeps the bounds on unseen pairs true.

Rows beyond those that have lists are stand-ins for the columns that stay free where every row needs one:
each may take any column, all at the same cost, so that a rectangular problem is searched as a square one.

Shortest augmenting paths with a heap: Jonker and Volgenant 1987; Duff and Koster, "On algorithms for
permuting large entries to the diagonal of a sparse matrix" (SIAM J. Matrix Anal. Appl., 2001).
"""

from typing import no_type_check

import numpy as np

from saematch.assignment.compiled import compiled

INFEASIBLE = -2
"""Returned in place of how many searches were made: a row has nowhere to go."""


@compiled()
@no_type_check
def take_free_columns(start, length, columns, costs, stop, u, v, column_of, row_of):
    """u_i = min(c_ij − v_j, stop_i) for unmatched rows, each matched to its column where it is free."""
    for i in range(len(u)):
        if column_of[i] >= 0:
            continue
        least, nearest = stop[i], -1
        for p in range(start[i], start[i] + length[i]):
            value = costs[p] - v[columns[p]]
            if value == np.inf:  # forbidden
                continue
            if value < least or (value == least and (nearest < 0 or row_of[nearest] >= 0)):
                least, nearest = value, columns[p]
        # A row with nowhere to go may have any dual; the search from it will say so.
        u[i] = least if least < np.inf else 0.0
        if nearest >= 0 and row_of[nearest] < 0:
            row_of[nearest] = i
            column_of[i] = nearest


@compiled()
@no_type_check
def bid(waiting, start, length, columns, costs, stop, u, v, column_of, row_of, most):
    """Rows bid for their best column as much as it is better than their second choice.

    The outbid row bids next.  At most `most` bids: where many want few columns, bids are small.
    Jonker and Volgenant's augmenting row reduction.
    """
    bids = 0
    for first in waiting:
        i = first
        while i >= 0 and bids < most:
            best, second = np.inf, stop[i]
            take, other = -1, -1
            for p in range(start[i], start[i] + length[i]):
                value = costs[p] - v[columns[p]]
                if value < best:
                    if best < second:
                        second, other = best, take
                    best, take = value, columns[p]
                elif value < second:
                    second, other = value, columns[p]
            if best >= stop[i] or second == np.inf:
                # Nowhere else to go, so there is no telling how much to bid.
                value = min(best, stop[i])
                u[i] = value if value < np.inf else 0.0
                break
            u[i] = second
            bids += 1
            if best < second:
                v[take] -= second - best
            elif row_of[take] >= 0:
                if other < 0 or row_of[other] >= 0:
                    break
                take = other
            outbid = row_of[take]
            row_of[take] = i
            column_of[i] = take
            if outbid >= 0:
                column_of[outbid] = -1
            i = outbid


@compiled()
@no_type_check
def _raise_in_heap(heap, place, distance, q, j):
    x = distance[j]
    while q > 0:
        parent = (q - 1) >> 1
        if distance[heap[parent]] <= x:
            break
        heap[q] = heap[parent]
        place[heap[q]] = q
        q = parent
    heap[q] = j
    place[j] = q


@compiled()
@no_type_check
def _pop_from_heap(heap, place, distance, size):
    """Remove the nearest column, heap[0]; the heap has `size` columns left."""
    if size == 0:
        return
    last = heap[size]
    x = distance[last]
    q = 0
    while True:
        child = 2 * q + 1
        if child >= size:
            break
        if child + 1 < size and distance[heap[child + 1]] < distance[heap[child]]:
            child += 1
        if distance[heap[child]] >= x:
            break
        heap[q] = heap[child]
        place[heap[q]] = q
        q = child
    heap[q] = last
    place[last] = q


@compiled()
@no_type_check
def augment(
    waiting, start, length, columns, costs, stop, u, v, column_of, row_of, ended, near, most_steps
):
    """From every waiting row the shortest path to a free column, or to a row that may stop.

    Returns how many of `waiting` were searched from (fewer than all once `most_steps` pairs were
    looked at) and how many searches ended at a row, those rows in `ended`; or INFEASIBLE and the row.
    Where a search ended at a row, `near` [n] marks the rows of its tree that it would next have ended
    at: those no further from their stops than the search was long.  Duals stay feasible and matched
    pairs tight throughout.  Rows from len(start) on are stand-ins.
    """
    n, m = len(start), len(v)
    unset, scanned = -1, -2
    distance = np.full(m, np.inf)
    place = np.full(m, unset, dtype=np.int64)
    came_from = np.empty(m, dtype=np.int64)
    heap = np.empty(m, dtype=np.int64)
    tree = np.empty(m, dtype=np.int64)
    touched = np.empty(m, dtype=np.int64)
    number_ended = 0
    steps = 0
    for searched in range(len(waiting)):
        if steps > most_steps:
            return searched, number_ended
        root = waiting[searched]
        if column_of[root] >= 0:
            continue
        in_heap, in_tree, in_touched = 0, 0, 0
        nearest, end_column, end_row = np.inf, -1, -1
        i, so_far = root, 0.0
        if root >= n:
            u[root] = -v.max()
        stand_in_scanned = False
        while True:
            stands_in = i >= n
            if not stands_in and so_far + max(0.0, stop[i] - u[i]) < nearest:
                nearest, end_column, end_row = so_far + max(0.0, stop[i] - u[i]), -1, i
            first, end = (0, m) if stands_in else (start[i], start[i] + length[i])
            if stands_in and stand_in_scanned:
                end = 0  # all have the same costs and dual: a later one leads nowhere sooner
            stand_in_scanned |= stands_in
            steps += end - first
            for p in range(first, end):
                j = p if stands_in else columns[p]
                if place[j] == scanned:
                    continue
                cost = 0.0 if stands_in else costs[p]
                x = so_far + max(0.0, cost - u[i] - v[j])
                if x > nearest or x >= distance[j]:
                    continue
                if x == nearest and end_column >= 0:
                    continue
                free = row_of[j] < 0
                if distance[j] == np.inf:
                    touched[in_touched] = j
                    in_touched += 1
                distance[j] = x
                came_from[j] = i
                if free:
                    nearest, end_column, end_row = x, j, -1
                    continue
                q = place[j]
                if q == unset:
                    q = in_heap
                    in_heap += 1
                _raise_in_heap(heap, place, distance, q, j)
            if in_heap == 0:
                break
            j = heap[0]
            if distance[j] > nearest or (distance[j] == nearest and end_column >= 0):
                break
            in_heap -= 1
            _pop_from_heap(heap, place, distance, in_heap)
            place[j] = scanned
            tree[in_tree] = j
            in_tree += 1
            i, so_far = row_of[j], distance[j]
        if nearest == np.inf:
            return INFEASIBLE, root
        u[root] += nearest
        for q in range(in_tree):
            j = tree[q]
            u[row_of[j]] += nearest - distance[j]
            v[j] -= nearest - distance[j]
        if end_column >= 0:
            j = end_column
        else:
            ended[number_ended] = end_row
            number_ended += 1
            for q in range(in_tree):
                i = row_of[tree[q]]
                if i < n and stop[i] - u[i] <= nearest:
                    near[i] = True
            j = column_of[end_row]
            column_of[end_row] = -1
        while j >= 0:
            i = came_from[j]
            following = column_of[i]
            row_of[j] = i
            column_of[i] = j
            if i == root:
                break
            j = following
        for q in range(in_touched):
            distance[touched[q]] = np.inf
            place[touched[q]] = unset
    return len(waiting), number_ended
