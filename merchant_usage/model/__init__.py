"""Pure rules and values: no driver, no input or output."""
