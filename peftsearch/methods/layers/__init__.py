"""Layers of the methods: modules, hooks and initialisation, the parts that need torch."""
