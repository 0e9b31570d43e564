"""Training in full what a search found: from `best.yaml` to a folder that evaluates, predicts and goes to the hub."""
