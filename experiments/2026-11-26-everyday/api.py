"""From data to a trained model by the Python interface; 2026-11-26-tasks-and-budgets/by_hand.py does it by hand."""

import pandas as pd

import peftsearch

train, validation = (pd.read_json(f"data/{split}.jsonl", lines=True) for split in ("train", "validation"))
result = peftsearch.search(train_dataset=train, eval_dataset=validation, budget="0.1%", time="10m")
print(result)
trainer = result.trainer()
trainer.train()
print(trainer.evaluate())
trainer.save_model("trained")
