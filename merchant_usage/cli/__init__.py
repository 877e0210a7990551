"""What `python -m merchant_usage` is made of: arguments, commands, and how answers are told."""
