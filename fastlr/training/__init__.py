"""`fastlr.train` and what else works on an objective: callbacks, history, rates computed from the objective."""
