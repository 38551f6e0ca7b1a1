# %% [markdown]
# # Task coefficients under a likelihood of your own
#
# Counts that scatter more than a Poisson: visits to twelve clinics, week by week, against a dose. No
# family of the package fits, and none is needed: `task_coefficients` adds the hierarchical coefficients
# to any `pm.Model`, and what comes after them is plain PyMC.

# %%
import os

import numpy as np
import pymc as pm

import bayes_mtl as mtl

# Fewer draws for a quick look at whether everything works; do not read anything from them.
DRAWS = int(os.environ.get("BAYES_MTL_EXAMPLE_DRAWS", "1000"))

# %% [markdown]
# ## Simulated data
#
# Six clinics where visits rise with the dose, and six where they fall: on average, nothing.

# %%
rng = np.random.default_rng(1)
clinics = [f"clinic_{i:02d}" for i in range(12)]
clinic = np.repeat(np.arange(12), 25)
true_slope = np.repeat([0.7, -0.7], 6) + 0.1 * rng.standard_normal(12)
dose = rng.standard_normal(len(clinic))
rate = np.exp(1.5 + 0.3 * rng.standard_normal(12)[clinic] + true_slope[clinic] * dose)
dispersion = 4.0
visits = rng.negative_binomial(dispersion, dispersion / (dispersion + rate))

# %% [markdown]
# ## The model
#
# The two dims of the coefficients must have coordinates. Any structure of the package can be the task
# covariance.

# %%
coords = {"clinic": clinics, "feature": ["Intercept", "dose"], "week": np.arange(len(clinic))}
with pm.Model(coords=coords) as model:
    beta = mtl.task_coefficients(
        "beta",
        task_covariance=mtl.Exchangeable(),
        feature_covariance=mtl.LKJ(2.0),
        dims=("clinic", "feature"),
        priors={"feature_sd": mtl.Prior("HalfNormal", sigma=1.0)},
    )
    log_rate = beta[clinic, 0] + beta[clinic, 1] * dose
    alpha = pm.Gamma("dispersion", alpha=2.0, beta=0.5)
    pm.NegativeBinomial("visits", mu=pm.math.exp(log_rate), alpha=alpha, observed=visits, dims="week")

# %%
with model:
    idata = pm.sample(
        draws=DRAWS, tune=DRAWS, chains=2, random_seed=1, nuts_sampler="nutpie", progressbar=False
    )

# %% [markdown]
# ## The result
#
# The names follow from the one that was given: `beta`, `beta_mean`, `beta_feature_sd`, `beta_feature_corr`.

# %%
posterior = idata["posterior"]
slope = posterior["beta"].sel(feature="dose")
print("clinic     slope (sd)     true")
for name, mean, sd, truth in zip(
    clinics,
    slope.mean(("chain", "draw")).to_numpy(),
    slope.std(("chain", "draw")).to_numpy(),
    true_slope,
    strict=True,
):
    print(f"{name}  {mean:+.2f} ({sd:.2f})   {truth:+.2f}")
spread = posterior["beta_feature_sd"].sel(feature="dose")
print(f"slopes differ between clinics with sd {float(spread.mean()):.2f}")
