"""The verbs of the command line, each a few lines around one library call."""
