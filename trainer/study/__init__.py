"""The paper's experiment: a generic codec, and what tuning it for a classifier gains."""
