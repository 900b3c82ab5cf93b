"""Threads and processes, and no other folder has any."""
