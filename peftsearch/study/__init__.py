"""The record of a search: its folder, its storage, its trials and its result."""
