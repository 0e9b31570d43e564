"""Train and score one job on the backbone that this process holds."""
