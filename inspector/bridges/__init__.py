"""Subscribers that tell somebody else: one file per kind of listener."""
