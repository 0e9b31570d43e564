"""Export of found and trained architectures to other tools."""
