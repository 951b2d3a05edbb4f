"""`saematch describe` and `saematch explain`: descriptions of a run's features."""
