"""Several cameras in one supervisor, a process each. See decision 11."""
