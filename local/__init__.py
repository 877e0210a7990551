"""What only a person's own machine needs: servers, demo traffic, the demo itself. Not in the image."""
