"""ML Lab, the web pages: not part of this release."""
