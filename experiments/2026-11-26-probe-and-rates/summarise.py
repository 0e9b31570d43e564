"""Print the tables of the README from the CSV files of this folder. Usage: python summarise.py [FOLDER]"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from scipy.stats import pearsonr, spearmanr

Row = dict[str, str]
AT = ("10", "30", "100")


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def value(row: Row, name: str) -> float:
    return float(row[name]) if row.get(name) else math.inf


def spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard error (n)."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f} (1)"
    return f"{mean(values):.{digits}f} ± {stdev(values) / len(values) ** 0.5:.{digits}f} ({len(values)})"


def table(header: list[str], lines: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "|".join("---" if i == 0 else "---:" for i in range(len(header))) + "|")
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def checks(rows: list[Row]) -> None:
    print("### float32 against bfloat16\n")
    by: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by[row["task"], row["arm"], row["rate"], row["head"], row["seed"]][row["precision"]] = row
    lines = []
    for key, pair in by.items():
        if len(pair) == 2:
            cells = [f"{float(pair[p][f'loss_{at}']):.4f}" for at in AT for p in ("fp32", "bf16")]
            seconds = [pair[p]["train_s"] for p in ("fp32", "bf16")]
            lines.append([" ".join(key), *cells, *seconds])
    header = ["training", *(f"{p} {at} %" for at in AT for p in ("fp32", "bf16")), "s fp32", "s bf16"]
    table(header, lines)


def probes(rows: list[Row]) -> None:
    print("### The probe itself\n")
    names = ("head_norm", "val_loss", "val_acc", "noisy_loss", "noisy_dropout_loss")
    table(["task", "kind", "C", *names], [[r["task"], r["kind"], r["c"], *(r[n] for n in names)] for r in rows])


def heads(rows: list[Row]) -> None:
    """Heads by columns (task, arm, rate), and the mean excess over the best head of each column."""
    print("### Heads\n")
    by: dict[tuple[str, ...], dict[tuple[str, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by[row["head"], row["c"], row["head_rate"]][row["task"], row["arm"], row["rate"]].append(row)
    columns = sorted({column for found in by.values() for column in found})
    best = {
        (column, at): min(
            mean(value(r, f"loss_{at}") for r in found[column]) for found in by.values() if column in found
        )
        for column in columns
        for at in AT
    }
    for metric in ("loss", "acc"):
        lines = []
        for head, found in by.items():
            line = [" ".join(head)]
            for column in columns:
                if column not in found:
                    line.append("")
                    continue
                cells = [mean(value(r, f"{metric}_{at}") for r in found[column]) for at in ("0", *AT)]
                line.append(" ".join(f"{x:.3f}" for x in cells) + f" ({len(found[column])})")
            if metric == "loss":
                for at in AT:
                    excess = [mean(value(r, f"loss_{at}") for r in found[c]) - best[c, at] for c in found]
                    line.append(f"{mean(excess):.3f}")
            lines.append(line)
        lines.sort(key=lambda line: float(line[-1]) if metric == "loss" else 0)
        more = [f"excess {at} %" for at in AT] if metric == "loss" else []
        table([f"{metric} at 0 10 30 100 %", *(" ".join(c) for c in columns), *more], lines)


def first(rows: list[Row]) -> list[float]:
    """The final losses of seed 0: rates are compared within one seed, since not all have two."""
    return [value(row, "loss_100") for row in rows if row["seed"] == "0"]


def rates(rows: list[Row]) -> dict[tuple[str, str], str]:
    """The rate of every arm: least mean over trec and sst5 of the excess over the arm's best loss of that task."""
    print("### Rates\n")
    by: dict[tuple[str, str], dict[str, dict[str, list[Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        by[row["arm"], row["budget"]][row["rate"]][row["task"]].append(row)
    tasks = sorted({row["task"] for row in rows}, key=lambda t: ("trec", "sst5", "cr", "entailment").index(t))
    chosen, lines, short = {}, [], []
    for (arm, budget), found in by.items():
        best = {
            t: min(mean(first(of[t])) for of in found.values() if of[t])
            for t in tasks
            if any(of[t] for of in found.values())
        }
        excess: dict[str, float] = {}
        for rate in sorted(found, key=float):
            of = {t: cell for t, cell in found[rate].items() if cell}
            gaps = {t: mean(first(cell)) - best[t] for t, cell in of.items()}
            if {"trec", "sst5"} <= set(of):
                excess[rate] = mean(gaps[t] for t in ("trec", "sst5"))
            row = next(iter(of.values()))[0]
            cells = [spread([value(r, "loss_100") for r in of[t]]) if t in of else "" for t in tasks]
            cells += [spread([value(r, "acc_100") for r in of[t]]) if t in of else "" for t in tasks]
            shown = f"{excess[rate]:.4f}" if rate in excess else ""
            lines.append([arm, budget, row["n_params"], row["size"], rate, *cells, shown])
        if not excess:
            continue
        rate = min(excess, key=lambda r: excess[r])
        chosen[arm, budget] = rate
        top, fitted = float(rate), float("nan")
        near = sorted(excess, key=float)
        at = near.index(rate)
        if 0 < at < len(near) - 1:
            x = np.log10([float(r) for r in near[at - 1 : at + 2]])
            a, b, _ = np.polyfit(x, [excess[r] for r in near[at - 1 : at + 2]], 2)
            fitted = 10 ** (-b / (2 * a))
        lower = excess[near[at - 1]] - excess[rate] if at else float("nan")
        upper = excess[near[at + 1]] - excess[rate] if at < len(near) - 1 else float("nan")
        by_task = []
        for t in tasks:
            of = {r: mean(first(cell[t])) for r, cell in found.items() if cell[t]}
            by_task.append(f"{min(of, key=lambda r: of[r])}" if len(of) > 1 else "")
        params = next(iter(next(iter(found.values())).values()))[0]["n_params"]
        short.append([arm, budget, params, f"{top:.0e}", f"{fitted:.1e}", f"{lower:.3f}", f"{upper:.3f}", *by_task])
    scores = [f"{t} {metric}" for metric in ("loss", "acc") for t in tasks]
    table(["arm", "budget", "parameters", "size", "rate", *scores, "excess"], lines)
    shapes = ["best rate", "vertex", "cost of / 3", "cost of x 3", *(f"best {t}" for t in tasks)]
    table(["arm", "budget", "parameters", *shapes], short)
    return chosen


def rungs(rows: list[Row], chosen: dict[tuple[str, str], str]) -> None:
    """Correlation of the values of one seed with the end of the other seed."""
    print("### Rungs: value of one seed against the final value of the other\n")
    pairs: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["loss_100"]:
            pairs[row["task"], row["arm"], row["budget"], row["rate"]][row["seed"]] = row
    both = {key: pair for key, pair in pairs.items() if {"0", "1"} <= set(pair)}
    for what, keep in (
        ("every arm at its best rate", lambda key: chosen.get((key[1], key[2])) == key[3]),
        ("all arms and rates with two seeds", lambda key: True),
    ):
        lines = []
        for task in sorted({key[0] for key in both}):
            of = [pair for key, pair in both.items() if key[0] == task and keep(key)]
            if len(of) < 5:
                continue
            for metric in ("loss", "acc"):
                for at in AT:
                    cells = []
                    for goal in ("loss_100", "acc_100"):
                        sign = -1 if goal[:4] != metric[:4] and "loss" in (goal[:4], metric) else 1
                        s, p = [], []
                        for one, other in permutations(("0", "1")):
                            x = [value(pair[one], f"{metric}_{at}") for pair in of]
                            y = [value(pair[other], goal) for pair in of]
                            s.append(sign * spearmanr(x, y).statistic)
                            p.append(sign * pearsonr(x, y).statistic)
                        cells += [f"{mean(s):.2f}", f"{mean(p):.2f}"]
                    lines.append([task, f"{metric} at {at} %", str(len(of)), *cells])
        print(f"{what}\n")
        table(["task", "value", "arms", "loss: Spearman", "Pearson", "accuracy: Spearman", "Pearson"], lines)
    noise = defaultdict(list)
    for key, pair in both.items():
        for at in AT:
            noise[key[0], at].append(
                (
                    value(pair["0"], f"loss_{at}") - value(pair["1"], f"loss_{at}"),
                    value(pair["0"], f"acc_{at}") - value(pair["1"], f"acc_{at}"),
                )
            )
    lines = []
    for (task, at), gaps in noise.items():
        deviation = [math.sqrt(mean(g[i] ** 2 for g in gaps) / 2) for i in (0, 1)]
        lines.append([task, at, str(len(gaps)), f"{deviation[0]:.4f}", f"{deviation[1]:.4f}"])
    table(["task", "at %", "pairs of seeds", "deviation of one seed: loss", "accuracy"], lines)


def curves(lines_of: list[Row], rows: list[Row], chosen: dict[tuple[str, str], str]) -> None:
    """Signals of one seed, all on the arms that have them, against the final loss and accuracy of the other seed."""
    print("### Further signals of one seed against the end of the other\n")
    final = {(r["task"], r["arm"], r["budget"], r["rate"], r["seed"]): r for r in rows if r["loss_100"]}
    lines = []
    for task in ("trec", "sst5"):
        for what in ("best rates", "all"):
            found = []
            for line in lines_of:
                key = (line["task"], line["arm"], line["budget"], line["rate"])
                other, own = final.get((*key, "1" if line["seed"] == "0" else "0")), final.get((*key, line["seed"]))
                if task != key[0] or other is None or own is None:
                    continue
                if what == "all" or chosen.get((key[1], key[2])) == key[3]:
                    found.append(({**own, **line}, other))
            found = [(own, other) for own, other in found if "mean_loss_30" in own]
            if len(found) < 5:
                continue
            for signal in (
                "train_10",
                "loss_10",
                "mean_loss_10",
                "train_30",
                "loss_30",
                "mean_loss_30",
                "train_60",
                "loss_60",
                "train_100",
                "loss_100",
                "acc_10",
                "mean_acc_10",
                "acc_30",
                "mean_acc_30",
                "acc_60",
                "acc_100",
            ):
                sign = -1 if "acc" in signal else 1
                x = [sign * value(own, signal) for own, _ in found]
                loss = [value(other, "loss_100") for _, other in found]
                accuracy = [-value(other, "acc_100") for _, other in found]
                lines.append(
                    [
                        task,
                        what,
                        signal,
                        str(len(found)),
                        f"{spearmanr(x, loss).statistic:.2f}",
                        f"{pearsonr(x, loss).statistic:.2f}",
                        f"{spearmanr(x, accuracy).statistic:.2f}",
                        f"{pearsonr(x, accuracy).statistic:.2f}",
                    ]
                )
    table(["task", "arms", "signal", "n", "loss: Spearman", "Pearson", "accuracy: Spearman", "Pearson"], lines)


def first_seed(rows: list[Row]) -> None:
    """Within one seed: which rung picks the rate of an arm, and how it ranks arms at their best rates."""
    print("### One seed: the rate that a rung would pick\n")
    by: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["seed"] == "0" and row["loss_100"]:
            by[row["task"], row["arm"], row["budget"]].append(row)
    lines = []
    for task in sorted({key[0] for key in by}):
        for metric, pick in (("loss", min), ("acc", max)):
            for at in ("10", "30"):
                regret = [
                    value(pick(of, key=lambda r: value(r, f"{metric}_{at}")), "loss_100")
                    - min(value(r, "loss_100") for r in of)
                    for key, of in by.items()
                    if key[0] == task and len(of) > 2
                ]
                if regret:
                    right = sum(r == 0 for r in regret)
                    lines.append(
                        [
                            task,
                            f"{metric} at {at} %",
                            f"{right} of {len(regret)}",
                            f"{mean(regret):.4f}",
                            f"{max(regret):.4f}",
                        ]
                    )
    table(["task", "value", "picks the rate that is best at the end", "mean regret of loss", "most"], lines)


def within(rows: list[Row], chosen: dict[tuple[str, str], str]) -> None:
    """How a rung of seed 0 ranks the final losses of seed 0 itself: what another seed would give is lower."""
    print("### Rungs within seed 0: value at the rung against the final loss of the same training\n")
    lines = []
    for task in ("trec", "sst5"):
        every = [r for r in rows if r["task"] == task and r["seed"] == "0" and r["loss_100"]]
        at_best = [r for r in every if chosen.get((r["arm"], r["budget"])) == r["rate"]]
        for what, of in (("every arm at its best rate", at_best), ("all arms and rates", every)):
            final = [value(r, "loss_100") for r in of]
            for signal in ("loss_10", "acc_10", "loss_30", "acc_30", "acc_100"):
                sign = -1 if "acc" in signal else 1
                x = [sign * value(r, signal) for r in of]
                lines.append(
                    [
                        task,
                        what,
                        signal,
                        str(len(of)),
                        f"{spearmanr(x, final).statistic:.2f}",
                        f"{pearsonr(x, final).statistic:.2f}",
                    ]
                )
    table(["task", "arms", "value", "n", "Spearman", "Pearson"], lines)
    lines = []
    for task in ("trec", "sst5"):
        final = [
            value(r, "loss_100")
            for r in rows
            if r["task"] == task and r["seed"] == "0" and chosen.get((r["arm"], r["budget"])) == r["rate"]
        ]
        lines.append([task, str(len(final)), f"{stdev(final):.4f}", f"{min(final):.3f}", f"{max(final):.3f}"])
    table(["task", "arms at their best rate", "deviation of the final loss", "least", "most"], lines)


def averages(means: list[Row], rows: list[Row]) -> None:
    """The mean of the weights over the last third of the steps so far, against the weights themselves."""
    print("### Mean of the weights at a rung\n")
    names = ("task", "arm", "budget", "rate", "seed")
    known = {tuple(r[n] for n in names): r for r in rows}
    lines = []
    for line in means:
        row = known[tuple(line[n] for n in names)]
        cells = [f"{float(x):.3f}" for at in ("10", "30") for x in (row[f"loss_{at}"], line[f"mean_loss_{at}"])]
        lines.append([line["task"], f"{line['arm']} {line['budget']}", *cells, f"{float(row['loss_100']):.3f}"])
    table(["task", "arm", "10 %", "10 %, mean weights", "30 %", "30 %, mean weights", "100 %"], lines)


def collapsed(rows: list[Row]) -> None:
    """Trainings that end above the loss that they started from."""
    bad = [r for r in rows if not r["loss_100"] or (value(r, "loss_100") >= value(r, "loss_0"))]
    print(f"### Collapsed: {len(bad)} of {len(rows)}\n")
    names = ("task", "arm", "budget", "rate", "head", "c", "head_rate", "seed", "loss_0", "loss_100", "error")
    table(list(names), [[r[n] for n in names] for r in bad])


def costs(rows: list[Row]) -> None:
    print("### Seconds\n")
    by = defaultdict(list)
    for row in rows:
        if row["train_s"] and float(row["train_s"]) < 300:  # one training was paused in between
            by[row["task"], row["arm"]].append((float(row["train_s"]), float(row["val_s"])))
    table(
        ["task", "arm", "n", "training", "three validations"],
        [[*key, str(len(v)), f"{mean(x[0] for x in v):.1f}", f"{mean(x[1] for x in v):.1f}"] for key, v in by.items()],
    )


def main() -> None:
    """Print all tables."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    checks(read(folder / "check.csv"))
    probes(read(folder / "probes.csv"))
    if found := read(folder / "heads.csv"):
        heads(found)
        collapsed(found)
    if found := read(folder / "rates.csv"):
        chosen = rates(found)
        rungs(found, chosen)
        names = ("task", "arm", "budget", "rate", "seed")
        means = {tuple(r[n] for n in names): r for r in read(folder / "averages.csv")}
        more = [r | means.get(tuple(r[n] for n in names), {}) for r in read(folder / "curves.csv")]
        curves(more, found, chosen)
        within(found, chosen)
        averages(read(folder / "averages.csv"), found)
        first_seed(found)
        collapsed(found)
        costs(found)


if __name__ == "__main__":
    main()
