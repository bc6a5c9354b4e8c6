"""The checks of the built site: links without a browser, the rest in Chromium."""
