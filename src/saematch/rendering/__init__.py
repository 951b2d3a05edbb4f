"""Pages and figures written into a run directory."""
