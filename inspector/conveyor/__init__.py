"""Where the belt is: one file per kind."""
