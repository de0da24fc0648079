"""Runs side by side: `runs` reads what they wrote, `table` compares, `text` writes it down."""
