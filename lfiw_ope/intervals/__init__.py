"""Confidence intervals: what each kind of estimator can say of its own error."""
