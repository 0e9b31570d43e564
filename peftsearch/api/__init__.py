"""The Python interface: search, and use what a run found."""
