"""The heart, pure: frames and a recipe in, one inspection for each frame out; `decide` is the rule."""
