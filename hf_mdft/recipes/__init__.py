"""A run in one YAML file: read, checked, done. Importing the room imports nothing heavy, for `--help`."""
