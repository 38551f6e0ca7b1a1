"""The model in equations and in words."""

from __future__ import annotations

import inspect

from bayes_mtl.data import TaskData
from bayes_mtl.model import default_priors
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, StudentT, TaskCovariance, TaskMixture


def model_equations(spec: ModelSpec, data: TaskData) -> list[str]:
    """Return the model, one equation per line."""
    groupings = [g.name for g in data.groupings]
    eta = "xᵢ′β[t(i)]" + (" + wᵢ′γ" if data.shared_features else "")
    eta += "".join(f" + zᵢ′v[{name}(i)]" for name in groupings)
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
    if isinstance(structure, TaskMixture):
        lines = [f"β_t ~ Σₖ πₖ Normal({centre} + mₖ, Σ)", "Σ = diag(s) R diag(s)"]
        if getattr(structure, "gating", None) is not None:
            lines[0] = lines[0].replace("πₖ", "π_tk")
            lines.append("π_tk ∝ πₖ exp(uₖ′g_t): g_t is what is known of task t, standardised")
        return lines
    if structure.relates_tasks:
        lines = [f"β_t = {centre} + u_t,   Cov(u_t, u_s) = Ω_ts Σ"]
    else:
        spread = "Σ / λ_t" if isinstance(structure, StudentT) else "Σ"
        lines = [f"β_t ~ Normal({centre}, {spread})"]
    lines.append("Σ = diag(s) R diag(s): how coefficients vary (s) and co-vary (R) across tasks")
    if default_priors(spec, data)[0]["feature_sd_scale"] != 1.0:
        lines.append("s_j ~ HalfNormal(c × scale of feature j): c, learned, is common to all features")
    if spec.feature_scales is not None:
        lines.append(
            f"s_j and the scale of μ_j: {type(spec.feature_scales).__name__}, for all features together"
        )
    if structure.relates_tasks:
        lines.append("Ω: how tasks co-vary, a correlation matrix")
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
