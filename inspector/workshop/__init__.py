"""Offline work; may use everything, used by nothing but the commands."""
