"""PEFT's own tests, for our method."""
