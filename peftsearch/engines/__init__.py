"""Engines: where trials run. `local` runs them one after the other in this process."""
