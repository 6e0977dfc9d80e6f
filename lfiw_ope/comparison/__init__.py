"""Many estimators, policies and seeds in one table that a killed run goes on with."""
