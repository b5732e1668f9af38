"""Serve judges over HTTP: reading requests, batching rows, answering in several forms."""
