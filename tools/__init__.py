"""Programs for whoever makes, checks or releases a bundle."""
