"""Evaluation of a model on one split of prepared data: predictions, scores under every protocol, report."""
