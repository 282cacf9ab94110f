"""The digital twin: what is known of scene and network, and what is predicted of it."""
