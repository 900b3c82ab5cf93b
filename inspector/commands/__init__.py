"""The commands: thin, each calls one function."""
