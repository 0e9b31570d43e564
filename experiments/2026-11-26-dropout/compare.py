"""With and without dropout, paired by design and seed: mean difference, standard error, n; prints a table."""

from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
KEY = ["task", "name", "seed"]
SIGNALS = ["loss_30", "loss_mean_30", "loss_100", "acc_100"]

for task in ("trec", "sst5"):
    without = pd.read_csv(HERE / f"without-{task}.csv").drop_duplicates(KEY).set_index(KEY)
    having = pd.read_csv(HERE.parent / "2026-11-26-hybrid-benchmark" / f"designs-{task}.csv").set_index(KEY)
    both = without.index.intersection(having.index)
    for signal in SIGNALS:
        difference = without.loc[both, signal] - having.loc[both, signal]
        print(task, signal, f"{difference.mean():+.4f} +- {difference.sem():.4f}, n = {len(both)}")
    for signal in ("loss_mean_30", "loss_100"):
        wide = [rows.loc[both, signal].unstack("seed").dropna() for rows in (having, without)]
        noise = [(w[0] - w[1]).std() / 2**0.5 for w in wide]
        rank = wide[0].mean(axis=1).corr(wide[1].mean(axis=1), method="spearman")
        print(task, signal, "sd between seeds with, without:", *(f"{n:.4f}" for n in noise), f"Spearman {rank:.2f}")
