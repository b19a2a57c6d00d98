"""Keeping what was read for a while, in this process or in one that several share. Knows nothing of tasks."""
