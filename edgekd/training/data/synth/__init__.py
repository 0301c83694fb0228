"""Seeded synthetic data sets."""
