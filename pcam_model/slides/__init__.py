"""Whole slides: geometry, reading, tissue, predictions on a grid, heatmaps, outlines and slide scores."""
