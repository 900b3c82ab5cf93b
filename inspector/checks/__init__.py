"""Judgements: one file per kind; views in, findings out."""
