"""The step of an experiment on TPUs that are not here: compiled and priced."""
