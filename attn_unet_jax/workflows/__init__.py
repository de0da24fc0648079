"""The workflows of the commands, each from beginning to end."""
