"""Clicks: a study's table of them, the paper's own brought into it, and a page in the browser that collects them."""
