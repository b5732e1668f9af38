"""Rows without labelled data: texts written label by label, after arXiv 2202.04538 (SuperGen)."""
