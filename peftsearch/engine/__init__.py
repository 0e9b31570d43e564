"""Train and score one job at a time on the backbone that this process holds."""
