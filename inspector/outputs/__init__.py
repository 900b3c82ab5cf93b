"""What vision keeps and what both processes tell."""
