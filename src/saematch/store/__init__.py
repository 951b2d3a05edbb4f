"""The run directory: names, schema, manifest, freshness, and its reader."""
