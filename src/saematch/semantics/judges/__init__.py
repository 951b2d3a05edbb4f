"""Whether two descriptions mean the same: judges, experiments and agreement."""
