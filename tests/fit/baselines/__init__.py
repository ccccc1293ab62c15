"""Baselines, each against an independent search of its family."""
