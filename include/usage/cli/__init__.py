"""What `python -m include.usage` is made of: arguments, commands, and how answers are told."""
