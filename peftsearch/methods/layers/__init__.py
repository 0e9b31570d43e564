"""The layers of the methods: modules, hooks and their initialisation, all that needs torch."""
