"""Greedy texts on the test prompts of subset.py, beside all their references.

python score.py MODEL DATA OUT [RUN NAME]: log-likelihood, multi-reference BLEU and ROUGE-L of the untuned model, or of
what a run confirmed under a name, seed by seed. The run need not be finished.
"""

import json
import sys
from pathlib import Path

import optuna
import torch

from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.generation import generate, log_likelihoods
from peftsearch.injection.inject import inject
from peftsearch.injection.states import read_state, set_state
from peftsearch.options import TaskOptions
from peftsearch.study.folder import confirmed_seeds, state_paths
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.text_metrics import bleu, log_likelihood, rouge_l

OPTIONS = {"batch_size": 16, "device": torch.device("cpu"), "autocast": None}


def score(name, model, split):
    """A line for the table, with the first texts."""
    texts = generate(model, split, **OPTIONS)
    references = [[split.references[i] for i in rows] for rows in split.groups]
    found = {
        "name": name,
        "bleu": bleu(texts, references),
        "rouge_l": rouge_l(texts, references),
        "n_prompts": len(texts),
        "n_references": len(split),
        "texts": texts[:4],
    }
    print(json.dumps(found, ensure_ascii=False), flush=True)
    sums = log_likelihoods(model, split, **OPTIONS)
    value = log_likelihood(sums, [len(row) for row in split.completions])
    print(json.dumps({"name": name, "log_likelihood": value}), flush=True)


def main():
    """Score the untuned model, or every confirmed seed of a design."""
    torch.set_num_threads(1)
    model, data, out, *run = sys.argv[1:]
    files = {"train": f"{data}/train.jsonl", "validation": f"{out}/validation.jsonl", "test": f"{out}/references.jsonl"}
    task = resolve_task(TaskOptions(**files, kind="generation", max_train=400))
    loaded = load_backbone(model, num_labels=0, problem_type="generation")
    split = encode(task, loaded.tokenizer, 128).test
    if not run:
        return score("untuned", loaded.model, split)
    folder, name = Path(run[0]), run[1]
    confirm = optuna.load_study(study_name="confirm", storage=f"sqlite:///{folder / 'study.db'}")
    design = next(t.user_attrs["design"] for t in confirm.trials if t.user_attrs.get("name") == name)
    architecture = fit(Design.from_dict(design), loaded.backbone, parse_budget("0.1%", loaded.backbone.n_params))
    for seed in confirmed_seeds(folder, name):
        with inject(loaded.model, architecture, loaded.backbone):
            set_state(loaded.model, read_state(state_paths(folder, name, seed, 1)[0]))
            score(f"{name}, seed {seed}", loaded.model, split)


if __name__ == "__main__":
    main()
