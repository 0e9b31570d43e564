"""Prints the rows of the tables of README.md from results.json, in MB, with the errors of the predictions."""

import json
from pathlib import Path

RESULTS = json.loads((Path(__file__).parent / "results.json").read_text())


def main() -> None:
    """Print the rows of both tables."""
    for r in RESULTS:
        if "trained" not in r:
            error = 100 * (r["predicted"] / r["stored"] - 1)
            print(f"| {r['quantize']} | {r['predicted'] / 1e6:.2f} | {r['stored'] / 1e6:.2f} | {error:+.2f}% |")
            continue
        counted = r["counted"]
        for kind in ("documented", "fused", "eager"):
            p = r["predicted"][kind]
            cells = [r["trained"], f"{r['batch']} x {r['seq']}", r["attention"], kind]
            cells += [f"{p['hidden_states'] / 1e6:.1f}", f"{counted['hidden_states'] / 1e6:.1f}"]
            cells += [f"{100 * (p['hidden_states'] / counted['hidden_states'] - 1):+.0f}%"]
            cells += [f"{p['sum'] / 1e6:.1f}", f"{counted['sum'] / 1e6:.1f}"]
            cells += [f"{100 * (p['sum'] / counted['sum'] - 1):+.1f}%"]
            less = p["sum"] - p["weights"]
            cells += [f"{less / 1e6:.1f}", f"{r['grown'] / 1e6:.1f}", f"{100 * (less / r['grown'] - 1):+.0f}%"]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
