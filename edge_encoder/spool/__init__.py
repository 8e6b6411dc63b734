"""Chunks that wait on disk: those of earlier runs, and those that an outage has left behind."""
