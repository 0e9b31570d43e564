"""A search from the user's options to the verdict: baselines, trials, confirmation."""
