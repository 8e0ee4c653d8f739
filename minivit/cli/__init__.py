"""The command line: what `minivit COMMAND` does."""
