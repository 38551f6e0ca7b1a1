"""Simulated tables whose truth is known, for recipes and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

INTERCEPT = "Intercept"

# Average weight of each word on the logit scale, for all readers.
COMMON_WORDS: Mapping[str, float] = MappingProxyType(
    {"money": 1.5, "transfer": 1.5, "winner": 1.5, "meeting": -1.5}
)
# +1: spam for a reader of English and ham for a reader of Russian; -1: the other way round.
CONTESTED_WORDS: Mapping[str, int] = MappingProxyType(
    {"privet": 1, "spasibo": 1, "zavtra": 1, "cheers": -1, "regards": -1, "tomorrow": -1}
)


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
        True group of each task.
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
    coefficients = pd.DataFrame(
        np.column_stack([intercept, weights]), index=users, columns=[INTERCEPT, *words]
    )
    groups = pd.Series(np.where(sign > 0, "english", "russian"), index=users)
    return Simulation(table, coefficients, groups)


SIMULATIONS: Mapping[str, Callable[..., Simulation]] = MappingProxyType({"per_user_spam": per_user_spam})
