"""The bulk importer: chunks, outcomes, workers."""
