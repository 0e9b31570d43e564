"""Designs, search spaces, budgets, and architectures with exact sizes, all without torch."""
