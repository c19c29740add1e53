"""HTTP: one file per resource, the schemas, and who may call what."""
