"""Handing what was found, and trained, to other tools."""
