"""What the drawing says; pure, only dxf.py opens a file."""
