"""What `merchant-usage` is made of: arguments, commands, and how answers are told."""
