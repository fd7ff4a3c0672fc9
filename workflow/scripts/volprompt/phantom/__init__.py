"""Synthetic knees for the demo and the tests."""
