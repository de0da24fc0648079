"""Tests mirror the packages: one file per module."""
