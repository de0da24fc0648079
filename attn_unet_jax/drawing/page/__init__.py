"""Builds the page of a run: one HTML file that opens without a network.

`volumes` makes scans small enough to embed, `document` writes the HTML. The script and the style of
the page lie beside them and are embedded as they are.
"""
