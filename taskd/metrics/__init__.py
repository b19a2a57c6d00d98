"""Counting what happens, and showing it to Prometheus and to people."""
