"""The command line, one command per file; no other room sees its arguments or a console."""
