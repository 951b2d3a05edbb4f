"""`saematch judge`: a run's matched features put before a judge."""
