"""Run the trials of a search on Ray Tune, for many GPUs or machines."""
