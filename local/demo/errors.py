"""What keeps the demo from its end."""


class DemoError(RuntimeError):
    """The demo cannot go on. The message says why and what to do."""
