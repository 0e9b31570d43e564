"""How much a pick gains with more examples to choose by: picked on some, scored on examples that picked nothing.

Reads what `pick.py` reads. Of 16 designs at random the best by the mean hits of two seeds is picked, and the best by
their mean loss; both are scored by their hits on the same examples aside.
"""

from __future__ import annotations

import numpy as np
from pick import REPEATS, read

SEEN, ASIDE, DESIGNS = (50, 100, 200, 400, 800), 100, 16


def main() -> None:
    """Print one line for each task and number of examples."""
    rng = np.random.default_rng(0)
    for task in ("trec", "sst5"):
        losses, hits = read(task)
        n = losses.shape[2]
        for n_seen in (k for k in SEEN if k + ASIDE <= n):
            rows = []
            for _ in range(REPEATS):
                order = rng.permutation(n)
                seen, left = order[:n_seen], order[-ASIDE:]
                some = rng.choice(len(hits), DESIGNS, replace=False)
                told, true = hits[some][:, :, seen].mean((1, 2)), hits[some][:, :, left].mean((1, 2))
                by_loss = int(np.argmin(losses[some][:, :, seen].mean((1, 2))))
                best = int(np.argmax(told))
                rows.append((true[best] - true.mean(), true[by_loss] - true.mean(), told[best] - true[best]))
            metric, loss, optimism = 100 * np.mean(rows, axis=0)
            error = 100 * np.std(rows, axis=0, ddof=1) / REPEATS**0.5
            print(
                f"{task}, {n_seen} examples: by the metric {metric:+.2f} ± {error[0]:.2f} points above the mean, "
                f"by the loss {loss:+.2f} ± {error[1]:.2f}, told too high by {optimism:.2f}"
            )


if __name__ == "__main__":
    main()
