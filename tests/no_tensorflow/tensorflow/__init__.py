"""Ends the program: every command that a test starts finds this TensorFlow first."""

raise SystemExit("tensorflow was imported")
