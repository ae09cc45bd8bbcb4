"""Finished results: folders, figures, report page."""
