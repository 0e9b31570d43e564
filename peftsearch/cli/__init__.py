"""The command line: one verb a file. Nothing below this room sees its arguments or a console."""
