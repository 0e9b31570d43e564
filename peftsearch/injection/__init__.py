"""What goes into a loaded model and comes out again bit for bit: hooks, their states, folds and checkpoints."""
