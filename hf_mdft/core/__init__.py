"""What every room may use: errors, names, files. No idea of models or tasks."""
