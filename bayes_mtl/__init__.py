"""Bayesian hierarchical multi-task learning on PyMC."""

from bayes_mtl.data import TaskData
from bayes_mtl.families import Bernoulli, Gaussian
from bayes_mtl.model import build_model, task_coefficients
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import LKJ, CompletePooling, Diagonal, Exchangeable, LowRank, NoPooling

__version__ = "0.1.0"
