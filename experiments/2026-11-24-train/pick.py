"""Write a best.yaml that holds another design of a run than its pick: python pick.py RUN "trial 15" OUT.yaml."""

import sys
from pathlib import Path

import optuna
import yaml

from peftsearch.backbone.outline import read_outline
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.options import ModelOptions

run, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
best = yaml.safe_load((run / "best.yaml").read_text())
storage = optuna.storages.RDBStorage(f"sqlite:///{(run / 'study.db').resolve()}")
trials = [t for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id)]
design = next(t.user_attrs["design"] for t in trials if t.user_attrs.get("name") == name)
backbone = read_outline(ModelOptions()).backbone
architecture = fit(Design.from_dict(design), backbone, parse_budget(best["budget"]["text"], best["model"]["n_params"]))
best |= {"name": name, "design": design, "architecture": architecture.to_dict()}
out.write_text(yaml.safe_dump(best, sort_keys=False))
print(name, design, architecture.n_params)
