"""YAML catalogue; read through `peftsearch.catalog`."""
