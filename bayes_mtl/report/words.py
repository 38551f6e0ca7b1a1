"""The model in equations and in words."""

from __future__ import annotations

import inspect

from bayes_mtl.data import TaskData
from bayes_mtl.model import default_priors
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, StudentT, TaskMixture


def model_equations(spec: ModelSpec, data: TaskData) -> list[str]:
    """Return the model, one equation per line."""
    eta = "xᵢ′β[t(i)]" + (" + wᵢ′γ" if data.shared_features else "")
    if spec.family.has_noise:
        scale = "sᵢ (known)" if data.noise is not None else "σ"
        scale = "σ[t(i)]" if getattr(spec.family, "task_noise", False) else scale
        lines = [f"yᵢ ~ Normal({eta}, {scale})"]
    else:
        lines = [f"yᵢ ~ Bernoulli(logit⁻¹({eta}))"]
    structure = spec.task_covariance
    centre = "μ" + (" + Γz_t" if data.task_feature_names else "")
    if isinstance(structure, CompletePooling):
        return [*lines, f"β_t = {centre} for every task t"]
    if isinstance(structure, TaskMixture):
        return [*lines, f"β_t ~ Σₖ πₖ Normal({centre} + mₖ, Σ)", "Σ = diag(s) R diag(s)"]
    if structure.relates_tasks:
        lines.append(f"β_t = {centre} + u_t,   Cov(u_t, u_s) = Ω_ts Σ")
    else:
        spread = "Σ / λ_t" if isinstance(structure, StudentT) else "Σ"
        lines.append(f"β_t ~ Normal({centre}, {spread})")
    lines.append("Σ = diag(s) R diag(s): how coefficients vary (s) and co-vary (R) across tasks")
    if default_priors(spec, data)[0]["feature_sd_scale"] != 1.0:
        lines.append("s_j ~ HalfNormal(c × scale of feature j): c, learned, is common to all features")
    if structure.relates_tasks:
        lines.append("Ω: how tasks co-vary, a correlation matrix")
    return lines


def structure_in_words(spec: ModelSpec) -> str:
    """Return what the structure's own documentation says first."""
    structure = spec.task_covariance
    doc = inspect.getdoc(type(structure)) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    return f"Task structure {structure}: {first}"
