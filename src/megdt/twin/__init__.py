"""The digital twin: the state of scene and network, kept with its whole history."""
