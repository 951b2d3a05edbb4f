"""`saematch evaluate`: a run's matchings on its language model."""
