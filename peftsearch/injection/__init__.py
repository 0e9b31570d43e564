"""Injection of architectures into a loaded model, exactly reversible: hooks, states, folding and checkpoints."""
