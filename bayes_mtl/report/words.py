"""The model in equations and in words."""

from __future__ import annotations

import inspect
from typing import Any

from bayes_mtl.data import TaskData, TaskSchema
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.model import default_priors
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec, scaled_together
from bayes_mtl.structures import (
    Clusters,
    CompletePooling,
    NoPooling,
    OrthogonalGroups,
    StudentT,
    TaskCovariance,
    TaskMixture,
)


def model_equations(spec: ModelSpec, data: TaskData) -> list[str]:
    """Return the model, one equation per line."""
    groupings = [g.name for g in data.groupings]
    eta = "xᵢ′β[t(i)]" + (" + wᵢ′γ" if data.shared_features else "")
    eta += "".join(f" + zᵢ′v[{name}(i)]" for name in groupings)
    eta += " + oᵢ (known)" if data.offset.any() else ""
    if spec.family.has_noise:
        scale = "sᵢ (known)" if data.noise is not None else "σ"
        scale = "σ[t(i)]" if getattr(spec.family, "task_noise", False) else scale
        outcome = f"yᵢ ~ Normal({eta}, {scale})"
    else:
        outcome = f"yᵢ ~ Bernoulli(logit⁻¹({eta}))"
    return [outcome, *_law_of_tasks(spec, data), *(_law_of_levels(spec, name) for name in groupings)]


def _law_of_tasks(spec: ModelSpec, data: TaskData) -> list[str]:
    structure = spec.task_covariance
    centre = "μ" + (" + Γz_t" if data.task_feature_names else "")
    if isinstance(structure, CompletePooling):
        return [f"β_t = {centre} for every task t"]
    if isinstance(structure, NoPooling):
        return [f"β_t ~ Normal({centre}, diag(s)²), where s is wide and nothing is learned from other tasks"]
    if isinstance(structure, TaskMixture):
        return _law_of_mixture(structure, centre)
    robust, inner = isinstance(structure, StudentT), getattr(structure, "inner", structure)
    scale = " / √λ_t" if robust else ""
    scale += " × τ_t" if spec.task_sd else ""
    if structure.relates_tasks:
        lines = [f"β_t = {centre} + u_t{scale},   Cov(u_t, u_s) = Ω_ts Σ"]
    else:
        lines = [f"β_t = {centre} + u_t{scale},   u_t ~ Normal(0, Σ)"]
    if robust:
        lines.append("λ_t ~ Gamma(ν/2, ν/2): the reliability of task t, small if it is unlike the others")
    if spec.task_sd:
        lines.append("τ_t: the scale of task t")
    lines.append("Σ = diag(s) R diag(s): how coefficients vary (s) and co-vary (R) across tasks")
    together = scaled_together(structure, spec.independent_features, data.features)
    factor = default_priors(spec, data)[0]["feature_sd_scale"]
    if factor != 1.0 and together:
        learned = "c, learned," if isinstance(factor, Prior) else f"c = {factor:g}"
        lines.append(f"priors of s_j are c times as wide: {learned} is common to {', '.join(together)}")
    if spec.feature_scales is not None:
        scales = type(spec.feature_scales).__name__
        lines.append(f"s_j and the scale of μ_j: {scales}, decided for all features together")
    if structure.relates_tasks:
        lines.append(f"Ω: how tasks co-vary, a correlation matrix ({type(inner).__name__})")
    return lines


def _law_of_mixture(structure: TaskMixture, centre: str) -> list[str]:
    if isinstance(structure, OrthogonalGroups):
        return [
            f"β_t ~ Normal({centre}, D (w² R + U_g diag(s_g)² U_g′) D) for a task t of group g, D = diag(s)",
            "U_g: the directions of a group, orthogonal to those of all other groups",
        ]
    gated = isinstance(structure, Clusters) and structure.gating is not None
    several = isinstance(structure, Clusters) and structure.rank
    weight, width = ("π_tk" if gated else "πₖ"), ("Σₖ" if several else "Σ")
    lines = [f"β_t ~ ∑ₖ {weight} Normal({centre} + mₖ, {width}): task t is of one of several kinds k"]
    lines.append(f"{width} = D (R + FₖFₖ′) D, D = diag(s)" if several else "Σ = diag(s) R diag(s)")
    if gated:
        lines.append("π_tk ∝ πₖ exp(uₖ′g_t): g_t is what is known of task t, standardised")
    return lines


def _law_of_levels(spec: ModelSpec, name: str) -> str:
    structure = spec.levels_of(name)
    law = "Cov(v_l, v_m) = Ω_lm Σ" if structure.relates_tasks else "v_l ~ Normal(0, Σ)"
    law = "v_l ~ Normal(0, Σ / λ_l)" if isinstance(structure, StudentT) else law
    return f"v: what each {name} adds in every task alike, {law} with scales and correlations of its own"


def structure_in_words(structure: TaskCovariance, what: str = "Task structure") -> str:
    """Return what the structure's own documentation says first."""
    doc = inspect.getdoc(type(structure)) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    return f"{what} {structure}: {first}"


def data_in_code(data: TaskData) -> str:
    """Return the call that reads the data from their table."""
    schema = data.schema
    design = schema.design
    term_of = dict(zip(design.columns, design.terms, strict=True))
    options: dict[str, Any] = {
        "task": schema.task,
        "outcomes": list(schema.outcomes),
        "formula": f"{schema.left} ~ {design.formula}".strip(),
        "shared_features": list(dict.fromkeys(term_of[c] for c in schema.shared)),
        "task_features": list(schema.task_design.reads) if schema.task_design else [],
        "groupings": {name: list(features) for name, features in schema.groupings.items()},
        "weights": schema.weights,
        "offset": schema.offset,
        "noise": schema.noise,
        "center": _centered(schema),
    }
    given = "".join(f"    {name}={value!r},\n" for name, value in options.items() if value)
    return f"data = mtl.TaskData.from_table(\n    table,\n{given})"


def _centered(schema: TaskSchema) -> bool | list[str]:
    """Return which columns are centered; True also centers the features of tasks."""
    design = schema.design
    moved = [c for c, shift in zip(design.columns, design.center, strict=True) if shift != 0.0]
    everything = set(moved) == set(design.columns) - {INTERCEPT}
    of_tasks = schema.task_design is None or any(schema.task_design.center)
    return True if moved and everything and of_tasks else moved
