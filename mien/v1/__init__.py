"""Generated from proto/mien/v1 by proto/generate.py; not edited by hand."""
