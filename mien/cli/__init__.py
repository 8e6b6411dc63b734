"""`mien`: the command line for people."""
