"""Simulated tables whose truth is known, for recipes and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np
import pandas as pd

from bayes_mtl._typing import FloatArray, IntArray

INTERCEPT = "Intercept"

# Average weight of each word on the logit scale, for all readers.
COMMON_WORDS: Mapping[str, float] = MappingProxyType(
    {"money": 1.5, "transfer": 1.5, "winner": 1.5, "meeting": -1.5}
)
# +1: spam for a reader of English and ham for a reader of Russian; -1: the other way round.
CONTESTED_WORDS: Mapping[str, int] = MappingProxyType(
    {"privet": 1, "spasibo": 1, "zavtra": 1, "cheers": -1, "regards": -1, "tomorrow": -1}
)
# A river that splits into arms: the station upstream of each.
UPSTREAM: Mapping[str, str] = MappingProxyType({"A": "", "B": "A", "C": "A", "D": "C", "E": "C"})


@dataclass(frozen=True)
class Simulation:
    """A table and the truth behind it.

    Attributes
    ----------
    table : DataFrame
        What a user of the package would have.
    coefficients : DataFrame
        True coefficients, one row per task and one column per feature.
    groups : Series
        True group of each task; of `river_delta` the station upstream.
    """

    table: pd.DataFrame
    coefficients: pd.DataFrame
    groups: pd.Series


def per_user_spam(
    *,
    n_users: int = 20,
    n_mails: int = 60,
    contrast: float = 1.5,
    individual_sd: float = 0.3,
    word_rate: float = 0.35,
    contact_sd: float | None = None,
    seed: int = 1,
) -> Simulation:
    """Simulate the mails of users who agree on some words and contradict each other on others.

    Every user is a task: a logistic filter that says whether a mail is spam from the words in it. The
    first half of the users read English, the others Russian. With s_t = 1 for the former and -1 for
    the latter, the weight of word j in the filter of user t is

        common words (money, transfer, winner, meeting)       beta_tj = m_j + e_tj
        contested words (privet, spasibo, ..., tomorrow)      beta_tj = s_t c_j contrast + e_tj

    with m_j in `COMMON_WORDS`, c_j = 1 or -1 in `CONTESTED_WORDS` and e_tj ~ N(0, individual_sd^2). The
    average of a contested word over all users is zero: complete pooling throws it away, and a model in
    which users vary independently has to learn it anew for each. It is one latent vector, c, on which users
    load with s_t: users of one group are related positively, users of two groups negatively.

    Parameters
    ----------
    n_users : int
        Number of users, even, so that the groups balance.
    n_mails : int
        Mails of each user.
    contrast : float
        Size of a contested word's weight.
    individual_sd : float
        How far users differ within their group.
    word_rate : float
        Probability of each word in each mail.
    contact_sd : float, optional
        Adds a column ``russian_contacts``, the same in all mails of a user: the share of Russian addresses
        that they write to, 0.3 on average for readers of English and 0.7 for the others, with this standard
        deviation.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    Simulation
        The table has the columns ``user``, one 0/1 column per word, and ``spam``.

    Examples
    --------
    >>> per_user_spam(n_users=4, n_mails=10).table.shape
    (40, 12)
    """
    rng = np.random.default_rng(seed)
    half = n_users // 2
    sign = np.repeat([1.0, -1.0], [half, n_users - half])
    users = [f"english_{i + 1:02d}" for i in range(half)] + [
        f"russian_{i + 1:02d}" for i in range(n_users - half)
    ]
    words = [*COMMON_WORDS, *CONTESTED_WORDS]
    common = np.array([*COMMON_WORDS.values(), *np.zeros(len(CONTESTED_WORDS))])
    contested = np.array([*np.zeros(len(COMMON_WORDS)), *CONTESTED_WORDS.values()])
    weights = common + contrast * np.outer(sign, contested)
    weights += individual_sd * rng.standard_normal(weights.shape)
    # About half of the mails are spam: the intercept takes away what the words add on average.
    intercept = -word_rate * weights.sum(axis=1) + individual_sd * rng.standard_normal(n_users)

    user = np.repeat(np.arange(n_users), n_mails)
    present = rng.random((len(user), len(words))) < word_rate
    logit = intercept[user] + (present * weights[user]).sum(axis=1)
    spam = rng.random(len(user)) < 1.0 / (1.0 + np.exp(-logit))

    table = pd.DataFrame(present.astype(int), columns=words)
    table.insert(0, "user", np.array(users, dtype=object)[user])
    table["spam"] = spam.astype(int)
    if contact_sd is not None:
        share = 0.5 - 0.2 * sign + contact_sd * rng.standard_normal(n_users)
        table["russian_contacts"] = np.clip(share, 0.0, 1.0).round(2)[user]
    coefficients = pd.DataFrame(
        np.column_stack([intercept, weights]), index=users, columns=[INTERCEPT, *words]
    )
    groups = pd.Series(np.where(sign > 0, "english", "russian"), index=users)
    return Simulation(table, coefficients, groups)


def yield_of_plants(
    *, n_plants: int = 8, n_batches: int = 40, n_sensors: int = 12, spread: float = 0.2, seed: int = 1
) -> Simulation:
    """Simulate the yield of plants that have the same sensors, of which few tell anything.

    Every plant is a task. With features of unit variance and noise of variance one, the coefficients are

        temperature       1 + `spread` e_t in all plants
        pressure         -0.8 in all plants
        catalyst          1 or -1, at random, in each plant
        humidity          1.5 in the first plant, 0 in the others

    and zero for the other sensors, ``sensor_05`` and so on. The level of a plant is N(0, 1).

    Parameters
    ----------
    n_plants, n_batches : int
        Tasks, and rows of each.
    n_sensors : int
        Number of features, four at least.
    spread : float
        How far plants differ in what temperature does.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    Simulation
        The table has the columns ``plant``, one per sensor, and ``yield``. Plants are in one group if
        the catalyst does the same in them.

    Examples
    --------
    >>> yield_of_plants(n_plants=3, n_batches=10).table.shape
    (30, 14)
    """
    rng = np.random.default_rng(seed)
    sensors = ["temperature", "pressure", "catalyst", "humidity"]
    sensors += [f"sensor_{j:02d}" for j in range(5, n_sensors + 1)]
    plants = [f"plant_{t + 1}" for t in range(n_plants)]
    sign = rng.choice([-1.0, 1.0], n_plants)
    weights = np.zeros((n_plants, len(sensors)))
    weights[:, 0] = 1.0 + spread * rng.standard_normal(n_plants)
    weights[:, 1] = -0.8
    weights[:, 2] = sign
    weights[0, 3] = 1.5
    level = rng.standard_normal(n_plants)

    plant = np.repeat(np.arange(n_plants), n_batches)
    X = rng.standard_normal((len(plant), len(sensors)))
    outcome = level[plant] + (X * weights[plant]).sum(axis=1) + rng.standard_normal(len(plant))
    table = pd.DataFrame(X, columns=sensors)
    table.insert(0, "plant", np.array(plants, dtype=object)[plant])
    table["yield"] = outcome
    coefficients = pd.DataFrame(
        np.column_stack([level, weights]), index=plants, columns=[INTERCEPT, *sensors]
    )
    groups = pd.Series(np.where(sign > 0, "catalyst helps", "catalyst hurts"), index=plants)
    return Simulation(table, coefficients, groups)


def river_delta(
    *, n_drivers: int = 30, n_days: int = 100, carry: float = 0.8, noise_sd: float = 1.0, seed: int = 1
) -> Simulation:
    """Simulate stations in the arms of a river, each of which passes on what it gets.

    Every station is a task: water quality on one day follows from standardised drivers (rain, fertiliser,
    ...) by coefficients that are carried down the river,

        beta_t = carry beta_up(t) + sqrt(1 - carry^2) e_t,      e_t ~ N(0, I)

    with ``up`` in `UPSTREAM`. All stations correlate, but given the station upstream and those next
    downstream, a station is independent of all others: only the partial correlations show the river.

    Parameters
    ----------
    n_drivers : int
        Number of drivers.
    n_days : int
        Rows of each station.
    carry : float
        Correlation of neighbours, below 1.
    noise_sd : float
        Noise scale.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    Simulation
        The table has the columns ``station``, ``x01``, ``x02``, ..., and ``quality``.

    Examples
    --------
    >>> river_delta(n_drivers=5, n_days=10).table.shape
    (50, 7)
    """
    rng = np.random.default_rng(seed)
    own = {station: rng.standard_normal(n_drivers) for station in UPSTREAM}
    beta: dict[str, FloatArray] = {}
    for station, up in UPSTREAM.items():
        beta[station] = carry * beta[up] + np.sqrt(1.0 - carry**2) * own[station] if up else own[station]
    return _regressions(
        rng,
        pd.DataFrame(beta, index=_names("x", n_drivers)).T,
        np.full(len(beta), n_days),
        noise_sd,
        task="station",
        outcome="quality",
        groups=pd.Series(UPSTREAM),
    )


def mixed_tastes(
    *,
    n_listeners: int = 24,
    n_songs: int = 30,
    n_qualities: int = 15,
    individual_sd: float = 0.3,
    noise_sd: float = 1.0,
    seed: int = 1,
) -> Simulation:
    """Simulate listeners who have one of three tastes, or two of them.

    Every listener is a task: the rating of a song is linear in its qualities, with coefficients

        beta_t = sum_{k in tastes of t} f_k + individual_sd e_t,      f_k, e_t ~ N(0, I)

    Listeners are named after their tastes. Those of two tastes belong to two groups, so no division into
    groups is right.

    Parameters
    ----------
    n_listeners : int
        Number of listeners, spread over the six combinations of one or two tastes.
    n_songs : int
        Songs that each has rated.
    n_qualities : int
        Qualities of a song.
    individual_sd : float
        How far listeners of the same tastes differ.
    noise_sd : float
        Noise scale of a rating.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    Simulation
        The table has the columns ``listener``, ``q01``, ``q02``, ..., and ``rating``.

    Examples
    --------
    >>> mixed_tastes(n_listeners=6, n_songs=10).groups.tolist()
    ['folk', 'jazz', 'soul', 'folk+jazz', 'folk+soul', 'jazz+soul']
    """
    rng = np.random.default_rng(seed)
    tastes = {name: rng.standard_normal(n_qualities) for name in ("folk", "jazz", "soul")}
    kinds = [*tastes, *("+".join(pair) for pair in combinations(tastes, 2))]
    groups = [kinds[i % len(kinds)] for i in range(n_listeners)]
    listeners = [f"{group} {i // len(kinds) + 1}" for i, group in enumerate(groups)]
    own = individual_sd * rng.standard_normal((n_listeners, n_qualities))
    beta = np.array([sum(tastes[name] for name in group.split("+")) for group in groups]) + own
    return _regressions(
        rng,
        pd.DataFrame(beta, index=listeners, columns=_names("q", n_qualities)),
        np.full(n_listeners, n_songs),
        noise_sd,
        task="listener",
        outcome="rating",
        groups=pd.Series(groups, index=listeners),
    )


def faces(
    *,
    n_tasks: int = 8,
    n_features: int = 12,
    rank: int = 2,
    n_few: int = 15,
    n_many: int = 150,
    spread: float = 1.5,
    individual_sd: float = 0.2,
    noise_sd: float = 1.0,
    seed: int = 1,
) -> Simulation:
    """Simulate scores of faces: who it is and what it shows have nothing to do with each other.

    Half of the tasks score the likeness to one person each, from few pictures; the others score one
    expression each, from many. With columns of U_identity and U_expression orthonormal,

        beta_t = spread sqrt(n_features / rank) U_group(t) a_t + individual_sd e_t,      a_t, e_t ~ N(0, I)

    Parameters
    ----------
    n_tasks : int
        Number of tasks, even.
    n_features : int
        Measures of a face, at least twice `rank`.
    rank : int
        Number of directions of each group.
    n_few, n_many : int
        Pictures of each identity, and of each expression.
    spread : float
        Root mean square of a coefficient along the directions.
    individual_sd : float
        How far tasks leave the directions of their group.
    noise_sd : float
        Noise scale.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    Simulation
        The table has the columns ``task``, ``m01``, ``m02``, ..., and ``score``.

    Examples
    --------
    >>> faces(n_tasks=2).groups.to_dict()
    {'identity 1': 'identity', 'expression 1': 'expression'}
    """
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((n_features, 2 * rank)))[0]
    half = n_tasks // 2
    groups = pd.Series(np.repeat(["identity", "expression"], half))
    names = [f"{group} {i % half + 1}" for i, group in enumerate(groups)]
    along = np.where(
        (groups == "identity").to_numpy()[:, None, None], directions[:, :rank], directions[:, rank:]
    )
    a = spread * np.sqrt(n_features / rank) * rng.standard_normal((len(names), rank))
    beta = np.einsum("tpk,tk->tp", along, a) + individual_sd * rng.standard_normal((len(names), n_features))
    return _regressions(
        rng,
        pd.DataFrame(beta, index=names, columns=_names("m", n_features)),
        np.where(groups == "identity", n_few, n_many),
        noise_sd,
        task="task",
        outcome="score",
        groups=groups.set_axis(names),
    )


def _regressions(
    rng: np.random.Generator,
    coefficients: pd.DataFrame,
    n_rows: IntArray,
    noise_sd: float,
    *,
    task: str,
    outcome: str,
    groups: pd.Series,
) -> Simulation:
    """Draw standard normal features, and outcomes with normal noise, for given coefficients."""
    at = np.repeat(np.arange(len(coefficients)), n_rows)
    X = rng.standard_normal((len(at), coefficients.shape[1]))
    y = (X * coefficients.to_numpy()[at]).sum(axis=1) + noise_sd * rng.standard_normal(len(at))
    table = pd.DataFrame(X, columns=coefficients.columns)
    table.insert(0, task, coefficients.index.to_numpy(dtype=object)[at])
    table[outcome] = y
    return Simulation(table, coefficients, groups)


def _names(letter: str, n: int) -> list[str]:
    return [f"{letter}{i + 1:02d}" for i in range(n)]


SIMULATIONS: Mapping[str, Callable[..., Simulation]] = MappingProxyType(
    {f.__name__: f for f in (per_user_spam, yield_of_plants, river_delta, mixed_tastes, faces)}
)
