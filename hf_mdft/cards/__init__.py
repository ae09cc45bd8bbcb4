"""Model cards: typed facts in, text out."""
